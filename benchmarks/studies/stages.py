"""What one face costs on one thread: decode, network, encode; and what each PNG setting costs."""

import io
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

import numpy as np
from PIL import Image

from runtime.image import (
    Pixels,
    decode_image,
    encode_image,
    fit_face,
    to_pixels,
    to_tensor,
)
from runtime.session import open_session

RUNS = 40
STRATEGIES = {
    "default": zlib.Z_DEFAULT_STRATEGY,
    "run-length": zlib.Z_RLE,
    "Huffman": zlib.Z_HUFFMAN_ONLY,
}
# zlib's level and strategy; with the last two the level counts little.
SETTINGS = (
    (0, "default"),
    (1, "default"),
    (6, "default"),
    (9, "default"),
    (1, "run-length"),
    (1, "Huffman"),
)


@dataclass(frozen=True)
class Stage:
    """The median time of a face in one stage, of a single thread."""

    stage: str
    ms: float


@dataclass(frozen=True)
class PngSetting:
    """Time and bytes of an upscaled face as PNG, a mean over faces."""

    level: int
    strategy: str
    ms: float
    bytes: float


@dataclass(frozen=True)
class Stages:
    """The stages of a face, its bytes as it is read and as it is written, and PNG's settings."""

    stages: tuple[Stage, ...]
    read_bytes: float
    written_bytes: float
    png: tuple[PngSetting, ...]


def measure_stages(artifact: Path, files: Sequence[Path], runs: int = RUNS) -> Stages:
    """Time each stage on the faces in these files, one at a time."""
    data = [path.read_bytes() for path in files]
    faces = [decode_image(one, "face") for one in data]
    with open_session(artifact, "onnxruntime", threads=1) as session:
        lr = [fit_face(face, "face", side=session.lr_side)[None] for face in faces]
        upscaled = [to_pixels(session.run(to_tensor(one)))[0] for one in lr]
        times = {
            "decode": _time(lambda i: fit_face(decode_image(data[i], ""), ""), faces, runs),
            "network": _time(lambda i: to_pixels(session.run(to_tensor(lr[i]))), faces, runs),
            "encode": _time(lambda i: _png(upscaled[i]), faces, runs),
        }
    return Stages(
        tuple(Stage(name, ms) for name, ms in times.items()),
        mean(map(len, data)),
        mean(len(_png(face)) for face in upscaled),
        tuple(_measure_png(*setting, upscaled, runs) for setting in SETTINGS),
    )


def _png(face: Pixels) -> bytes:
    return b"".join(encode_image(face, ".png"))


def _measure_png(level: int, strategy: str, faces: Sequence[Pixels], runs: int) -> PngSetting:
    def save(index: int) -> int:
        stream = io.BytesIO()
        Image.fromarray(faces[index]).save(
            stream, "PNG", compress_level=level, compress_type=STRATEGIES[strategy]
        )
        return stream.tell()

    sizes = [save(index) for index in range(len(faces))]
    return PngSetting(level, strategy, _time(save, faces, runs), mean(sizes))


def _time(do: Callable[[int], object], faces: Sequence[np.ndarray], runs: int) -> float:
    """Milliseconds of one call, the median; the faces take turns."""
    taken = []
    for run in range(runs):
        started = time.perf_counter()
        do(run % len(faces))
        taken.append(time.perf_counter() - started)
    return median(taken) * 1e3
