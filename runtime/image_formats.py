"""Image files: the formats that are read, and how an image of any mode becomes upright sRGB.

Only the plugin that a file's first bytes ask for is imported: Image.open would import all of
Pillow's, and warn of decompression bombs instead of refusing them.
"""

from __future__ import annotations

import importlib
import io
import logging
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runtime.errors import EXIT_MISSING, EdgeError

Pixels = NDArray[np.uint8]

logging.getLogger("PIL").addHandler(
    logging.NullHandler()
)  # what is wrong is raised, not logged too

ORIENTATION = 0x0112  # the EXIF tag
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf")  # all that pixels depend on
ADOBE_BYTES = 14  # of a JPEG's segment that says whether its colors are YCbCr or CMYK
AVIF_BRANDS = (b"avif", b"avis")
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


class UnknownRangeError(Exception):
    """An image whose levels are of no known range."""


@dataclass(frozen=True)
class ImageFormat:
    """A format of image files: its suffixes, the class that opens it, what brings that class."""

    name: str
    suffixes: tuple[str, ...]
    opener: str  # module:class
    is_format: Callable[[bytes], bool]
    install: str = "pip install --upgrade pillow"


def _begins(*signatures: bytes) -> Callable[[bytes], bool]:
    return lambda data: data.startswith(signatures)


def _has_brand(brands: tuple[bytes, ...]) -> Callable[[bytes], bool]:
    """An ISO media file whose first box names one of the brands."""

    def is_format(data: bytes) -> bool:
        if data[4:8] != b"ftyp":
            return False
        box = data[8 : min(int.from_bytes(data[:4], "big"), 256)]
        return any(box[at : at + 4] in brands for at in range(0, len(box), 4) if at != 4)

    return is_format


