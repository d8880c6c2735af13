"""Any image is read right or refused in a line; the numbers that all stages share."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

import tiny_artifact
from runtime import image
from runtime.errors import EdgeError

COLORS = np.array([[[200, 30, 60], [10, 220, 90]]], np.uint8).repeat(8, 0).repeat(8, 1)  # 8x16
GRAY = np.arange(256, dtype=np.uint8).reshape(16, 16)


def encode(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def read(source, kind="PNG", **options):
    return image.decode_image(encode(source, kind, **options), "face")


def png_header(width, height):
    """A PNG of any claimed size, 8-bit RGB, without the pixels."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


@pytest.mark.parametrize(
    ("kind", "options", "levels"),
    [("PNG", {}, 0), ("WEBP", {"lossless": True}, 0), ("JPEG", {"quality": 95}, 6)],
)
def test_formats(kind, options, levels):
    pixels = read(Image.fromarray(COLORS), kind, **options)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - COLORS).mean() <= levels


def test_gray_becomes_three_equal_channels():
    assert np.array_equal(read(Image.fromarray(GRAY)), np.stack([GRAY] * 3, -1))


def test_one_bit():
    bits = np.where(GRAY > 99, 255, 0)
    assert np.array_equal(read(Image.fromarray(GRAY > 99)), np.stack([bits] * 3, -1))


def test_palette():
    assert np.array_equal(read(Image.fromarray(COLORS).quantize(2)), COLORS)


def test_transparency_is_laid_on_white():
    image = Image.fromarray(COLORS).convert("RGBA")
    image.putalpha(Image.fromarray(np.repeat([[0, 255]], 8, 0).repeat(8, 1).astype(np.uint8)))
    pixels = read(image)
    assert (pixels[:, :8] == 255).all()
    assert np.array_equal(pixels[:, 8:], COLORS[:, 8:])


def test_transparent_gray_and_palette():
    assert (read(Image.fromarray(GRAY), transparency=7)[0, 7] == 255).all()
    palette = Image.fromarray(COLORS).quantize(2)
    clear = palette.getpixel((0, 0))
    assert (read(palette, transparency=clear)[0, 0] == 255).all()


def test_of_16_bits_the_upper_8_count():
    levels = GRAY.astype(np.uint16) * 257
    assert np.array_equal(read(Image.fromarray(levels)), np.stack([GRAY] * 3, -1))


def test_transparent_16_bit_gray():
    assert (
        read(Image.fromarray(GRAY.astype(np.uint16) * 257), transparency=514)[0, 2] == 255
    ).all()


def test_cmyk():
    pixels = read(Image.fromarray(COLORS).convert("CMYK"), "JPEG", quality=100, subsampling=0)
    assert np.abs(pixels.astype(int) - COLORS).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_exif_rotation(kind):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by 90 degrees
    options = {"lossless": True} if kind == "WEBP" else {}
    pixels = read(Image.fromarray(COLORS), kind, exif=exif, **options)
    assert pixels.shape == (16, 8, 3)
    assert np.abs(pixels.astype(int) - np.rot90(COLORS, -1)).mean() <= 8


def test_animation_is_refused():
    frames = [Image.fromarray(GRAY), Image.fromarray(255 - GRAY)]
    with pytest.raises(EdgeError, match=r"is an animation \(2\), expected one"):
        read(frames[0], "PNG", save_all=True, append_images=frames[1:])


