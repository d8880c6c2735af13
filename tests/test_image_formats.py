"""Every kind of image file is read as a viewer shows it, whatever its metadata says."""

import io
import itertools
import sys

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

import tiny_profile
from runtime.errors import EXIT_MISSING, EdgeError
from runtime.image import decode_image, encode_image, read_image
from runtime.image_formats import IMAGE_FORMATS, IMAGE_SUFFIXES
from runtime.png import encode_png

SIDES = (24, 16)  # width, height
COLORS = np.array(
    Image.fromarray(np.array([[[230, 40, 50], [30, 200, 60]], [[40, 60, 220], [200, 180, 90]]],
    np.uint8)).resize(SIDES, Image.Resampling.BICUBIC)
)  # fmt: skip
RGB = Image.fromarray(COLORS)
ALPHA = Image.linear_gradient("L").resize(SIDES)
LOSSLESS = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}
PILLOW = {"heif": "HEIF", "avif": "AVIF"}


def with_alpha(image, mode):
    image = image.convert(mode)
    image.putalpha(ALPHA)
    return image


MODES = {
    "1": RGB.convert("1"),
    "L": RGB.convert("L"),
    "I;16": Image.fromarray(np.asarray(RGB.convert("L")).astype(np.uint16) * 257),
    "P": RGB.quantize(16),
    "RGB": RGB,
    "CMYK": RGB.convert("CMYK"),
    "LA": with_alpha(RGB, "LA"),
    "RGBA": with_alpha(RGB, "RGBA"),
}
CONTAINERS = {
    "PNG": ("1", "L", "I;16", "P", "RGB", "LA", "RGBA"),
    "JPEG": ("L", "RGB", "CMYK"),
    "WEBP": ("RGB", "RGBA"),
    "TIFF": ("1", "L", "I;16", "P", "RGB", "CMYK", "LA", "RGBA"),
    "BMP": ("1", "L", "P", "RGB"),
    "GIF": ("L", "P"),
    "AVIF": ("RGB", "RGBA"),
    "HEIF": ("L", "RGB", "RGBA"),
    "JPEG2000": ("L", "RGB", "RGBA"),
    "PPM": ("1", "L", "RGB"),
}
WITHOUT_PROFILE = ("BMP", "GIF", "JPEG2000", "PPM")
WITHOUT_EXIF = ("BMP", "GIF", "HEIF", "JPEG2000", "PPM")  # in HEIF it says nothing
PROFILES = {"none": None, "P3": tiny_profile.display_p3(), "gray": tiny_profile.gray(1.2)}
FITS = {"1": "gray", "L": "gray", "I;16": "gray", "LA": "gray", "CMYK": "none"}


def encode(image, kind, **options):
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
        options.setdefault("quality", -1)
    stream = io.BytesIO()
    image.save(stream, kind, **LOSSLESS.get(kind, {}), **options)
    return stream.getvalue()


