"""Images: reading any of them as RGB, the two resizes of the project, tensors, luma and PSNR.

Pixels are uint8 RGB with the channels last, tensors float32 in [0, 1] with the channels first.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runtime.atomic import read_bytes, writing
from runtime.errors import EdgeError
from runtime.image_formats import IMAGE_FORMATS, UnknownRangeError, open_image, to_srgb
from runtime.png import RowSource, encode_png

Pixels = NDArray[np.uint8]
Tensor = NDArray[np.float32]

LR_SIDE = 16  # of the paper's networks; a manifest says another
SR_SIDE = 128
SCALE = 8

MAX_PIXELS = 64 * 1024 * 1024  # a decoded image of this size takes 192 MiB
MAX_BYTES = 128 * 1024 * 1024
PSNR_CAP_DB = 100.0  # identical images: infinity does not fit in JSON
WRITTEN_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MAX_SIDES = {".webp": 16383, ".jpg": 65500, ".jpeg": 65500}  # px, of libwebp and libjpeg
IMAGE_DESCRIPTION = 0x010E  # the EXIF tag
# A face: the longer side against the shorter; what is over is cut off on both sides.
MAX_ASPECT = 1.25
MAX_LR_SIDE = 32  # px; made 16x16, a larger image loses what the network would have to invent
MIN_FACE_SIDE = 12  # px; networks of more than 16x16 were trained on faces resampled from this on


def read_image(path: str | Path) -> Pixels:
    """Read an image file as (H, W, 3); see decode_image."""
    return decode_image(read_bytes(path, MAX_BYTES), str(path))


def decode_image(data: bytes, name: str) -> Pixels:
    """Decode an image file of one of IMAGE_FORMATS to (H, W, 3), as a viewer shows it.

    Upright as its EXIF says, in sRGB, transparency on white (to_srgb). Animations, other formats,
    damaged images and those of more than MAX_PIXELS (refused before they are decoded) raise
    EdgeError with `name`.
    """
    if not data:
        raise EdgeError(f"{name}: is empty, expected an image")
    try:
        image = open_image(data, name)
    except EdgeError:
        raise
    except Exception as error:  # Pillow raises what the damage made it trip over
        raise EdgeError(f"{name}: is damaged ({_first_line(error)}); get it again") from error
    if image is None:
        known = ", ".join(each.name for each in IMAGE_FORMATS)
        raise EdgeError(f"{name}: is not an image that is read ({known}); convert it to one")
    _refuse_unreasonable(image, name)
    try:
        return to_srgb(image)
    except UnknownRangeError as error:
        raise EdgeError(f"{name}: {error}; convert it") from error
    except Exception as error:
        raise EdgeError(
            f"{name}: is damaged or truncated ({_first_line(error)}); get it again"
        ) from error


def to_rgb(image: object) -> Pixels:
    """A Pillow image of any mode, or an array of one, as (H, W, 3), as decode_image makes it.

    Arrays are (H, W) or (H, W, C) with 1 to 4 channels: gray or RGB, without or with alpha; uint8,
    or floats in [0, 1]. Anything else raises EdgeError.
    """
    if isinstance(image, np.ndarray):
        image = Image.fromarray(_to_uint8(image))
    if not isinstance(image, Image.Image):
        kind = f"{type(image).__module__}.{type(image).__name__}"
        raise EdgeError(f"the image is a {kind}, expected a Pillow image or {_ARRAYS}")
    try:
        return to_srgb(image)
    except Exception as error:  # Pillow reads a file only now
        raise EdgeError(f"the image cannot be read ({_first_line(error)})") from error


_ARRAYS = "an array (H, W) or (H, W, 1 to 4), uint8 or floats in [0, 1]"


def _to_uint8(image: NDArray[Any]) -> Pixels:
    """The array as Pillow takes it; EdgeError if it is none of an image."""
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.ndim not in (2, 3) or not 1 <= channels <= 4 or not image.size:
        raise EdgeError(f"the image is an array {image.shape}, expected {_ARRAYS}")
    if np.issubdtype(image.dtype, np.floating):
        least, most = float(image.min()), float(image.max())
        if not (least >= 0 and most <= 1):
            raise EdgeError(f"the image has values from {least:g} to {most:g}, expected {_ARRAYS}")
        image = np.rint(image * 255).astype(np.uint8)
    if image.dtype != np.uint8:
        raise EdgeError(f"the image is an array of {image.dtype}, expected {_ARRAYS}")
    return image[..., 0] if image.ndim == 3 and channels == 1 else image


def write_image(path: str | Path, image: RowSource, origin: str = "") -> None:
    """Write an image (H, W, 3) as PNG, JPEG (quality 95) or lossless WebP, by the suffix.

    `origin`, a line of ASCII, is kept in the file's metadata.
    """
    check_output(path, *image.shape[:2])
    with writing(path) as temporary, temporary.open("wb") as file:
        for part in encode_image(image, Path(path).suffix, origin):
            file.write(part)


def encode_image(source: RowSource, suffix: str, origin: str = "") -> Iterator[bytes]:
    """The parts of the file that write_image writes.

    PNG is run-length coded: as many bytes as zlib's default, in a fifth of the time. Of a large one
    only some rows are held at a time.
    """
    suffix, stream = suffix.lower(), io.BytesIO()
    if suffix == ".png":
        yield from encode_png(source, origin)
        return
    pixels = source if isinstance(source, np.ndarray) else source.rows(0, source.shape[0])
    image = Image.fromarray(pixels)
    if suffix == ".webp":
        exif = Image.Exif()
        if origin:
            exif[IMAGE_DESCRIPTION] = origin
        image.save(stream, "WEBP", lossless=True, exif=exif)
    else:
        image.save(stream, "JPEG", quality=95, comment=origin)
    yield stream.getvalue()


def check_output(path: str | Path, height: int, width: int) -> None:
    """Raise EdgeError unless an image of this size can be written there, by the suffix."""
    suffix = Path(path).suffix.lower()
    if suffix not in WRITTEN_SUFFIXES:
        raise EdgeError(f"{path}: expected a name that ends in one of {' '.join(WRITTEN_SUFFIXES)}")
    most = MAX_SIDES.get(suffix)
    if most and max(height, width) > most:
        raise EdgeError(
            f"{path}: would be {width:,}x{height:,}, and {suffix[1:].upper()} holds at most"
            f" {most:,} px a side; write .png, or give a smaller --scale"
        )


def face_sides(lr_side: int) -> tuple[int, int]:
    """The smallest and the largest face, in px, that a network of this input is given.

    The paper's networks know faces of 16x16 and no smaller ones; others were trained on faces that
    were resampled to their input, up or down.
    """
    return (LR_SIDE if lr_side == LR_SIDE else MIN_FACE_SIDE), lr_side * MAX_LR_SIDE // LR_SIDE


def fit_face(
    pixels: Pixels,
    name: str,
    *,
    side: int = LR_SIDE,
    reduce: bool = False,
    option: str = "--reduce",
) -> Pixels:
    """Crop a face image (H, W, 3) to its central square, resampled to (side, side, 3).

    Raises EdgeError for one smaller than `face_sides`, one that is not roughly square (MAX_ASPECT)
    and, unless `reduce`, one larger than them; the message names the `option` that allows it.
    """
    least, most = face_sides(side)
    height, width = pixels.shape[:2]
    shorter, longer = sorted((height, width))
    size = f"{name}: is {width}x{height}"
    if shorter < least:
        raise EdgeError(f"{size}, expected a face of at least {least}x{least}")
    if longer > MAX_ASPECT * shorter:
        raise EdgeError(
            f"{size}, expected a face image, about square (at most 5:4); crop it to the face"
        )
    if longer > most and not reduce:
        raise EdgeError(
            f"{size}, expected a face of {least} to {most} px; {option} makes it {side}x{side}"
            " first (its detail is lost and invented anew)"
        )
    top, left = (height - shorter) // 2, (width - shorter) // 2
    return shrink(pixels[top : top + shorter, left : left + shorter], side)


def shrink(hr: Pixels, side: int = LR_SIDE) -> Pixels:
    """The low-resolution face (side, side, 3) of a square one, as the data sets make it."""
    return _resize(hr, side)


def upscale_bicubic(lr: Pixels) -> Pixels:
    """The baseline: a face (16, 16, 3) upscaled to (128, 128, 3) by Pillow's bicubic filter."""
    return _resize(lr, SR_SIDE)


