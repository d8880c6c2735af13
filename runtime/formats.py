"""The kinds of files that a model runs from: which backends open them, and where they lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ENGINE = ".engine"


@dataclass(frozen=True)
class Format:
    """A kind of file, known by its suffix.

    `backends` open it, the first if none is named. Its place is `depth` folders below that of the
    model, where the probes and fp32.onnx are. `noun` and `make` are for messages: what it is, and
    the command that makes it, from one of the `sources` there, the smallest first.
    """

    suffix: str
    backends: tuple[str, ...]
    depth: int
    noun: str
    make: str
    sources: tuple[str, ...] = ()


ONNX = Format(".onnx", ("onnxruntime", "openvino"), 0, "ONNX file", "python -m export.onnx")
FORMATS = (
    ONNX,
    Format(
        ENGINE,
        ("tensorrt",),
        2,
        "TensorRT engine",
        "python -m export.tensorrt",
        ("int8-trt.onnx", "fp32.onnx"),
    ),
    Format(
        ".tflite",
        ("litert",),
        1,
        "LiteRT file",
        "python -m export.litert",
        ("int8.onnx", "fp32.onnx"),
    ),
    Format(
        ".param",
        ("ncnn",),
        1,
        "ncnn network",
        "python -m export.ncnn",
        ("int8-trt.onnx", "fp32.onnx"),
    ),
    Format(".mlpackage", (), 1, "Core ML package", "python -m export.coreml"),  # Apple's alone
)


def format_of(path: str | Path) -> Format:
    """By the suffix; what has another one is taken for ONNX, and the backend says what is wrong."""
    return next((each for each in FORMATS if each.suffix == Path(path).suffix), ONNX)


def format_for(backend: str) -> Format:
    """The kind of file that a backend opens; ONNX for one that is not known here."""
    return next((each for each in FORMATS if backend in each.backends), ONNX)
