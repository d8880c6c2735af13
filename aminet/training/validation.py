"""PSNR-Y on held-out faces, as training sees it, and LPIPS for AMIGAN."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from aminet.training.lpips import LPIPS
from runtime.dataset import load_faces
from runtime.image import (
    LR_SIDE,
    SR_SIDE,
    Pixels,
    psnr_y,
    shrink,
    to_pixels,
    to_tensor,
    upscale_bicubic,
)

BATCH = 32


@dataclass(frozen=True)
class Validation:
    """Faces hr (N, 128, 128, 3) and what Pillow makes of them at 16x16, uint8."""

    hr: NDArray[np.uint8]
    lr: NDArray[np.uint8]
    lpips: LPIPS | None = None

    @classmethod
    def load(cls, sources: Sequence[str | Path], lpips: LPIPS | None = None) -> Self:
        hr = load_faces(sources)
        return cls(hr, np.stack([shrink(face) for face in hr]), lpips)

    def evaluate(self, network: nn.Module) -> tuple[float, dict[str, float]]:
        """Mean PSNR-Y, and figures for the log beside it: LPIPS if it was loaded."""
        sr = self._upscale(network)
        beside = {}
        if self.lpips is not None:
            beside["lpips"] = round(float(self.lpips(sr, self.hr).mean()), 4)
        return self._psnr_y(sr), beside

    def psnr_y(self, network: nn.Module) -> float:
        """Mean over the faces, dB; on the luma of uint8 images."""
        return self._psnr_y(self._upscale(network))

    def _psnr_y(self, sr: Pixels) -> float:
        return float(np.mean([psnr_y(a, b) for a, b in zip(sr, self.hr, strict=True)]))

    @torch.inference_mode()
    def _upscale(self, network: nn.Module) -> Pixels:
        device = next(network.parameters()).device
        parts = []
        for start in range(0, len(self.lr), BATCH):
            lr = torch.from_numpy(to_tensor(self.lr[start : start + BATCH])).to(device)
            parts.append(to_pixels(network(lr).float().cpu().numpy()))
        return np.concatenate(parts)

    @torch.inference_mode()
    def sheet(self, network: nn.Module, count: int = 8) -> Pixels:
        """A contact sheet, a row a face: input, bicubic, the network's, the original."""
        device = next(network.parameters()).device
        lr, hr = self.lr[:count], self.hr[:count]
        sr = to_pixels(network(torch.from_numpy(to_tensor(lr)).to(device)).float().cpu().numpy())
        scale = SR_SIDE // LR_SIDE
        columns = (
            lr.repeat(scale, 1).repeat(scale, 2),
            np.stack([upscale_bicubic(face) for face in lr]),
            sr,
            hr,
        )
        return np.concatenate([np.concatenate(column) for column in columns], 1)

    @property
    def bicubic_psnr_y(self) -> float:
        return float(
            np.mean(
                [psnr_y(upscale_bicubic(lr), hr) for lr, hr in zip(self.lr, self.hr, strict=True)]
            )
        )
