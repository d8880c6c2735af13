"""Large PNG files, compressed in stripes on several threads; Pillow writes the small ones.

A photo of 48 million pixels takes Pillow longer than the detector and the network together: it
tries five filters for each row, on one core. Here each row is the difference to the one above, and
each stripe of rows is a deflate block of its own, which zlib compresses without Python's lock.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from runtime.cpu import usable_cores

STRIPE_BYTES = 4 << 20
UP = 2  # the filter: each byte less the one above
LEVEL = 1
SIGNATURE = b"\x89PNG\r\n\x1a\n"
ZLIB_HEADER = b"\x78\x01"

Pixels = NDArray[np.uint8]


def encode_png(pixels: Pixels, comment: str = "") -> Iterator[bytes]:
    """The parts of a PNG file of (H, W, 3), in order; `comment` is ASCII."""
    height, width = pixels.shape[:2]
    yield SIGNATURE
    yield _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    if comment:
        yield _chunk(b"tEXt", b"Comment\0" + comment.encode("ascii"))
    step = max(1, STRIPE_BYTES // (3 * width))
    starts = range(0, height, step)
    checksum = zlib.adler32(b"")
    with ThreadPoolExecutor(usable_cores()) as pool:
        ahead = [pool.submit(_compress, pixels, top, step) for top in starts[:AHEAD]]
        for number in range(len(starts)):
            filtered, compressed = ahead.pop(0).result()
            if number + AHEAD < len(starts):
                ahead.append(pool.submit(_compress, pixels, starts[number + AHEAD], step))
            checksum = zlib.adler32(filtered, checksum)
            yield _chunk(b"IDAT", (b"" if number else ZLIB_HEADER) + compressed)
    yield _chunk(b"IDAT", checksum.to_bytes(4, "big"))
    yield _chunk(b"IEND", b"")


AHEAD = 8  # stripes that are compressed before it is their turn


def _compress(pixels: Pixels, top: int, step: int) -> tuple[bytes, bytes]:
    """The filtered rows from `top` on, and the same deflated; the last end the stream."""
    rows = pixels[top : top + step].reshape(-1, pixels.shape[1] * 3)
    filtered = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = UP
    above = pixels[top - 1].reshape(-1) if top else np.uint8(0)
    np.subtract(rows[0], above, out=filtered[0, 1:])
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    data = filtered.tobytes()
    deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_RLE)
    last = top + step >= len(pixels)
    return data, deflate.compress(data) + deflate.flush(
        zlib.Z_FINISH if last else zlib.Z_FULL_FLUSH
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(data, zlib.crc32(kind))
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)
