"""PNG files: small ones in one go, large ones compressed in stripes on several threads.

A photo of 48 million pixels takes Pillow longer than the detector and the network together: it
tries five filters for each row, on one core. Here each row is the difference to the one above, and
each stripe of rows is a deflate block of its own, which zlib compresses without Python's lock.
Small images have Paeth's filter in every row: as few bytes as Pillow's choice among five, in two
thirds of the time, and without its plugins, whose import takes longer than a face.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from runtime.cpu import usable_cores

STRIPE_BYTES = 4 << 20  # of pixels; an image of no more is small
UP = 2  # the filter: each byte less the one above
PAETH = 4  # each less the one of left, above and above left that is nearest to left + above - both
PIXEL_BYTES = 3
LEVEL = 1
SIGNATURE = b"\x89PNG\r\n\x1a\n"
ZLIB_HEADER = b"\x78\x01"
AHEAD = 8  # stripes that are compressed before it is their turn

Pixels = NDArray[np.uint8]


class Rows(Protocol):
    """An image of `shape` (H, W, 3) whose rows are made when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def rows(self, top: int, bottom: int) -> Pixels:
        """The rows from `top` to before `bottom`, or the last one."""


RowSource: TypeAlias = "Pixels | Rows"


def encode_png(image: RowSource, comment: str = "") -> Iterator[bytes]:
    """The parts of a PNG file of (H, W, 3), in order; `comment` is ASCII."""
    height, width = image.shape[:2]
    yield SIGNATURE
    yield _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    if comment:
        yield _chunk(b"tEXt", b"Comment\0" + comment.encode("ascii"))
    step = max(1, STRIPE_BYTES // (PIXEL_BYTES * width))
    if step >= height:
        deflate = zlib.compressobj(LEVEL, strategy=zlib.Z_RLE)
        filtered = _paeth(_rows(image, 0, height))
        yield _chunk(b"IDAT", deflate.compress(filtered) + deflate.flush())
    else:
        yield from _stripes(image, step)
    yield _chunk(b"IEND", b"")


def _paeth(pixels: Pixels) -> bytes:
    """All rows (H, W, 3), each with the filter's number before it."""
    height, width = len(pixels), pixels.shape[1] * PIXEL_BYTES
    padded = np.zeros((height + 1, width + PIXEL_BYTES), np.int16)
    padded[1:, PIXEL_BYTES:] = pixels.reshape(height, width)
    left, up = padded[1:, :-PIXEL_BYTES], padded[:-1, PIXEL_BYTES:]
    corner = padded[:-1, :-PIXEL_BYTES]
    up_step, left_step = up - corner, left - corner  # left + up - corner is away from left and up
    to_corner = np.abs(up_step + left_step)
    to_left, to_up = np.abs(up_step), np.abs(left_step)
    # Each choice is a product with a mask, in place: np.where takes twice as long.
    nearest = np.multiply(up_step, to_up <= to_corner, out=up_step)  # less the corner
    left_step -= nearest
    left_step *= to_left <= np.minimum(to_up, to_corner, out=to_up)
    nearest += left_step
    nearest += corner
    filtered = np.empty((height, 1 + width), np.uint8)
    filtered[:, 0] = PAETH
    filtered[:, 1:] = np.subtract(padded[1:, PIXEL_BYTES:], nearest, out=nearest)
    return filtered.tobytes()


def _stripes(image: RowSource, step: int) -> Iterator[bytes]:
    """The chunks of a large image's pixels."""
    from concurrent.futures import ThreadPoolExecutor

    height = image.shape[0]
    starts = range(0, height, step)
    checksum = zlib.adler32(b"")
    with ThreadPoolExecutor(usable_cores()) as pool:
        ahead = [pool.submit(_compress, image, top, step) for top in starts[:AHEAD]]
        for number in range(len(starts)):
            filtered, compressed = ahead.pop(0).result()
            if number + AHEAD < len(starts):
                ahead.append(pool.submit(_compress, image, starts[number + AHEAD], step))
            checksum = zlib.adler32(filtered, checksum)
            yield _chunk(b"IDAT", (b"" if number else ZLIB_HEADER) + compressed)
    yield _chunk(b"IDAT", checksum.to_bytes(4, "big"))


def _compress(image: RowSource, top: int, step: int) -> tuple[bytes, bytes]:
    """The filtered rows from `top` on, and the same deflated; the last end the stream."""
    height, width = image.shape[:2]
    start = max(0, top - 1)  # the first of them needs the row above
    rows = _rows(image, start, min(top + step, height)).reshape(-1, width * 3)
    filtered = np.empty((len(rows) - (top - start), 1 + width * 3), np.uint8)
    filtered[:, 0] = UP
    np.subtract(rows[1:], rows[:-1], out=filtered[start == top :, 1:])
    if start == top:
        filtered[0, 1:] = rows[0]
    data = filtered.tobytes()
    deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_RLE)
    last = top + step >= height
    return data, deflate.compress(data) + deflate.flush(
        zlib.Z_FINISH if last else zlib.Z_FULL_FLUSH
    )


def _rows(image: RowSource, top: int, bottom: int) -> Pixels:
    return image[top:bottom] if isinstance(image, np.ndarray) else image.rows(top, bottom)


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(data, zlib.crc32(kind))
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)
