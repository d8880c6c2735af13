"""Faces in an image, each with five landmarks, from 8 px across to the whole image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runtime.backends.onnxruntime import open_model
from runtime.image import Pixels
from runtime.media import centerface

OUTPUTS = ["537", "538", "539", "540"]  # score, log of the sides, offset of the center, landmarks
STRIDE = 4  # px of a cell of its outputs
SIDE_UNIT = 32  # px: the sides of its input are multiples of it

MIN_SCORE = 0.5
MIN_TURNED_SCORE = 0.65  # of a face that is only found in the turned image: four looks, not one
MIN_CANDIDATE = 0.15  # of what is looked at again from near
MAX_OVERLAP = 0.3  # intersection over union: more is the same face

# Small faces are found better in an image of twice the size. A large image is looked at as a whole
# twice, at at most `pixels` for its small faces and at LARGE_SIDE for its large ones; what may be a
# face of fewer than SURE_SIDE px there is looked at again, at its own size.
ZOOM = 2
PIXELS = 3 << 20  # a look at as many takes about a second of a core
LARGE_SIDE = 640
MIN_LARGE_FACE = 16  # px at LARGE_SIDE
SURE_SIDE = 20
UPRIGHT_DEG = 40
NEAR_SIDE, NEAR_FACE = 128, 44  # px: the view from near, and the face in it
MAX_CANDIDATES = 400

Points = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FoundFace:
    """A face in an image: box (left, top, right, bottom) and landmarks (5, 2), in px, and score.

    The landmarks are (x, y) of the left eye as the viewer sees it, the right one, the nose, and the
    corners of the mouth; of the face as it is seen upright.
    """

    box: tuple[float, float, float, float]
    landmarks: Points
    score: float

    @property
    def width(self) -> float:
        return self.box[2] - self.box[0]

    @property
    def center(self) -> tuple[float, float]:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2

    @property
    def is_upright(self) -> bool:
        """Whether the mouth lies below the eyes, within UPRIGHT_DEG."""
        across, down = self.landmarks[3:].mean(axis=0) - self.landmarks[:2].mean(axis=0)
        return abs(math.degrees(math.atan2(across, down))) < UPRIGHT_DEG

    def moved(self, scale: float, x: float, y: float) -> FoundFace:
        """The same face, found in a part of an image at (x, y) that was upscaled by `scale`."""
        left, top, right, bottom = (side / scale for side in self.box)
        box = (left + x, top + y, right + x, bottom + y)
        return FoundFace(box, self.landmarks / scale + (x, y), self.score)

    def turned_back(self, quarters: int, height: int, width: int) -> FoundFace:
        """The same face in the image (height, width) that np.rot90 turned by so many quarters."""

        def back(points: Points) -> Points:
            x, y = points[:, 0], points[:, 1]
            return np.stack(
                [(width - y, x), (width - x, height - y), (y, height - x)][quarters - 1], 1
            )

        corners = back(np.array([self.box[:2], self.box[2:]]))
        (left, top), (right, bottom) = corners.min(0).tolist(), corners.max(0).tolist()
        return FoundFace((left, top, right, bottom), back(self.landmarks), self.score)


def detector_model() -> bytes:
    """CenterFace's ONNX file for images of any size; EdgeError, status 5, if not installed."""
    return centerface.read_model()


