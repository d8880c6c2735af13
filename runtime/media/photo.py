"""Photos: find the small faces, upscale each in the training faces' frame, paste it back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runtime.errors import EdgeError
from runtime.image import LR_SIDE, SCALE, SR_SIDE, Pixels, shrink
from runtime.media.alignment import Frame
from runtime.media.detector import Detector, FoundFace
from runtime.media.paste import Patch, patch
from runtime.session import Session

MIN_FACE = 8  # px across, the width of the box: smaller ones are left as they are
MAX_FRAME = 150  # px across, the training faces' frame: larger faces are left as they are
SMALL_PHOTO = 1 << 20  # pixels: larger photos are upscaled LARGE_SCALE times if nothing is said
SMALL_OUTPUT = 32 << 20
SMALL_FRAME = 4 << 20
LARGE_SCALE = 2
CLEAN, NOISY = 0.65, 0.95  # of what a network removed, against the finest detail
LEAST_TRUST = 0.1
MARGIN = 3  # rows: bicubic interpolation looks at two on each side
MAX_OUTPUT_PIXELS = 512 << 20
BOX_COLOR, LEFT_COLOR = (60, 220, 90), (240, 180, 40)

Floats = NDArray[np.float32]
Upscale = Callable[[Pixels], Pixels]  # faces (N, S, S, 3) to (N, 128, 128, 3)


@dataclass(frozen=True, eq=False)
class UpscaledFace:
    """A face, its frame, and what was made of it, (128, 128, 3); None if it was left alone."""

    face: FoundFace
    frame: Frame
    sr: Pixels | None


@dataclass(frozen=True, eq=False)
class UpscaledPhoto:
    """A photo `scale` times as large, with its faces; the rows are made as they are asked for."""

    photo: Pixels
    scale: int
    faces: tuple[UpscaledFace, ...]
    boxes: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        height, width = self.photo.shape[:2]
        return height * self.scale, width * self.scale, 3

    @property
    def upscaled(self) -> int:
        return sum(face.sr is not None for face in self.faces)

    @property
    def pixels(self) -> Pixels:
        """The whole photo (H, W, 3)."""
        return self.rows(0, self.shape[0])

    def rows(self, top: int, bottom: int) -> Pixels:
        """Its rows from `top` to before `bottom`: interpolated, the faces laid over them."""
        height, width = self.shape[:2]
        bottom = min(bottom, height)
        first = max(0, top // self.scale - MARGIN)
        part = self.photo[first : -(-bottom // self.scale) + MARGIN]
        size = (width, len(part) * self.scale)
        resized = Image.fromarray(part).resize(size, Image.Resampling.BICUBIC)
        skipped = first * self.scale
        rows = np.array(resized.crop((0, top - skipped, width, bottom - skipped)))
        for each in self.patches:
            each.lay_over(rows, top)
        return self._draw_boxes(rows, top) if self.boxes else rows

    @cached_property
    def patches(self) -> tuple[Patch, ...]:
        """The faces where they lie; a large one below the small one before it."""
        height, width = self.shape[:2]
        made = [
            patch(face.sr, face.frame.scaled(self.scale), height, width)
            for face in self.faces
            if face.sr is not None
        ]
        return tuple(each for each in made if each is not None)

    def _draw_boxes(self, rows: Pixels, top: int) -> Pixels:
        """A green box around what was upscaled, a yellow one around what was not."""
        from PIL import ImageDraw  # which brings fonts along

        image = Image.fromarray(rows)
        pen = ImageDraw.Draw(image)
        for each in self.faces:
            color = LEFT_COLOR if each.sr is None else BOX_COLOR
            left, upper, right, lower = (side * self.scale for side in each.face.box)
            box = (left, upper - top, right, lower - top)
            pen.rectangle(box, outline=color, width=max(1, self.scale // 3))
            pen.text((left, lower - top + 2), f"{each.face.score:.2f}", fill=color)
        return np.array(image)


def largest_scale(height: int, width: int) -> int:
    """How much a photo is upscaled if nothing is said: small ones up to 8 times, others twice."""
    if height * width > SMALL_PHOTO:
        return LARGE_SCALE
    return max(LARGE_SCALE, min(SCALE, int((SMALL_OUTPUT / (height * width)) ** 0.5)))


def largest_frame_scale(height: int, width: int) -> int:
    """How much a frame of a video is upscaled: small ones up to 8 times, others twice."""
    return max(LARGE_SCALE, min(SCALE, int((SMALL_FRAME / (height * width)) ** 0.5)))


def check_scale(height: int, width: int, scale: int) -> None:
    """Raise EdgeError if a photo of this size is not upscaled so much."""
    most = int((MAX_OUTPUT_PIXELS / (height * width)) ** 0.5)
    if scale > most:
        raise EdgeError(
            f"the photo is {width}x{height}, {scale} times that is too large; --scale {most} at"
            " most"
        )


def upscale_photo(
    photo: Pixels, session: Session, detector: Detector, scale: int | None = None
) -> UpscaledPhoto:
    """Upscale a photo (H, W, 3) by bicubic interpolation and its small faces by the network."""
    height, width = photo.shape[:2]
    scale = scale or largest_scale(height, width)
    check_scale(height, width, scale)
    return upscale_found(photo, detector.find(photo), session.upscale_faces, session.lr_side, scale)


def upscale_found(
    photo: Pixels, found: Sequence[FoundFace], upscale: Upscale, lr_side: int, scale: int
) -> UpscaledPhoto:
    """A photo (H, W, 3) `scale` times as large, with those of its faces upscaled that were found.

    `upscale` runs the network on faces (N, lr_side, lr_side, 3).
    """
    frames = [Frame.around(face.landmarks) for face in found]
    faces = upscale_faces(photo, found, frames, upscale, lr_side)
    return UpscaledPhoto(photo, scale, tuple(faces))


def upscale_faces(
    photo: Pixels,
    found: Sequence[FoundFace],
    frames: Sequence[Frame],
    upscale: Upscale,
    lr_side: int,
) -> list[UpscaledFace]:
    """What the network makes of each face in its frame; small and large ones are left alone."""
    chosen = [
        index
        for index, (face, frame) in enumerate(zip(found, frames, strict=True))
        if face.width >= MIN_FACE and frame.side <= MAX_FRAME
    ]
    made: dict[int, Pixels] = {}
    if chosen:
        seen = [frames[index].cut_out(photo) for index in chosen]
        results = upscale(np.stack([shrink(face, lr_side) for face in seen]))
        for index, sr, face in zip(chosen, results, seen, strict=True):
            made[index] = keep_what_is_known(sr, face, trust(sr, face, lr_side))
    return [
        UpscaledFace(face, frame, made.get(index))
        for index, (face, frame) in enumerate(zip(found, frames, strict=True))
    ]


def keep_what_is_known(sr: Pixels, seen: Pixels, share: float = 1.0) -> Pixels:
    """The upscaled face (128, 128, 3), changed so that it shrinks to what was seen (N, N, 3).

    A network that reads 16 px of a face of more would lose what the photo shows of it. Of the
    difference a `share` is added.
    """
    added = share * _resize(_missing(sr, seen), SR_SIDE)
    return np.rint((sr.astype(np.float32) + added).clip(0, 255)).astype(np.uint8)


def trust(sr: Pixels, seen: Pixels, lr_side: int) -> float:
    """How much of the difference between the result and what was seen (N, N, 3) is no noise: 0..1.

    All of it for a network that read fewer pixels than were seen. One that read all of them and was
    trained to remove noise removed it as noise, unless it is small against the fine detail of what
    was seen: 0.2 to 0.8 of it on clean faces of 16 to 64 px, 0.9 where noise is all of the detail,
    1.6 to 2.5 where blur or JPEG has smoothed the noise (`benchmarks.studies.trust`).
    """
    if lr_side == LR_SIDE or len(seen) > lr_side:
        return 1.0
    return trusted(noise_ratio(sr, seen))


def noise_ratio(sr: Pixels, seen: Pixels) -> float:
    """What the network removed, against the finest detail of what was seen (N, N, 3)."""
    removed = float(np.sqrt((_luma(_missing(sr, seen)) ** 2).mean()))
    return removed / max(_fine_detail(seen), 1e-6)


def trusted(ratio: float, clean: float = CLEAN, noisy: float = NOISY) -> float:
    """The share at a noise ratio: all up to `clean`, falling to the least at `noisy`."""
    return float(np.clip((noisy - ratio) / (noisy - clean), LEAST_TRUST, 1))


def _missing(sr: Pixels, seen: Pixels) -> Floats:
    return seen.astype(np.float32) - _resize(sr.astype(np.float32), len(seen))


def _fine_detail(seen: Pixels) -> float:
    """The deviation, in levels, of noise like the finest detail (Immerkaer, 1996)."""
    luma = _luma(seen.astype(np.float32))
    rows = luma[:-2] - 2 * luma[1:-1] + luma[2:]
    both = rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]
    return float(np.sqrt(np.pi / 2) / 6 * np.abs(both).mean())


def _luma(rgb: Floats) -> Floats:
    return (rgb @ np.array([0.257, 0.504, 0.098], np.float32)).astype(np.float32)


def _resize(pixels: Floats, side: int) -> Floats:
    """(H, W, 3) to (side, side, 3), without rounding."""
    planes = [
        Image.fromarray(np.ascontiguousarray(pixels[..., channel])).resize(
            (side, side), Image.Resampling.BICUBIC
        )
        for channel in range(3)
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)