def as_a_viewer_shows_it(data):
    """By Pillow's own means: opened, turned, converted to sRGB, laid on white."""
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        profile = image.info.get("icc_profile")
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        clear = image.convert("RGBA") if image.has_transparency_data else None
        if profile:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            mode = {"RGB ": "RGB", "GRAY": "L"}[source.profile.xcolor_space]
            image = ImageCms.profileToProfile(
                image.convert(mode), source, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
        image = image.convert("RGB")
        if clear:
            white = Image.new("RGB", image.size, "white")
            image = Image.composite(image, white, clear.getchannel("A"))
        return np.asarray(image).astype(int)


MATRIX = [
    (kind, mode, profile, orientation)
    for kind, modes in CONTAINERS.items()
    for mode in modes
    for profile, orientation in itertools.product(("none", FITS.get(mode, "P3")), (1, 3, 6))
    if not (profile != "none" and kind in WITHOUT_PROFILE)
    if not (orientation != 1 and (kind in WITHOUT_EXIF or mode in ("1", "I;16")))
]


@pytest.mark.parametrize(("kind", "mode", "profile", "orientation"), sorted(set(MATRIX)))
def test_an_image_is_read_as_a_viewer_shows_it(kind, mode, profile, orientation):
    options = {"icc_profile": PROFILES[profile]} if profile != "none" else {}
    if orientation != 1:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = orientation
    data = encode(MODES[mode], kind, **options)
    shown = as_a_viewer_shows_it(data)
    read = decode_image(data, "x")
    assert read.shape == shown.shape == ((24, 16, 3) if orientation == 6 else (16, 24, 3))
    assert np.abs(read - shown).max() <= 1
    if profile != "none" and orientation == 1 and mode != "1":  # the profile is seen
        assert np.abs(read - as_a_viewer_shows_it(encode(MODES[mode], kind))).max() > 5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_orientation(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(RGB, "PNG", exif=exif)
    assert np.array_equal(decode_image(data, "x"), as_a_viewer_shows_it(data))


def exif_rational_of(numerator, denominator):
    """A JPEG of which an EXIF rational is no number that Pillow could write again."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x011A] = 1.25  # the resolution: 5/4
    data = encode(RGB, "JPEG", exif=exif)
    rational = b"\0\0\0\5\0\0\0\4"
    assert rational in data
    wrong = numerator.to_bytes(4, "big", signed=True) + denominator.to_bytes(4, "big")
    return data.replace(rational, wrong)


def png_with(kind, content, *, wrong_checksum=False):
    data = encode(RGB, "PNG")
    chunk = PngImagePlugin.ChunkStream(io.BytesIO())
    stream = io.BytesIO()
    PngImagePlugin.putchunk(stream, kind, content)
    chunk = bytearray(stream.getvalue())
    chunk[-1] ^= wrong_checksum
    return data[:33] + bytes(chunk) + data[33:]  # behind IHDR


def jpeg_with(marker, content):
    data = encode(RGB, "JPEG")
    return data[:2] + bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2, "big") + content + (
        data[2:]
    )  # fmt: skip


ODD = {
    "EXIF rational -1/0": lambda: exif_rational_of(-1, 0),
    "2 MB profile": lambda: encode(RGB, "PNG", icc_profile=tiny_profile.display_p3(2 << 20)),
    "profile that is none": lambda: encode(RGB, "PNG", icc_profile=b"no profile" * 30),
    "gray profile of colors": lambda: encode(RGB, "PNG", icc_profile=tiny_profile.gray(1)),
    "profile of unknown compression": lambda: png_with(b"iCCP", b"name\0\7rest"),
    "text with a wrong checksum": lambda: png_with(b"tEXt", b"a\0b", wrong_checksum=True),
    "text of 2 MB": lambda: encode(RGB, "PNG", pnginfo=text_of(2 << 20)),
    "EXIF that is none": lambda: encode(RGB, "PNG", exif=b"Exif\0\0nonsense"),
    "EXIF of a JPEG that is none": lambda: jpeg_with(0xE1, b"Exif\0\0MM\0*\xff\xff\xff\xff"),
    "EXIF of a JPEG cut off": lambda: jpeg_with(0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff\1"),
    "Photoshop block cut off": lambda: jpeg_with(0xED, b"Photoshop 3.0\x008BIM\3"),
    "multi-picture index that is none": lambda: jpeg_with(0xE2, b"MPF\0MM\0*\0\0"),
    "Adobe segment cut off": lambda: jpeg_with(0xEE, b"Adobe\0"),
}


def text_of(length):
    text = PngImagePlugin.PngInfo()
    text.add_text("a", "b" * length, zip=True)
    return text


@pytest.mark.parametrize("case", ODD)
def test_odd_metadata_is_left_aside(case):
    expected = COLORS
    if case == "EXIF rational -1/0":
        expected = np.rot90(COLORS, -1)
    read = decode_image(ODD[case](), "x").astype(int)
    assert read.shape == expected.shape
    assert np.abs(read - expected).mean() < 3


def test_levels_of_no_known_range_are_refused():
    for levels in (np.float32, np.int32):
        data = encode(Image.fromarray(np.zeros((4, 4), levels)), "TIFF")
        with pytest.raises(EdgeError, match=r"x: has levels of 32 bits .*; convert it$"):
            decode_image(data, "x")


@pytest.mark.parametrize(
    ("kind", "words"), [("GIF", r"is an animation \(2\)"), ("TIFF", r"has several pages \(2\)")]
)
def test_of_several_images_none_is_taken(kind, words):
    data = encode(RGB, kind, save_all=True, append_images=[Image.fromarray(255 - COLORS)])
    with pytest.raises(EdgeError, match=words):
        decode_image(data, "x")


def test_a_phones_image_with_a_second_one_behind_it_is_the_first():
    data = encode(RGB, "MPO", save_all=True, append_images=[Image.fromarray(255 - COLORS)])
    assert np.abs(decode_image(data, "x").astype(int) - COLORS).mean() < 8


def test_a_format_that_nothing_reads_names_what_does(monkeypatch):
    data = encode(RGB, "HEIF")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(EdgeError, match=r"is HEIF.*pip install 'aminet-edge\[photo\]'") as caught:
        decode_image(data, "x")
    assert caught.value.status == EXIT_MISSING


def test_every_format_is_known_by_its_suffix_too():
    assert {".heic", ".tiff", ".bmp", ".gif", ".avif", ".jfif"} <= set(IMAGE_SUFFIXES)
    assert len(set(IMAGE_SUFFIXES)) == sum(len(each.suffixes) for each in IMAGE_FORMATS)


@pytest.mark.parametrize("size", [(1, 1), (3, 7), (500, 3), (301, 200)])
def test_large_png_files_hold_what_was_written(size, monkeypatch):
    monkeypatch.setattr("runtime.png.STRIPE_BYTES", 3000)
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    with Image.open(io.BytesIO(b"".join(encode_png(pixels, "of x")))) as image:
        image.load()
        assert image.text == {"Comment": "of x"}
        assert np.array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_the_origin_is_written_into_the_file(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(b"".join(encode_image(COLORS, suffix, "made by a test")))
    assert b"made by a test" in path.read_bytes()
    assert read_image(path).shape == COLORS.shape
