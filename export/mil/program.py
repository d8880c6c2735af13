"""An ONNX graph of the project's contract as a Core ML program (MIL), its Q/DQ scales carried."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import coremltools as ct
import numpy as np
from coremltools.converters.mil import Builder as mb  # noqa: N813
from onnx import ModelProto, NodeProto

from export.graph import Graph, attributes
from export.weights import read_bias, read_weight

TARGET = ct.target.iOS17  # the first whose convolutions may have quantized activations
FLOAT_MAX = float(np.finfo(np.float32).max)
MAX_AXES = 5
INT_MAX = int(np.iinfo(np.int32).max)

Variable: TypeAlias = Any  # of the program
Made: TypeAlias = Any  # a variable, or one for each output


class MilConversion:
    """A graph whose values become variables of a program one after the other."""

    def __init__(self, graph: Graph, values: Mapping[str, Variable]) -> None:
        self.graph = graph
        self._values = dict(values)

    def read(self, value: str) -> Variable:
        """The variable of a value; a constant is FP32."""
        if value in self.graph.constants:
            return np.asarray(self.graph.constants[value], np.float32)
        return self._values[value]

    def link(self, node: NodeProto, made: Made) -> None:
        """Say what a node's outputs are."""
        variables = made if isinstance(made, (list, tuple)) else [made]
        self._values.update(zip(node.output, variables, strict=True))

    def inputs(self, node: NodeProto) -> list[Variable]:
        return [self.read(value) for value in node.input]

    def number(self, node: NodeProto, index: int, default: float) -> np.float32:
        """A constant number, or the default where the node has none."""
        value = self.graph.constant(node, index)
        return np.float32(default if value is None else value.item())

    def integers(self, node: NodeProto, index: int) -> list[int]:
        """Sizes or axes, which MIL has in 32 bits."""
        return [int(n) for n in np.clip(self.graph.required(node, index), -INT_MAX, INT_MAX)]


Writer: TypeAlias = Callable[[MilConversion, NodeProto], Made]


def write_program(model: ModelProto, name: str) -> Any:
    """The program lr (1, 3, S, S) -> sr (1, 3, 128, 128); EdgeError names what has no writer."""
    graph = Graph(model, name)
    ((source,), (result,)) = graph.inputs, graph.outputs

    @mb.program(input_specs=[mb.TensorSpec(shape=graph.shape(source))], opset_version=TARGET)
    def program(lr: Variable) -> Variable:
        c = MilConversion(graph, {source: lr})
        for node in graph.nodes:
            if node.op_type not in WRITERS:
                raise graph.unsupported(
                    node, f"Core ML programs are written with {', '.join(sorted(WRITERS))}"
                )
            if node.op_type != "DequantizeLinear" or node.input[0] not in graph.constants:
                c.link(node, WRITERS[node.op_type](c, node))  # weights: the convolution does it
        return mb.identity(x=c.read(result), name="sr")

    return program


def _binary(build: Callable[..., Variable]) -> Writer:
    def write_binary(c: MilConversion, node: NodeProto) -> Made:
        left, right = c.inputs(node)
        return build(x=left, y=right)

    return write_binary


def _unary(build: Callable[..., Variable]) -> Writer:
    return lambda c, node: build(x=c.read(node.input[0]))


def _write_convolution(c: MilConversion, node: NodeProto) -> Made:
    settings = attributes(node)
    weight, bias = read_weight(c.graph, node), read_bias(c.graph, node)
    value = weight.value
    if weight.scale is not None:
        value = mb.constexpr_affine_dequantize(
            quantized_data=value,
            zero_point=np.zeros(len(value), np.int8),
            scale=np.ascontiguousarray(weight.scale, np.float32),
            axis=np.int32(0),
        )
    top, left, bottom, right = settings.get("pads", [0, 0, 0, 0])
    more = {} if bias is None else {"bias": bias.astype(np.float32)}
    return mb.conv(
        x=c.read(node.input[0]),
        weight=value,
        strides=settings.get("strides", [1, 1]),
        pad_type="custom",
        pad=[top, bottom, left, right],
        dilations=settings.get("dilations", [1, 1]),
        groups=settings.get("group", 1),
        **more,
    )


