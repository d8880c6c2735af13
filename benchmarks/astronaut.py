"""A public-domain face: NASA's portrait of the astronaut Eileen Collins, from scikit-image."""

import io

import numpy as np
from PIL import Image
from skimage.data import astronaut

from runtime.image import SR_SIDE, Pixels

# Pupils in the 512x512 portrait, and where the training faces have theirs: (x, y) in px.
PORTRAIT_EYES = ((203.0, 101.0), (247.0, 103.0))
FRAME_EYES = ((46.0, 46.5), (81.0, 46.5))
NOISE, JPEG_QUALITY = 6.0, 75  # standard deviation in levels of 255; of Pillow's encoder


def aligned_astronaut() -> Pixels:
    """Return her face (128, 128, 3), rotated and scaled as the training faces are."""
    (left, right), (frame_left, frame_right) = (
        [complex(*eye) for eye in eyes] for eyes in (PORTRAIT_EYES, FRAME_EYES)
    )
    turn = (right - left) / (frame_right - frame_left)  # frame to portrait: rotation and scale
    shift = left - turn * frame_left
    matrix = (turn.real, -turn.imag, shift.real, turn.imag, turn.real, shift.imag)
    frame = Image.fromarray(astronaut()).transform(
        (SR_SIDE, SR_SIDE), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC
    )
    return np.array(frame)


def camera_face(side: int) -> Pixels:
    """Return her face (side, side, 3) as in a photo: shrunk, with sensor noise, saved as JPEG."""
    shrunk = Image.fromarray(aligned_astronaut()).resize((side, side), Image.Resampling.BOX)
    noise = np.random.default_rng(0).normal(0, NOISE, (side, side, 3))
    noisy = np.clip(np.rint(np.array(shrunk) + noise), 0, 255).astype(np.uint8)
    saved = io.BytesIO()
    Image.fromarray(noisy).save(saved, "jpeg", quality=JPEG_QUALITY)
    return np.array(Image.open(saved))
