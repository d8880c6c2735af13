"""What each target needs of an INT8 file, and the backend that evaluates it."""

from dataclasses import dataclass, replace
from typing import Literal

from runtime.cpu import X86_INT8
from runtime.errors import EXIT_USAGE, EdgeError
from runtime.manifest import MAX_DROP_DB

WEIGHT_LIMIT = 127  # int8 around zero
# Without VNNI an x86 processor adds two products of 8 bits in 16, which saturate: 7 bits fit.
REDUCED_WEIGHT_LIMIT = 63
# What the worst face loses is not the energy of its error against FP32 but how that correlates with
# FP32's own error against the truth: in int8.onnx at most this much of an error as large as the
# held-out faces have, on 1,200 training faces (docs/quantization.md).
CORRELATION = 0.28


@dataclass(frozen=True)
class Target:
    """A kind of INT8 file.

    `signed`: activations are int8 around zero, as TensorRT needs them, else uint8 with any zero
    point. `quantized_results`: a Q/DQ pair also follows each convolution; ONNX Runtime fuses no
    other convolution. `quantized_bias`: biases are int32, else float32. `emulated`: `backend` is a
    proxy for the one that the file is for. `half_file`: a second file, the rest of it in FP16.
    `shares`: the file of another target, taken where it meets the budget in this backend.
    `grid`: the numbers that 8 bits stand for. `max_drop_db`: the default budget in PSNR-Y.
    `correlation`: measured, of the worst real face's error with FP32's own.
    """

    name: Literal["cpu", "openvino", "tensorrt"]
    file: str
    backend: Literal["onnxruntime", "openvino"]
    signed: bool = False
    quantized_results: bool = False
    quantized_bias: bool = False
    emulated: bool = False
    half_file: str | None = None
    shares: str | None = None
    grid: Literal["int8", "fp8"] = "int8"
    weight_limit: int = WEIGHT_LIMIT
    max_drop_db: float = MAX_DROP_DB
    correlation: float = CORRELATION


TARGETS = {
    target.name: target
    for target in (
        Target(
            "cpu",
            "int8.onnx",
            "onnxruntime",
            quantized_results=True,
            quantized_bias=True,
            max_drop_db=0.02,  # it is the file that runs wherever no other is asked for
        ),
        Target("openvino", "int8-openvino.onnx", "openvino", shares="int8.onnx"),
        Target(
            "tensorrt",
            "int8-trt.onnx",
            "onnxruntime",
            signed=True,
            emulated=True,
            half_file="int8-trt-fp16.onnx",
            correlation=0.43,  # its steps are coarser, and one face in hundreds shows it
        ),
    )
}
# FP8 is E4M3: float8e4m3fn in ONNX. For GPUs only, and made by its own command, quantize.fp8.
FP8 = replace(TARGETS["tensorrt"], file="fp8-trt.onnx", half_file="fp8-trt-fp16.onnx", grid="fp8")
BUDGETS = ", ".join(f"{target.max_drop_db} {name}" for name, target in TARGETS.items())


def parse_targets(text: str) -> tuple[Target, ...]:
    """The targets in "cpu,tensorrt", in the table's order; EdgeError for another name."""
    names = {name.strip() for name in text.split(",")}
    if unknown := sorted(names - TARGETS.keys()):
        raise EdgeError(
            f"--target {unknown[0]!r}: unknown, expected some of {','.join(TARGETS)}", EXIT_USAGE
        )
    return tuple(target for name, target in TARGETS.items() if name in names)


def for_processor(target: Target, processor: str) -> Target:
    """The target with 7-bit weights, if it is for this processor and that has AVX2 without VNNI."""
    here = not target.emulated and "avx2" in processor
    if here and not any(feature in processor for feature in X86_INT8):
        return replace(target, weight_limit=REDUCED_WEIGHT_LIMIT)
    return target