def to_tensor(pixels: Pixels) -> Tensor:
    """uint8 (N, H, W, 3) to float32 (N, 3, H, W) in [0, 1]."""
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)


def to_pixels(tensor: NDArray[np.floating]) -> Pixels:
    """Float (N, 3, H, W) to uint8 (N, H, W, 3): clipped to [0, 1], halves rounded to even."""
    levels = np.clip(tensor, 0, 1)  # a copy, on which the rest works in place
    levels *= 255
    np.rint(levels, out=levels)
    return np.ascontiguousarray(levels.astype(np.uint8).transpose(0, 2, 3, 1))


def luma(rgb: Pixels) -> NDArray[np.float64]:
    """Y of (..., 3) in [16, 235], as in ITU-R BT.601 and as the paper's PSNR has it."""
    return 16 + rgb.astype(np.float64) @ np.array([65.481, 128.553, 24.966]) / 255


def mse_y(a: Pixels, b: Pixels) -> NDArray[np.float64]:
    """The mean squared error of the luma of each of two stacks (N, H, W, 3): (N,)."""
    return ((luma(a) - luma(b)) ** 2).mean(axis=(1, 2))


def psnr_y(a: Pixels, b: Pixels) -> float:
    """PSNR-Y in dB of two images, or of two stacks by the mean of their error."""
    return psnr_of_mse(float(((luma(a) - luma(b)) ** 2).mean()))


def psnr(a: Pixels, b: Pixels) -> float:
    """PSNR over R, G and B in dB of two images, or of two stacks by the mean of their error."""
    return psnr_of_mse(float(((a.astype(np.float64) - b.astype(np.float64)) ** 2).mean()))


def psnr_of_mse(mse: float) -> float:
    """PSNR in dB for a mean squared error on the scale of 0 to 255; at most PSNR_CAP_DB."""
    floor = 255**2 / 10 ** (PSNR_CAP_DB / 10)
    return float(10 * np.log10(255**2 / max(mse, floor)))


def _refuse_unreasonable(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise EdgeError(
            f"{name}: is {width:,}x{height:,}, expected at most {MAX_PIXELS:,} pixels; shrink it"
        )
    if (frames := getattr(image, "n_frames", 1)) > 1:
        kind = "has several pages" if image.format == "TIFF" else "is an animation"
        raise EdgeError(f"{name}: {kind} ({frames}), expected one image; save one of them")


def _resize(pixels: Pixels, side: int) -> Pixels:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"expected uint8 (H, W, 3), got {pixels.dtype} {pixels.shape}")
    return np.array(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC))


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
