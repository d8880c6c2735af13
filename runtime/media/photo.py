"""Photos: find the small faces, enlarge each in the training faces' frame, paste it back.

What a photo knows of a face is kept: the pasted face, shrunk to the photo's size again, is the
photo's (one step of back-projection). So a face of more than 16 px loses nothing that was there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runtime.errors import EdgeError
from runtime.image import SCALE, SR_SIDE, Pixels, shrink, to_pixels, to_tensor
from runtime.media.alignment import Frame, transform
from runtime.media.detector import Detector, FoundFace
from runtime.session import Session

MIN_FACE, MAX_FACE = 8, 32  # px across, the width of the box: others are left as they are
FEATHER = 24  # px of the 128 over which a pasted face fades into the photo
MAX_OUTPUT_PIXELS = 32 << 20
BOX_COLOR, LEFT_COLOR = (60, 220, 90), (240, 180, 40)

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class EnlargedFace:
    """A face and what was made of it, (128, 128, 3); None if it was too small or too large."""

    face: FoundFace
    sr: Pixels | None


@dataclass(frozen=True, eq=False)
class EnlargedPhoto:
    """A photo `scale` times as large, and its faces."""

    pixels: Pixels
    scale: int
    faces: tuple[EnlargedFace, ...]

    @property
    def enlarged(self) -> int:
        return sum(face.sr is not None for face in self.faces)

    def with_boxes(self) -> Pixels:
        """The photo with a green box around what was enlarged, a yellow one around what was not."""
        from PIL import ImageDraw  # which brings fonts along

        image = Image.fromarray(self.pixels)
        pen = ImageDraw.Draw(image)
        for found in self.faces:
            color = LEFT_COLOR if found.sr is None else BOX_COLOR
            box = [side * self.scale for side in found.face.box]
            pen.rectangle(box, outline=color, width=max(1, self.scale // 3))
            pen.text((box[0], box[3] + 2), f"{found.face.score:.2f}", fill=color)
        return np.array(image)


def largest_scale(height: int, width: int) -> int:
    """How much a photo is enlarged: 8 times, or less where that were over MAX_OUTPUT_PIXELS."""
    return max(1, min(SCALE, int((MAX_OUTPUT_PIXELS / (height * width)) ** 0.5)))


def upscale_photo(
    photo: Pixels, session: Session, detector: Detector, scale: int | None = None
) -> EnlargedPhoto:
    """Enlarge a photo (H, W, 3) by bicubic interpolation and its small faces by the network."""
    height, width = photo.shape[:2]
    scale = scale or largest_scale(height, width)
    if height * width * scale**2 > 2 * MAX_OUTPUT_PIXELS:
        raise EdgeError(
            f"the photo is {width}x{height}, {scale} times that is too large; --scale"
            f" {largest_scale(height, width)} at most"
        )
    found = detector.find(photo)
    faces = _enlarge_faces(photo, found, session)
    image = Image.fromarray(photo)
    canvas = np.array(image.resize((width * scale, height * scale), Image.Resampling.BICUBIC))
    for each in faces:
        if each.sr is not None:
            _paste(canvas, each.sr, Frame.around(each.face.landmarks).scaled(scale))
    return EnlargedPhoto(canvas, scale, tuple(faces))


def _enlarge_faces(
    photo: Pixels, found: Sequence[FoundFace], session: Session
) -> list[EnlargedFace]:
    small = [face for face in found if MIN_FACE <= face.width <= MAX_FACE]
    seen = [Frame.around(face.landmarks).cut_out(photo) for face in small]
    enlarged: dict[int, Pixels] = {}
    for start in range(0, len(small), session.batch):
        some = range(start, min(start + session.batch, len(small)))
        lr = np.stack([shrink(seen[index]) for index in some])
        for index, sr in zip(some, to_pixels(session.run(to_tensor(lr))), strict=True):
            enlarged[id(small[index])] = keep_what_is_known(sr, seen[index])
    return [EnlargedFace(face, enlarged.get(id(face))) for face in found]


def keep_what_is_known(sr: Pixels, seen: Pixels) -> Pixels:
    """The enlarged face (128, 128, 3), changed so that it shrinks to what was seen (N, N, 3)."""
    as_seen = _resize(sr.astype(np.float32), len(seen))
    kept = sr.astype(np.float32) + _resize(seen.astype(np.float32) - as_seen, SR_SIDE)
    return np.rint(kept.clip(0, 255)).astype(np.uint8)


def _paste(canvas: Pixels, sr: Pixels, frame: Frame) -> None:
    """Lay an enlarged face over the canvas, where its frame lies."""
    left, top, right, bottom = map(int, frame.bounds)
    left, top = max(0, left), max(0, top)
    right, bottom = min(canvas.shape[1], right + 1), min(canvas.shape[0], bottom + 1)
    if left >= right or top >= bottom:
        return
    size = (right - left, bottom - top)
    face = Image.fromarray(sr)
    if frame.side < SR_SIDE:  # it gets smaller: first without a turn, so that nothing flickers
        side = max(1, round(frame.side))
        face = face.resize((side, side), Image.Resampling.BICUBIC)
    zoom = face.width / SR_SIDE
    back = zoom / frame.turn
    start = (complex(left, top) - frame.shift) * back
    laid = transform(face, size, back, start).astype(np.float32)
    mask = Image.fromarray(np.rint(_mask() * 255).astype(np.uint8)).resize(face.size)
    weight = transform(mask, size, back, start).astype(np.float32)[..., None] / 255
    region = canvas[top:bottom, left:right]
    region[:] = np.rint(region + weight * (laid - region)).clip(0, 255).astype(np.uint8)


def _mask() -> Floats:
    """How much of the enlarged face is seen (128, 128): 0 at the frame's edge, 1 FEATHER px in."""
    from_edge = np.minimum(np.arange(SR_SIDE), np.arange(SR_SIDE)[::-1]) / FEATHER
    along = np.sin(from_edge.clip(0, 1) * np.pi / 2) ** 2
    return np.outer(along, along).astype(np.float32)


def _resize(pixels: Floats, side: int) -> Floats:
    """(H, W, 3) to (side, side, 3), without rounding."""
    planes = [
        Image.fromarray(np.ascontiguousarray(pixels[..., channel])).resize(
            (side, side), Image.Resampling.BICUBIC
        )
        for channel in range(3)
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)