class Detector:
    """CenterFace, open in ONNX Runtime; EdgeError with status 5 if it is not installed."""

    def __init__(self) -> None:
        self._session = open_model(detector_model(), centerface.FILE)

    def find(self, image: Pixels, pixels: int = PIXELS, *, turned: bool = True) -> list[FoundFace]:
        """The faces of an image (H, W, 3), from the top down.

        `pixels` bounds the look for small ones: faces of 8 px are found up to 1.5 million pixels,
        of 18 px in 12 million. If there is none, the image may lie on its side or upside down:
        unless `turned` is False it is looked at so.
        """
        found = [self._look_upright(image, face) for face in self._find(image, pixels)]
        if not found and turned:
            found = self._find_turned(image)
        return sorted(found, key=lambda face: (face.box[1], face.box[0]))

    def find_near(
        self, image: Pixels, face: FoundFace, view: FoundFace | None = None
    ) -> FoundFace | None:
        """A face that is known about, looked at from near; None if none is there.

        What is looked at lies around `view` if that is given, so that it may stay where it is.
        """
        view = view or face
        zoom = NEAR_FACE / max(view.width, 1)
        x, y = view.center
        side = NEAR_SIDE / zoom
        left, top = max(0, round(x - side / 2)), max(0, round(y - side / 2))
        part = image[top : top + round(side), left : left + round(side)]
        if not part.size:
            return None
        seen = [each.moved(1, left, top) for each in self._look(part, zoom, MIN_SCORE)]
        near = [each for each in seen if _distance(each, face) < face.width / 2]
        return max(near, key=lambda each: each.score, default=None)

    def _look_upright(self, image: Pixels, face: FoundFace) -> FoundFace:
        """A face that lies on its side or upside down, as it is seen upright.

        So turned, it is found, but its eyes may be taken for its mouth.
        """
        if face.is_upright:
            return face
        x, y = face.center
        side = round(face.width * NEAR_SIDE / NEAR_FACE / 2)
        left, top = max(0, round(x) - side), max(0, round(y) - side)
        part = image[top : round(y) + side, left : round(x) + side]
        seen = []
        for quarters in (1, 2, 3):
            turned = np.ascontiguousarray(np.rot90(part, quarters))
            views = self._look(turned, NEAR_FACE / face.width, MIN_SCORE)
            for each in (view for view in views if view.is_upright):
                seen.append(each.turned_back(quarters, *part.shape[:2]).moved(1, left, top))
        near = [each for each in seen if _distance(each, face) < face.width / 2]
        return max(near, key=lambda each: each.score, default=face)

    def _find(self, image: Pixels, pixels: int) -> list[FoundFace]:
        height, width = image.shape[:2]
        zoom = min(ZOOM, (pixels / (height * width)) ** 0.5)
        seen = list(self._look(image, zoom, MIN_CANDIDATE if zoom < ZOOM else MIN_SCORE))
        large = min(ZOOM, LARGE_SIDE / max(height, width))
        if large < zoom:
            seen += [
                face
                for face in self._look(image, large, MIN_SCORE)
                if face.width * large >= MIN_LARGE_FACE
            ]
        sure: list[FoundFace] = []
        candidates: list[FoundFace] = []
        for face in _distinct(seen):
            small = zoom < ZOOM and face.width * zoom < SURE_SIDE
            (candidates if small and len(candidates) < MAX_CANDIDATES else sure).append(face)
        near = (self.find_near(image, face) for face in candidates)
        sure = [face for face in sure if face.score > MIN_SCORE]
        return _distinct(sure + [face for face in near if face is not None])

    def _find_turned(self, image: Pixels) -> list[FoundFace]:
        """The faces of the image turned by two, one or three quarters: of where most is found."""
        zoom = min(ZOOM, LARGE_SIDE / max(image.shape[:2]))
        best: list[FoundFace] = []
        for quarters in (2, 1, 3):
            turned = np.ascontiguousarray(np.rot90(image, quarters))
            found = _distinct(list(self._look(turned, zoom, MIN_TURNED_SCORE)))
            if sum(face.score for face in found) > sum(face.score for face in best):
                best = [face.turned_back(quarters, *image.shape[:2]) for face in found]
        return best

    def _look(self, image: Pixels, zoom: float, least: float) -> Iterator[FoundFace]:
        """The faces of an image that is looked at `zoom` times as large."""
        height, width = (max(1, round(side * zoom)) for side in image.shape[:2])
        view = Image.fromarray(image).resize(
            (width, height), Image.Resampling.BICUBIC, reducing_gap=2.0
        )
        padded = [-(-side // SIDE_UNIT) * SIDE_UNIT for side in (height, width)]
        rgb = np.zeros((1, 3, *padded), np.float32)
        rgb[0, :, :height, :width] = np.asarray(view).transpose(2, 0, 1)
        for face in self._decode(rgb, least):
            yield face.moved(zoom, 0, 0)

    def _decode(self, rgb: NDArray[np.float32], least: float) -> Iterator[FoundFace]:
        outputs = self._session.run(OUTPUTS, {"input.1": rgb})
        score, log_sides, offset, landmarks = (np.asarray(x[0], np.float64) for x in outputs)
        for row, column in zip(*np.nonzero(_peaks(score[0]) & (score[0] > least)), strict=True):
            height, width = np.exp(log_sides[:, row, column]) * STRIDE
            top = (row + offset[0, row, column] + 0.5) * STRIDE - height / 2
            left = (column + offset[1, row, column] + 0.5) * STRIDE - width / 2
            inside = landmarks[:, row, column].reshape(5, 2)[:, ::-1]  # as (x, y), of 0 to 1
            yield FoundFace(
                (float(left), float(top), float(left + width), float(top + height)),
                inside * (width, height) + (left, top),
                float(score[0, row, column]),
            )


def _peaks(score: Points) -> NDArray[np.bool_]:
    """Where no cell around (H, W) has a higher score: of a crowd, each face's surest cells."""
    height, width = score.shape
    padded = np.pad(score, 1)
    around = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    highest: NDArray[np.bool_] = score >= np.max(around, axis=0)
    return highest


def _distance(a: FoundFace, b: FoundFace) -> float:
    """Between the centers, in px; the larger of both directions."""
    return max(abs(a.center[0] - b.center[0]), abs(a.center[1] - b.center[1]))


def _distinct(found: Sequence[FoundFace]) -> list[FoundFace]:
    """The surest of those that overlap, the surest first."""
    ordered = sorted(found, key=lambda face: -face.score)
    boxes = np.array([face.box for face in ordered]).reshape(-1, 4)
    alone = np.ones(len(ordered), bool)
    for index in range(len(ordered)):
        if alone[index]:
            later = slice(index + 1, None)
            alone[later] &= _overlap(boxes[index], boxes[later]) <= MAX_OVERLAP
    return [face for face, stays in zip(ordered, alone, strict=True) if stays]


def _overlap(box: Points, others: Points) -> Points:
    """Intersection over union (N,); 1 where one of the two lies in the other."""
    first = np.maximum(box[:2], others[:, :2])
    last = np.minimum(box[2:], others[:, 2:])
    shared = (last - first).clip(0).prod(axis=1)
    area, areas = (box[2:] - box[:2]).prod(), (others[:, 2:] - others[:, :2]).prod(axis=1)
    inside = shared > 0.9 * np.minimum(area, areas)
    return np.where(inside, 1.0, shared / np.maximum(area + areas - shared, 1e-9))
