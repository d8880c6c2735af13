"""Laying an upscaled face over the image that it belongs to."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runtime.image import SR_SIDE, Pixels
from runtime.media.alignment import Frame, transform

FEATHER = 24  # px of the 128 over which a pasted face fades into the image

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Patch:
    """A face as it lies in an image: (h, w, 3) from (left, top) on, and its weight (h, w, 1)."""

    left: int
    top: int
    pixels: Floats
    weight: Floats

    @property
    def bottom(self) -> int:
        return self.top + len(self.pixels)

    @property
    def right(self) -> int:
        return self.left + self.pixels.shape[1]

    def moved(self, x: int, y: int) -> Patch:
        """The same in an image whose corner lies elsewhere."""
        return replace(self, left=self.left + x, top=self.top + y)

    def covers(self, height: int, width: int) -> Bools:
        """Where it changes an image of that size (H, W)."""
        covered = np.zeros((height, width), bool)
        covered[self.top : self.bottom, self.left : self.right] = self.weight[..., 0] > 0
        return covered

    def lay_over(self, rows: Pixels, top: int) -> None:
        """Blend it into the rows (h, W, 3) of the image from `top` on, as far as it lies there."""
        first, last = max(self.top, top), min(self.bottom, top + len(rows))
        if first >= last:
            return
        part = slice(first - self.top, last - self.top)
        region = rows[first - top : last - top, self.left : self.right]
        mixed = region + self.weight[part] * (self.pixels[part] - region)
        region[:] = np.rint(mixed).clip(0, 255).astype(np.uint8)


def patch(sr: Pixels, frame: Frame, height: int, width: int) -> Patch | None:
    """A face (128, 128, 3) where its frame lies in an image; None if that is outside of it."""
    left, top, right, bottom = map(int, frame.bounds)
    left, top = max(0, left), max(0, top)
    right, bottom = min(width, right + 1), min(height, bottom + 1)
    if left >= right or top >= bottom:
        return None
    size = (right - left, bottom - top)
    face = Image.fromarray(sr)
    if frame.side < SR_SIDE:  # it gets smaller: first without a turn, so that nothing flickers
        side = max(1, round(frame.side))
        face = face.resize((side, side), Image.Resampling.BICUBIC)
    zoom = face.width / SR_SIDE
    back = zoom / frame.turn
    start = (complex(left, top) - frame.shift) * back
    mask = Image.fromarray(_mask()).resize(face.size)
    weight = transform(mask, size, back, start).astype(np.float32)[..., None] / np.float32(255)
    return Patch(left, top, transform(face, size, back, start).astype(np.float32), weight)


@functools.cache
def _mask() -> Pixels:
    """How much of a face is seen, of 255 (128, 128): 0 at the frame's edge, all FEATHER px in."""
    from_edge = np.minimum(np.arange(SR_SIDE), np.arange(SR_SIDE)[::-1]) / FEATHER
    along = np.sin(from_edge.clip(0, 1) * np.pi / 2) ** 2
    return np.rint(np.outer(along, along) * 255).astype(np.uint8)
