"""The training faces' frame: where it lies in a photo, by a face's landmarks, and what it shows."""

from __future__ import annotations

import cmath
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from runtime.image import LR_SIDE, SR_SIDE, Pixels
from runtime.media.detector import Points

# Where CenterFace sees the landmarks, in px of 128x128: means of calib_data's 128 faces, upscaled.
LANDMARKS = np.array(
    [(45.9, 47.1), (82.1, 47.7), (63.2, 66.9), (47.7, 82.2), (77.6, 82.6)], np.float64
)


@dataclass(frozen=True)
class Frame:
    """The frame in a photo: a point x+iy of the 128x128 face lies at turn * (x+iy) + shift."""

    turn: complex
    shift: complex

    @classmethod
    def around(cls, landmarks: Points, seen: Points = LANDMARKS) -> Frame:
        """Rotated, scaled and shifted to a face's landmarks (5, 2), in px, by least squares.

        `seen` is where the detector sees those of the training faces.
        """
        frame = seen @ (1, 1j)
        photo = landmarks @ (1, 1j)
        centered = frame - frame.mean()
        turn = complex(np.vdot(centered, photo - photo.mean()) / np.vdot(centered, centered).real)
        return cls(turn, complex(photo.mean() - turn * frame.mean()))

    @property
    def side(self) -> float:
        """How many px of the photo it is across."""
        return abs(self.turn) * SR_SIDE

    @property
    def turned_deg(self) -> float:
        """How far the face is turned in the photo, clockwise."""
        return math.degrees(cmath.phase(self.turn))

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of its corners, in px of the photo; they may lie outside."""
        corners = [
            self.turn * c + self.shift for c in (0, SR_SIDE, SR_SIDE * 1j, SR_SIDE * (1 + 1j))
        ]
        x, y = [corner.real for corner in corners], [corner.imag for corner in corners]
        return min(x), min(y), max(x), max(y)

    def grown(self, times: float) -> Frame:
        """A frame `times` as wide around the same center."""
        center = SR_SIDE / 2 * (1 + 1j)
        return Frame(self.turn * times, self.shift + self.turn * center * (1 - times))

    def to_photo(self, points: Points) -> Points:
        """Points (N, 2) of the frame, in px of the photo."""
        there = self.turn * (points @ (1, 1j)) + self.shift
        return np.stack([there.real, there.imag], axis=-1)

    def scaled(self, scale: float) -> Frame:
        """The same frame in the photo `scale` times as large."""
        return Frame(self.turn * scale, self.shift * scale)

    def cut_out(self, photo: Pixels) -> Pixels:
        """What the photo (H, W, 3) shows there, as many px across as it has there, 16 at least.

        More would blur it, fewer would lose some. Beyond the photo's edge its last pixels go on.
        """
        left, top, right, bottom = map(int, self.bounds)
        left, top = left - 2, top - 2
        rows = np.arange(top, bottom + 3).clip(0, photo.shape[0] - 1)
        columns = np.arange(left, right + 3).clip(0, photo.shape[1] - 1)
        around = Image.fromarray(photo[rows][:, columns])
        side = max(LR_SIDE, round(self.side))
        shift = self.shift - complex(left, top)
        return transform(around, (side, side), self.turn * SR_SIDE / side, shift)


def mirror(landmarks: Points, width: float) -> Points:
    """The landmarks (5, 2) of the mirrored image of that width."""
    return landmarks[[1, 0, 2, 4, 3]] * (-1, 1) + (width, 0)


# The same, where the detector looked at each face and at its mirror image.
MEAN_LANDMARKS = (LANDMARKS + mirror(LANDMARKS, SR_SIDE)) / 2


def transform(image: Image.Image, size: tuple[int, int], turn: complex, shift: complex) -> Pixels:
    """The image of `size` whose point z shows what the image has at turn * z + shift."""
    matrix = (turn.real, -turn.imag, shift.real, turn.imag, turn.real, shift.imag)
    method = Image.Transform.AFFINE
    return np.array(image.transform(size, method, matrix, Image.Resampling.BICUBIC))
