"""PSNR-Y on held-out faces, as training sees it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from aminet.model import AMINet
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

    @classmethod
    def load(cls, sources: Sequence[str | Path]) -> Self:
        hr = load_faces(sources)
        return cls(hr, np.stack([shrink(face) for face in hr]))

    def evaluate(self, network: AMINet) -> tuple[float, dict[str, float]]:
        """Mean PSNR-Y, and figures for the log beside it: none."""
        return self.psnr_y(network), {}

    @torch.inference_mode()
    def psnr_y(self, network: AMINet) -> float:
        """Mean over the faces, dB; on the luma of uint8 images."""
        device = next(network.parameters()).device
        scores: list[float] = []
        for start in range(0, len(self.hr), BATCH):
            lr = torch.from_numpy(to_tensor(self.lr[start : start + BATCH])).to(device)
            sr = to_pixels(network(lr).float().cpu().numpy())
            hr = self.hr[start : start + BATCH]
            scores += [psnr_y(a, b) for a, b in zip(sr, hr, strict=True)]
        return float(np.mean(scores))

    @torch.inference_mode()
    def sheet(self, network: AMINet, count: int = 8) -> Pixels:
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
