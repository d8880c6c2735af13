"""Peak throughput (roofline): the most multiply-adds a second that a library reaches here.

Measured on large convolutions and matrix products in ONNX Runtime and OpenVINO, which are pure
arithmetic. No network can be faster than its multiply-adds at this rate.
"""

import importlib.util
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, parser

from benchmarks.harness.worker import SILENT
from runtime.backends.onnxruntime import import_onnxruntime
from runtime.backends.openvino import import_openvino

SIZE = 1024  # rows, columns and inner dimension of the product
CHANNELS, SIDE, KERNEL = 512, 32, 3  # of the convolution, 2.4 G multiply-adds
SECONDS = 1.0  # for each kernel, after a warm-up run

CONV = """
    <ir_version: 10, opset_import: ["" : 20]>
    convolution (float[1, {c}, {s}, {s}] x) => (float[1, {c}, {s}, {s}] y) {{
        y = Conv <pads = [1, 1, 1, 1]> (x, weight)
    }}
"""
QUANTIZED_CONV = """
    <ir_version: 10, opset_import: ["" : 20]>
    convolution (float[1, {c}, {s}, {s}] x) => (float[1, {c}, {s}, {s}] y) {{
        step = Constant <value = float {{0.01}}> ()
        zero = Constant <value = uint8 {{0}}> ()
        x_q = QuantizeLinear (x, step, zero)
        x_dq = DequantizeLinear (x_q, step, zero)
        weight_dq = DequantizeLinear (weight, step)
        made = Conv <pads = [1, 1, 1, 1]> (x_dq, weight_dq)
        made_q = QuantizeLinear (made, step, zero)
        y = DequantizeLinear (made_q, step, zero)
    }}
"""
PRODUCT = """
    <ir_version: 10, opset_import: ["" : 20]>
    product (float[{n}, {n}] x) => (float[{n}, {n}] y) {{ y = MatMul (x, weight) }}
"""
INTEGER_PRODUCT = """
    <ir_version: 10, opset_import: ["" : 20]>
    product (uint8[{n}, {n}] x) => (int32[{n}, {n}] y) {{ y = MatMulInteger (x, weight) }}
"""
CONV_SHAPES = ((1, CHANNELS, SIDE, SIDE), (CHANNELS, CHANNELS, KERNEL, KERNEL))
PRODUCT_SHAPES = ((SIZE, SIZE), (SIZE, SIZE))


@dataclass(frozen=True)
class Kernel:
    """A large operator: its graph, the shapes of its input and weights, its precision."""

    name: str
    graph: str
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    precision: str
    integer_input: bool = False

    @property
    def macs(self) -> int:
        (rows, *_), side = self.shapes[0], self.shapes[0][2:]
        return prod(self.shapes[1]) * (prod(side) if side else rows)

    def build(self) -> bytes:
        model = parser.parse_model(self.graph.format(c=CHANNELS, s=SIDE, n=SIZE))
        weight = np.random.default_rng(0).integers(-127, 127, self.shapes[1], np.int8)
        values = weight if self.precision == "int8" else weight.astype(np.float32) / 127
        model.graph.initializer.append(numpy_helper.from_array(values, "weight"))
        onnx.checker.check_model(model)
        return model.SerializeToString()

    def input(self) -> np.ndarray:
        levels = np.random.default_rng(1).integers(0, 255, self.shapes[0], np.uint8)
        return levels if self.integer_input else levels.astype(np.float32) / 255


KERNELS = (
    Kernel("convolution", CONV, CONV_SHAPES, "fp32"),
    Kernel("matrix product", PRODUCT, PRODUCT_SHAPES, "fp32"),
    Kernel("convolution", QUANTIZED_CONV, CONV_SHAPES, "int8"),
    Kernel("matrix product", INTEGER_PRODUCT, PRODUCT_SHAPES, "int8", integer_input=True),
)


@dataclass(frozen=True)
class PeakThroughput:
    """The most multiply-adds a second in a precision on these threads, and what reached it."""

    precision: str
    threads: int
    gmacs_per_s: float
    reached_by: str


def measure_peaks(threads: int, seconds: float = SECONDS) -> tuple[PeakThroughput, ...]:
    """Measure the peak of each precision: the best of all kernels and installed libraries."""
    best: dict[str, PeakThroughput] = {}
    for precision, name, macs, run in _runs(threads):
        rate = macs / shortest_seconds(run, seconds) / 1e9
        if precision not in best or rate > best[precision].gmacs_per_s:
            best[precision] = PeakThroughput(precision, threads, rate, name)
    return tuple(best.values())


def shortest_seconds(run: Callable[[], object], seconds: float) -> float:
    """Return the shortest run: a peak is what was reached once, not what is usual."""
    run()
    taken: list[float] = []
    deadline = time.perf_counter() + seconds
    while not taken or time.perf_counter() < deadline:
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return min(taken)


def _runs(threads: int) -> Iterator[tuple[str, str, int, Callable[[], object]]]:
    for kernel in KERNELS:
        x = kernel.input()
        session = _open_onnxruntime(kernel.build(), threads)
        yield (
            kernel.precision,
            f"onnxruntime, {kernel.name}",
            kernel.macs,
            partial(session.run, None, {"x": x}),
        )
        if importlib.util.find_spec("openvino") is None or kernel.integer_input:
            continue
        for precision, hint in _hints(kernel.precision):
            request = _open_openvino(kernel.build(), threads, hint)
            yield (
                precision,
                f"openvino, {kernel.name}",
                kernel.macs,
                partial(request.infer, {"x": x}),
            )


def _hints(precision: str) -> Sequence[tuple[str, str]]:
    return [("fp32", "f32"), ("bf16", "bf16")] if precision == "fp32" else [(precision, "f32")]


def _open_onnxruntime(content: bytes, threads: int) -> Any:
    onnxruntime = import_onnxruntime()
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = SILENT
    settings.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])


def _open_openvino(content: bytes, threads: int, hint: str) -> Any:
    core = import_openvino().Core()
    settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads}
    return core.compile_model(core.read_model(content), "CPU", settings).create_infer_request()
