"""Validation on degraded faces: PSNR-Y over bicubic and LPIPS, by frame size and kind."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from aminet.config import LR_SIDE, SR_SIDE
from aminet.training.degradation import KINDS, Degradation, photograph, relight, resample
from aminet.training.lpips import LPIPS
from aminet.training.validation import Validation
from runtime.dataset import load_faces
from runtime.image import Pixels, psnr_y, to_pixels, to_tensor

SIZES = (16, 24, 32, 48)  # px of the frame
FACES = 32  # of each cell
SEED = 20
BATCH = 16


@dataclass(frozen=True, eq=False)
class WildCell:
    """Faces of one size and kind: frames (S, S, 3) and the clean faces hr (128, 128, 3)."""

    kind: str
    size: int
    frames: tuple[Pixels, ...]
    hr: tuple[Pixels, ...]

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.size}"

    @classmethod
    def make(cls, kind: str, size: int, faces: Sequence[Pixels], seed: int = SEED) -> Self:
        """Degrade the faces; the same seed gives the same frames."""
        recipe = fixed_size(KINDS[kind], size)
        rngs = [np.random.default_rng([seed, size, place]) for place in range(len(faces))]
        hr = tuple(relight(face, recipe.light, rng) for face, rng in zip(faces, rngs, strict=True))
        camera = recipe.cameras[0][1]
        frames = (photograph(face, camera, rng) for face, rng in zip(hr, rngs, strict=True))
        return cls(kind, size, tuple(frames), hr)

    @cached_property
    def bicubic(self) -> NDArray[np.float64]:
        """PSNR-Y of each face by Pillow's bicubic upscaling of its frame."""
        return self.psnr_y([resample(frame, SR_SIDE) for frame in self.frames])

    def psnr_y(self, sr: Sequence[Pixels]) -> NDArray[np.float64]:
        return np.array([psnr_y(a, b) for a, b in zip(sr, self.hr, strict=True)])


def fixed_size(degradation: Degradation, size: int) -> Degradation:
    """The same with frames of one size."""
    cameras = [
        (share, replace(camera, frame=(size, size))) for share, camera in degradation.cameras
    ]
    return replace(degradation, cameras=tuple(cameras))


@dataclass(frozen=True, eq=False)
class WildValidation:
    """A fixed set of degraded faces, in cells of one size and kind."""

    cells: tuple[WildCell, ...]
    lr_side: int
    lpips: LPIPS | None = None

    @classmethod
    def load(cls, sources: Sequence[str | Path], lr_side: int, lpips: LPIPS | None = None) -> Self:
        faces = list(load_faces(sources, limit=FACES))
        cells = tuple(WildCell.make(kind, size, faces) for kind in KINDS for size in SIZES)
        return cls(cells, lr_side, lpips)

    @property
    def bicubic_psnr_y(self) -> float:
        return float(np.mean([cell.bicubic.mean() for cell in self.cells]))

    def evaluate(self, network: nn.Module) -> tuple[float, dict[str, float]]:
        """Mean PSNR-Y of the cells, and each one's gain over bicubic, dB: {"clean-16": 3.1}.

        With LPIPS loaded, its mean over the cells and over each kind's: {"lpips-clean": 0.21}.
        """
        gains: dict[str, float] = {}
        distances: list[tuple[str, float]] = []
        for cell in self.cells:
            sr = self._upscale(network, cell.frames)
            gains[cell.name] = float((cell.psnr_y(sr) - cell.bicubic).mean())
            if self.lpips is not None:
                distance = self.lpips(np.stack(sr), np.stack(cell.hr)).mean()
                distances += [("lpips", float(distance)), (f"lpips-{cell.kind}", float(distance))]
        mean = self.bicubic_psnr_y + float(np.mean(list(gains.values())))
        beside = {name: round(gain, 3) for name, gain in gains.items()}
        for name in dict(distances):
            of_name = [distance for each, distance in distances if each == name]
            beside[name] = round(float(np.mean(of_name)), 4)
        return mean, beside

    def sheet(self, network: nn.Module, count: int = 2) -> Pixels:
        """A contact sheet, a row a face: frame, bicubic, the network's, the clean face."""
        rows = []
        for cell in self.cells:
            frames, hr = cell.frames[:count], cell.hr[:count]
            for frame, sr, face in zip(frames, self._upscale(network, frames), hr, strict=True):
                nearest = np.arange(SR_SIDE) * cell.size // SR_SIDE
                plain = resample(frame, SR_SIDE)
                rows.append(np.concatenate([frame[nearest][:, nearest], plain, sr, face], 1))
        return np.concatenate(rows)

    @torch.inference_mode()
    def _upscale(self, network: nn.Module, frames: Sequence[Pixels]) -> list[Pixels]:
        device = next(network.parameters()).device
        sr: list[Pixels] = []
        for start in range(0, len(frames), BATCH):
            lr = np.stack([resample(f, self.lr_side) for f in frames[start : start + BATCH]])
            made = network(torch.from_numpy(to_tensor(lr)).to(device)).float().cpu().numpy()
            sr += list(to_pixels(made))
        return sr


AnyValidation = Validation | WildValidation


def load_validation(
    sources: Sequence[str | Path], lr_side: int, lpips: LPIPS | None = None
) -> AnyValidation:
    """Bicubically shrunk faces for networks of the paper's input, degraded ones for the others."""
    if lr_side == LR_SIDE:
        return Validation.load(sources, lpips)
    return WildValidation.load(sources, lr_side, lpips)