@pytest.mark.parametrize("size", [(60_000, 60_000), (10_000, 10_000)])
def test_a_bomb_is_refused_by_its_size(size):
    with pytest.raises(EdgeError, match=r"bomb: is \d+,000x\d+,000, expected at most"):
        image.decode_image(png_header(*size), "bomb")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_every_truncation_is_named(kind):
    data = encode(Image.fromarray(tiny_artifact.faces(1)[0]), kind)
    for length in range(0, len(data) // 2, 7):
        with pytest.raises(EdgeError, match=r"^cut: "):
            image.decode_image(data[:length], "cut")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_damage_never_becomes_a_traceback(kind):
    generator = np.random.default_rng(0)
    data = np.frombuffer(encode(Image.fromarray(GRAY), kind), np.uint8)
    refused = 0
    for _ in range(50):
        damaged = data.copy()
        damaged[generator.integers(12, len(data), 3)] = generator.integers(0, 256, 3)
        try:
            image.decode_image(damaged.tobytes(), "hurt")
        except EdgeError:
            refused += 1
    assert refused


def test_face_is_cut_to_its_central_square():
    wide = np.zeros((16, 20, 3), np.uint8)
    wide[:, 2:18] = tiny_artifact.faces(1)[0]
    assert np.array_equal(image.fit_face(wide, "wide"), tiny_artifact.faces(1)[0])


@pytest.mark.parametrize(
    ("size", "problem"),
    [
        ((15, 15), "at least 16x16"),
        ((16, 21), "about square"),
        ((33, 33), "--reduce"),
        ((28, 33), "--reduce"),
    ],
)
def test_what_is_no_small_face_is_refused(size, problem):
    with pytest.raises(EdgeError, match=rf"^face: is {size[1]}x{size[0]}, .*{problem}"):
        image.fit_face(np.zeros((*size, 3), np.uint8), "face")


@pytest.mark.parametrize("side", [17, 32])
def test_up_to_32_px_are_shrunk_unasked(side):
    pixels = np.array(Image.fromarray(GRAY).convert("RGB").resize((side, side)))
    assert np.array_equal(image.fit_face(pixels, "face"), image.shrink(pixels))


def test_larger_faces_are_shrunk_when_asked_to():
    hr = image.upscale_bicubic(tiny_artifact.faces(1)[0])
    assert np.array_equal(image.fit_face(hr, "face", reduce=True), image.shrink(hr))


def test_tensors_and_pixels_are_inverse():
    pixels = np.stack([GRAY] * 3, -1)[None]
    tensor = image.to_tensor(pixels)
    assert (tensor.dtype, tensor.shape) == (np.float32, (1, 3, 16, 16))
    assert (tensor.min(), tensor.max()) == (0, 1)
    assert np.array_equal(image.to_pixels(tensor), pixels)


def test_pixels_are_clipped_and_halves_rounded_to_even():
    levels = np.array([-9, 0.5, 1.5, 2.5, 300]) / 255
    pixels = image.to_pixels(np.broadcast_to(levels, (1, 3, 1, 5)))
    assert pixels[0, 0, :, 0].tolist() == [0, 0, 2, 2, 255]


def test_luma_of_black_white_and_primaries():
    colors = np.array([[0] * 3, [255] * 3, [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    assert image.luma(colors) == pytest.approx([16, 235, 81.481, 144.553, 40.966])


def test_psnr():
    a, b = np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 4, 4, 3), np.uint8)
    assert image.psnr(a, b) == image.psnr_y(a, b) == image.PSNR_CAP_DB
    b[0] = 10
    assert image.psnr(a, b) == pytest.approx(10 * np.log10(255**2 / 50))
    luma_step = 10 * 219 / 255
    assert image.psnr_y(a, b) == pytest.approx(10 * np.log10(255**2 / (luma_step**2 / 2)))
    assert image.mse_y(a, b) == pytest.approx([luma_step**2, 0])


@pytest.mark.parametrize(("suffix", "levels"), [(".png", 0), (".webp", 0), (".jpg", 3)])
def test_written_pictures_are_read_back(tmp_path, suffix, levels):
    pixels = image.upscale_bicubic(tiny_artifact.faces(1)[0])
    image.write_image(tmp_path / f"a{suffix}", pixels)
    again = image.read_image(tmp_path / f"a{suffix}")
    assert np.abs(again.astype(int) - pixels).mean() <= levels


def test_unknown_suffix_is_refused(tmp_path):
    with pytest.raises(EdgeError, match=r"\.bmp: expected a name that ends in"):
        image.write_image(tmp_path / "a.bmp", GRAY)