IMAGE_FORMATS = (
    ImageFormat(
        "PNG", (".png", ".apng"), "PIL.PngImagePlugin:PngImageFile", _begins(PNG_SIGNATURE)
    ),
    ImageFormat(
        "JPEG",
        (".jpg", ".jpeg", ".jpe", ".jfif"),
        "PIL.JpegImagePlugin:JpegImageFile",
        _begins(b"\xff\xd8\xff"),
    ),
    ImageFormat(
        "WebP",
        (".webp",),
        "PIL.WebPImagePlugin:WebPImageFile",
        lambda data: data.startswith(b"RIFF") and data[8:12] == b"WEBP",
    ),
    ImageFormat(
        "TIFF",
        (".tif", ".tiff"),
        "PIL.TiffImagePlugin:TiffImageFile",
        _begins(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    ),
    ImageFormat("BMP", (".bmp", ".dib"), "PIL.BmpImagePlugin:BmpImageFile", _begins(b"BM")),
    ImageFormat("GIF", (".gif",), "PIL.GifImagePlugin:GifImageFile", _begins(b"GIF87a", b"GIF89a")),
    ImageFormat(
        "AVIF", (".avif",), "PIL.AvifImagePlugin:AvifImageFile", _has_brand(AVIF_BRANDS)
    ),  # before HEIF, which shares brands with it
    ImageFormat(
        "HEIF",
        (".heic", ".heif", ".hif"),
        "pillow_heif:HeifImageFile",
        _has_brand(HEIF_BRANDS),
        "pip install 'aminet-edge[photo]'",
    ),
    ImageFormat(
        "JPEG 2000",
        (".jp2", ".j2k"),
        "PIL.Jpeg2KImagePlugin:Jpeg2KImageFile",
        _begins(b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n"),
    ),
    ImageFormat(
        "PPM",
        (".ppm", ".pgm", ".pbm", ".pnm"),
        "PIL.PpmImagePlugin:PpmImageFile",
        _begins(*(b"P%d%c" % (kind, space) for kind in range(1, 7) for space in b" \n\r\t")),
    ),
)
IMAGE_SUFFIXES = tuple(suffix for each in IMAGE_FORMATS for suffix in each.suffixes)


def open_image(data: bytes, name: str) -> Image.Image | None:
    """Read the header of an image file; None if it is of no format that is read.

    Metadata that Pillow stumbles over is left aside. Raises EdgeError with status 5 if the format
    needs a package, or a newer Pillow, that is not installed.
    """
    found = next((each for each in IMAGE_FORMATS if each.is_format(data)), None)
    if found is None:
        return None
    opener = _opener(found, name)
    try:
        return opener(io.BytesIO(data))
    except Exception:
        stripped = _without_metadata(data)
        if stripped is None:
            raise
        return opener(io.BytesIO(stripped))


def to_srgb(image: Image.Image) -> Pixels:
    """An image of any mode as (H, W, 3): upright, in sRGB, on white where it is transparent.

    A color profile is applied; one that does not fit the image is left aside, and CMYK without one
    is converted as Pillow does. The upper eight of 16 bits count. Raises UnknownRangeError for
    levels of 32 bits and floating-point ones.
    """
    image.load()
    image = _upright(image)
    colors, alpha = _without_alpha(_to_8_bits(image))
    rgb = _apply_profile(colors, image.info.get("icc_profile"))
    if alpha is not None:
        rgb = Image.composite(rgb, Image.new("RGB", rgb.size, "white"), alpha)
    return np.array(rgb)


def _opener(found: ImageFormat, name: str) -> Callable[[io.BytesIO], Image.Image]:
    module, _, kind = found.opener.partition(":")
    try:
        opener: Callable[[io.BytesIO], Image.Image] = getattr(importlib.import_module(module), kind)
    except ImportError as error:
        raise EdgeError(
            f"{name}: is {found.name}, which nothing installed here reads; {found.install}",
            EXIT_MISSING,
        ) from error
    return opener


def _upright(image: Image.Image) -> Image.Image:
    """As EXIF says; Pillow's exif_transpose would write the other tags anew, and fail over some."""
    try:
        orientation = image.getexif().get(ORIENTATION)
    except Exception:  # whatever the damage made Pillow trip over
        return image
    turn = TURNS.get(orientation) if isinstance(orientation, int) else None
    return image.transpose(turn) if turn is not None else image


def _to_8_bits(image: Image.Image) -> Image.Image:
    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
        raise UnknownRangeError(
            "has levels of 32 bits or floating-point ones, expected 8 or 16 bits"
        )
    if not image.mode.startswith("I"):
        return image
    levels = np.asarray(image)
    gray = Image.fromarray((levels >> 8).astype(np.uint8))
    if "transparency" in image.info:
        opaque = np.where(levels == image.info["transparency"], 0, 255).astype(np.uint8)
        gray.putalpha(Image.fromarray(opaque))
    return gray


def _without_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The colors, in a mode that a profile may be for, and how opaque they are."""
    if image.has_transparency_data:
        if image.mode in ("L", "LA", "La"):
            image = image.convert("LA")
            return image.getchannel("L"), image.getchannel("A")
        image = image.convert("RGBA")
        return image.convert("RGB"), image.getchannel("A")
    if image.mode in ("L", "RGB", "CMYK", "LAB"):
        return image, None
    return image.convert("L" if image.mode == "1" else "RGB"), None


def _apply_profile(image: Image.Image, profile: bytes | None) -> Image.Image:
    if profile or image.mode == "LAB":
        from PIL import ImageCms

        try:
            source = (
                ImageCms.ImageCmsProfile(io.BytesIO(profile))
                if profile
                else ImageCms.createProfile("LAB")
            )
            if profile and ImageCms.getProfileDescription(source).startswith("sRGB"):
                return image.convert("RGB")
            converted = ImageCms.profileToProfile(
                _in_space_of(image, source),
                source,
                ImageCms.createProfile("sRGB"),
                outputMode="RGB",
            )
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass  # damaged, or not for this kind of image
    return image.convert("RGB")


def _in_space_of(image: Image.Image, profile: object) -> Image.Image:
    """The image in the mode that a profile is for: a gray image may come with one for RGB."""
    space = getattr(getattr(profile, "profile", profile), "xcolor_space", "").strip()
    return image.convert("RGB") if space == "RGB" and image.mode == "L" else image


def _without_metadata(data: bytes) -> bytes | None:
    """The same image without what its pixels do not depend on; None for other formats."""
    try:
        if data.startswith(PNG_SIGNATURE):
            return PNG_SIGNATURE + b"".join(_png_chunks(data))
        if data.startswith(b"\xff\xd8\xff"):
            return b"\xff\xd8" + b"".join(_jpeg_segments(data))
    except (struct.error, IndexError):
        pass
    return None


def _png_chunks(data: bytes) -> Iterator[bytes]:
    at = len(PNG_SIGNATURE)
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if kind in PNG_CHUNKS and (kind != b"eXIf" or _is_sound(data[at:end])):
            yield data[at:end]
        at = end


def _is_sound(chunk: bytes) -> bool:
    return zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")


def _jpeg_segments(data: bytes) -> Iterator[bytes]:
    """All but the application's own and comments: of those, JFIF's and Adobe's say what colors."""
    at = 2
    while data[at + 1] != 0xDA:  # start of scan: the image itself
        marker, length = struct.unpack_from(">HH", data, at)
        cut_off = marker == 0xFFEE and length < ADOBE_BYTES
        if not (0xFFE1 <= marker <= 0xFFED or marker in (0xFFEF, 0xFFFE) or cut_off):
            yield data[at : at + 2 + length]
        at += 2 + length
    yield data[at:]
