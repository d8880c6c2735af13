"""FP16 arithmetic that also sums in FP16, emulated: what ONNX Runtime does on ARM processors.

MLAS adds each product of an FP16 convolution to an FP16 sum. Over the 1,152 terms of a 3x3
convolution of 128 channels that loses 0.5 % of the result, far more than rounding it once
(docs/arm.md). GPUs usually sum in FP32.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from quantize.fp16_passes import round_to_half
from quantize.precision import open_quietly

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Array = NDArray[np.float32]
Values = dict[str, NDArray]

FP16_MAX = 65504
SPLIT = np.float32(2**13 + 1)  # x * SPLIT - (x * SPLIT - x) has the 11 bits of an FP16 significand
CACHED_SUMS = 1 << 15  # sums that fit a core's cache while the products are added to them


def open_summed_in_half(model: ModelProto) -> Callable[[Array], Array]:
    """Run an FP32 model as `to_half` would compute with FP16 sums in convolutions and products.

    lr (N, 3, 16, 16) -> sr (N, 3, 128, 128). Other operators run in ONNX Runtime, each on its own,
    and their results are rounded to FP16. It takes about a second a face.
    """
    rounded = round_to_half(model)
    types = _types(rounded)
    constants = {t.name: numpy_helper.to_array(t) for t in rounded.graph.initializer}
    steps = [(node, _step(node, types, rounded)) for node in rounded.graph.node]
    output = rounded.graph.output[0].name

    def run(lr: Array) -> Array:
        values: Values = {**constants, "lr": lr}
        with np.errstate(over="ignore", invalid="ignore"):  # infinity is seen when it is measured
            for node, step in steps:
                made = step([values[name] for name in node.input if name])
                values.update(zip(node.output, made, strict=True))
        return values[output]

    return run


Step = Callable[[Sequence[NDArray]], Sequence[NDArray]]


def _step(node: NodeProto, types: dict[str, int], model: ModelProto) -> Step:
    """What a node computes, of its inputs that are there."""
    if node.op_type == "Conv":
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        return lambda inputs: [convolve(*inputs, **attributes)]
    if node.op_type == "MatMul":
        return lambda inputs: [multiply(*inputs)]
    session = _open_node(node, types, model)
    names = [name for name in node.input if name]
    return lambda inputs: session.run(None, dict(zip(names, inputs, strict=True)))


def _open_node(node: NodeProto, types: dict[str, int], model: ModelProto) -> "InferenceSession":
    """A graph of this node alone."""
    inputs = [helper.make_tensor_value_info(n, types[n], None) for n in node.input if n]
    outputs = [helper.make_tensor_value_info(n, types[n], None) for n in node.output]
    unique = list({value.name: value for value in inputs}.values())
    graph = helper.make_graph([node], "node", unique, outputs)
    alone = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    # hundreds of sessions are open at a time: each with its own threads would wait on all others
    return open_quietly(alone.SerializeToString(), intra_op_num_threads=1)


def _types(model: ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        types[value.name] = value.type.tensor_type.elem_type
    return types


def convolve(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    pads: Sequence[int] = (0, 0, 0, 0),
    strides: Sequence[int] = (1, 1),
    dilations: Sequence[int] = (1, 1),
    group: int = 1,
    **_: object,
) -> Array:
    """Convolve x (N, C, H, W) with weight (O, C / group, h, w) as ONNX does, with FP16 sums."""
    top, left, bottom, right = pads
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    reach = [1 + (size - 1) * step for size, step in zip(weight.shape[2:], dilations, strict=True)]
    windows = sliding_window_view(padded, reach, axis=(2, 3))
    windows = windows[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]
    n, _channels, height, width = windows.shape[:4]
    # (N, group, terms of a sum, pixels) and (group, O / group, terms)
    columns = windows.transpose(0, 1, 4, 5, 2, 3).reshape(n, group, -1, height * width)
    weights = weight.reshape(group, weight.shape[0] // group, -1)
    sums = np.stack([sum_in_half(weights, image) for image in columns])
    sums = sums.reshape(n, -1, height, width)
    return sums if bias is None else round_half(sums + bias[:, None, None])


def multiply(a: Array, b: Array) -> Array:
    """Matrix product (..., M, K) x (..., K, N) with FP16 sums."""
    outer = a.shape[:-2]
    product = sum_in_half(a.reshape(-1, *a.shape[-2:]), b.reshape(-1, *b.shape[-2:]))
    return product.reshape(*outer, *product.shape[-2:])


def sum_in_half(a: Array, b: Array) -> Array:
    """Products (G, M, K) x (G, K, N); each sum is rounded to FP16 after each term."""
    groups, rows, terms = a.shape
    total = np.empty((groups, rows, b.shape[2]), np.float32)
    width = max(1, CACHED_SUMS // (groups * rows))
    for start in range(0, b.shape[2], width):
        part = np.ascontiguousarray(b[:, :, start : start + width])
        sums = np.zeros((groups, rows, part.shape[2]), np.float32)
        product = np.empty_like(sums)
        for k in range(terms):
            np.multiply(a[:, :, k, None], part[:, None, k], out=product)
            np.add(sums, product, out=sums)
            _round_in_place(sums, product)
        total[:, :, start : start + width] = sums
    return np.where(np.abs(total) > FP16_MAX, np.copysign(np.inf, total), total).astype(np.float32)


def round_half(x: Array) -> Array:
    """The nearest FP16 numbers as float32; what FP16 cannot hold becomes infinite."""
    with np.errstate(over="ignore"):
        return x.astype(np.float16).astype(np.float32)


def _round_in_place(sums: Array, spare: Array) -> None:
    """Round to 11 bits by Dekker's splitting, ten times as fast as casting; no overflow is seen."""
    scaled = sums * SPLIT
    np.subtract(scaled, sums, out=spare)
    np.subtract(scaled, spare, out=sums)