def _write_quantize(c: MilConversion, node: NodeProto) -> Made:
    zero_point = c.graph.required(node, 2)
    return mb.quantize(
        input=c.read(node.input[0]),
        scale=c.number(node, 1, 1),
        zero_point=zero_point.dtype.type(zero_point.item()),
        output_dtype=zero_point.dtype.name,
    )


def _write_dequantize(c: MilConversion, node: NodeProto) -> Made:
    zero_point = c.graph.required(node, 2)
    return mb.dequantize(
        input=c.read(node.input[0]),
        scale=c.number(node, 1, 1),
        zero_point=zero_point.dtype.type(zero_point.item()),
    )


def _write_clip(c: MilConversion, node: NodeProto) -> Made:
    least, most = c.number(node, 1, -FLOAT_MAX), c.number(node, 2, FLOAT_MAX)
    return mb.clip(x=c.read(node.input[0]), alpha=least, beta=most)


def _write_gelu(c: MilConversion, node: NodeProto) -> Made:
    exact = attributes(node).get("approximate", "none") == "none"
    return mb.gelu(x=c.read(node.input[0]), mode="EXACT" if exact else "TANH_APPROXIMATION")


def _write_layer_normalization(c: MilConversion, node: NodeProto) -> Made:
    settings = attributes(node)
    rank = len(c.graph.shape(node.input[0]))
    x, gamma, beta = c.inputs(node)
    axes = list(range(settings.get("axis", -1) % rank, rank))
    epsilon = np.float32(settings.get("epsilon", 1e-5))
    return mb.layer_norm(x=x, axes=axes, gamma=gamma, beta=beta, epsilon=epsilon)


def _reduction(build: Callable[..., Variable]) -> Writer:
    def write_reduction(c: MilConversion, node: NodeProto) -> Made:
        keep = bool(attributes(node).get("keepdims", 1))
        return build(x=c.read(node.input[0]), axes=c.integers(node, 1), keep_dims=keep)

    return write_reduction


def _write_concat(c: MilConversion, node: NodeProto) -> Made:
    return mb.concat(values=c.inputs(node), axis=attributes(node)["axis"])


def _write_split(c: MilConversion, node: NodeProto) -> Made:
    axis = attributes(node).get("axis", 0)
    sizes = [c.graph.shape(output)[axis] for output in node.output]
    return mb.split(x=c.read(node.input[0]), split_sizes=sizes, axis=axis)


def _write_slice(c: MilConversion, node: NodeProto) -> Made:
    shape = c.graph.shape(node.input[0])
    steps = c.graph.constant(node, 4)
    if steps is not None and (steps != 1).any():
        raise c.graph.unsupported(node, "expected steps of 1")
    begin, end = [0] * len(shape), list(shape)
    starts, ends = c.integers(node, 1), c.integers(node, 2)
    axes = c.integers(node, 3) if c.graph.constant(node, 3) is not None else range(len(starts))
    for start, stop, axis in zip(starts, ends, axes, strict=True):
        begin[axis], end[axis], _ = slice(start, stop).indices(shape[axis])
    return mb.slice_by_index(x=c.read(node.input[0]), begin=begin, end=end)


def _write_reshape(c: MilConversion, node: NodeProto) -> Made:
    shape = c.graph.shape(node.output[0])
    if len(shape) > MAX_AXES:
        raise c.graph.unsupported(node, f"Core ML has at most {MAX_AXES} axes")
    return mb.reshape(x=c.read(node.input[0]), shape=list(shape))


def _write_transpose(c: MilConversion, node: NodeProto) -> Made:
    return mb.transpose(x=c.read(node.input[0]), perm=attributes(node)["perm"])


def _write_softmax(c: MilConversion, node: NodeProto) -> Made:
    return mb.softmax(x=c.read(node.input[0]), axis=attributes(node).get("axis", -1))


def _write_average_pool(c: MilConversion, node: NodeProto) -> Made:
    settings = attributes(node)
    if any(settings.get("pads", [])) or settings.get("ceil_mode", 0):
        raise c.graph.unsupported(node, "expected one without padding")
    return mb.avg_pool(
        x=c.read(node.input[0]),
        kernel_sizes=settings["kernel_shape"],
        strides=settings.get("strides", [1, 1]),
        pad_type="valid",
    )


def _write_resize(c: MilConversion, node: NodeProto) -> Made:
    settings = attributes(node)
    before, after = c.graph.shape(node.input[0]), c.graph.shape(node.output[0])
    whole = all(n % m == 0 for n, m in zip(after, before, strict=True))
    floor = settings.get("nearest_mode", "round_prefer_floor") == "floor"
    asymmetric = settings.get("coordinate_transformation_mode") == "asymmetric"
    if settings.get("mode", "nearest") != "nearest" or not (whole and floor and asymmetric):
        raise c.graph.unsupported(node, "expected mode nearest, asymmetric, floor, a whole factor")
    height, width = (after[axis] // before[axis] for axis in (2, 3))
    return mb.upsample_nearest_neighbor(
        x=c.read(node.input[0]), scale_factor_height=height, scale_factor_width=width
    )


def _write_pad(c: MilConversion, node: NodeProto) -> Made:
    pads, mode = c.integers(node, 1), attributes(node).get("mode", "constant")
    if len(pads) != 8 or mode != "edge" or any(pads[i] for i in (0, 1, 4, 5)):
        raise c.graph.unsupported(node, "expected mode edge, of images")
    top, left, bottom, right = (pads[i] for i in (2, 3, 6, 7))
    x = c.read(node.input[0])
    return mb.pad(x=x, pad=[top, bottom, left, right], mode="replicate")


def _write_depth_to_space(c: MilConversion, node: NodeProto) -> Made:
    settings, x = attributes(node), c.read(node.input[0])
    if settings.get("mode", "DCR") == "CRD":
        return mb.pixel_shuffle(x=x, upscale_factor=settings["blocksize"])
    return mb.depth_to_space(x=x, block_size=settings["blocksize"])


def _write_space_to_depth(c: MilConversion, node: NodeProto) -> Made:
    return mb.space_to_depth(x=c.read(node.input[0]), block_size=attributes(node)["blocksize"])


WRITERS: Mapping[str, Writer] = {
    "Add": _binary(mb.add),
    "AveragePool": _write_average_pool,
    "Clip": _write_clip,
    "Concat": _write_concat,
    "Conv": _write_convolution,
    "DepthToSpace": _write_depth_to_space,
    "DequantizeLinear": _write_dequantize,
    "Div": _binary(mb.real_div),
    "Gelu": _write_gelu,
    "LayerNormalization": _write_layer_normalization,
    "MatMul": _binary(mb.matmul),
    "Max": _binary(mb.maximum),
    "Mul": _binary(mb.mul),
    "Pad": _write_pad,
    "QuantizeLinear": _write_quantize,
    "ReduceL2": _reduction(mb.reduce_l2_norm),
    "ReduceMax": _reduction(mb.reduce_max),
    "ReduceMean": _reduction(mb.reduce_mean),
    "Relu": _unary(mb.relu),
    "Reshape": _write_reshape,
    "Resize": _write_resize,
    "Sigmoid": _unary(mb.sigmoid),
    "Slice": _write_slice,
    "Softmax": _write_softmax,
    "SpaceToDepth": _write_space_to_depth,
    "Split": _write_split,
    "Squeeze": _write_reshape,
    "Sub": _binary(mb.sub),
    "Transpose": _write_transpose,
    "Unsqueeze": _write_reshape,
}
