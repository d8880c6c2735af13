"""One writer for each ONNX operator that a ncnn network can have."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from onnx import NodeProto

from export.graph import Array, Shape, attributes
from export.ncnn_writer.conversion import NcnnConversion
from export.ncnn_writer.network import Value, plain, sizes, tagged
from export.weights import read_bias, read_weight

FLOAT_MAX = float(np.finfo(np.float32).max)
ADD, SUB, MUL, DIV, MAX = 0, 1, 2, 3, 4  # of BinaryOp
MEAN, MAXIMUM, NORM = 3, 4, 8  # of Reduction
MAX_AXES = 4
RELU = 1  # of a convolution's activation
# Permute's order_type by the axes of its input that the result has, the innermost first.
ORDERS = {
    2: ("WH", "HW"),
    3: ("WHC", "HWC", "WCH", "CWH", "HCW", "CHW"),
    4: (
        *("WHDC", "HWDC", "WDHC", "DWHC", "HDWC", "DHWC", "WHCD", "HWCD", "WCHD", "CWHD"),
        *("HCWD", "CHWD", "WDCH", "DWCH", "WCDH", "CWDH", "DCWH", "CDWH", "HDCW", "DHCW"),
        *("HCDW", "CHDW", "DCHW", "CDHW"),
    ),
}
AXES = {1: "W", 2: "HW", 3: "CHW", 4: "CDHW"}  # by the number of axes, the outermost first

Writer = Callable[[NcnnConversion, NodeProto], None]


def write(c: NcnnConversion, node: NodeProto) -> None:
    """Write a node; EdgeError if its operator, or what is asked of it, has no writer."""
    if node.op_type not in WRITERS:
        raise c.graph.unsupported(
            node, f"ncnn networks are written with {', '.join(sorted(WRITERS))}"
        )
    if not c.is_written(node):
        WRITERS[node.op_type](c, node)


def _binary(operation: int) -> Writer:
    """Two values, of which one or both may have to be spread, or one and a number."""

    def write_binary(c: NcnnConversion, node: NodeProto) -> None:
        left, right = node.input
        constant = c.graph.constants.get(right)
        if constant is not None and constant.size == 1:
            c.add("BinaryOp", node, {0: operation, 1: 1, 2: float(constant.item())})
            return
        c.network.add("BinaryOp", [c.read(left), c.read(right)], [node.output[0]], {0: operation})

    return write_binary


def _write_convolution(c: NcnnConversion, node: NodeProto) -> None:
    graph, settings = c.graph, attributes(node)
    weight, bias = read_weight(graph, node), read_bias(graph, node)
    relu = graph.only_reader(node.output[0], "Relu")
    scale = _input_scale(c, node) if weight.scale is not None else None
    parameters = _geometry(node, weight.value.shape)
    group = settings.get("group", 1)
    stored: list[bytes]
    if scale is None or weight.scale is None:
        value = weight.dequantized.astype(np.float32)
        stored = [tagged(_half(value) if c.half else value)]
    else:
        c.int8_macs += graph.macs(node)
        parameters[8] = 1 if group > 1 else 2
        stored = [tagged(weight.value)]
    if bias is not None:
        parameters[5] = 1
        stored.append(plain(bias))
    if scale is not None and weight.scale is not None:
        stored += [plain(1 / weight.scale), plain(np.array([1 / scale]))]
    if relu:
        parameters[9] = RELU
        c.mark_written(relu)
    kind = "Convolution"
    if group > 1:
        kind, parameters[7] = "ConvolutionDepthWise", group
    result = relu.output[0] if relu else node.output[0]
    c.network.add(kind, [c.read(node.input[0])], [result], parameters, stored)


def _half(value: Array) -> Array:
    """In FP16, or as it is if that does not hold it."""
    with np.errstate(over="ignore"):
        half = value.astype(np.float16)
    return half if np.isfinite(half).all() else value


def _input_scale(c: NcnnConversion, node: NodeProto) -> float | None:
    """The scale of a quantized input, around zero; None of one in FP32."""
    dequantize = c.graph.producer.get(node.input[0])
    if dequantize is None or dequantize.op_type != "DequantizeLinear":
        return None
    scale, zero_point = c.graph.required(dequantize, 1), c.graph.constant(dequantize, 2)
    if scale.size != 1 or zero_point is None or zero_point.dtype != np.int8 or zero_point.any():
        raise c.graph.unsupported(
            node, "ncnn quantizes to int8 around zero: take int8-trt.onnx, which is so"
        )
    return float(scale.item())


def _geometry(node: NodeProto, weight: Shape) -> dict[int, Value]:
    settings = attributes(node)
    top, left, bottom, right = settings.get("pads", [0, 0, 0, 0])
    stride, dilation = settings.get("strides", [1, 1]), settings.get("dilations", [1, 1])
    return {
        **{0: weight[0], 1: weight[3], 11: weight[2], 6: int(np.prod(weight))},
        **{2: dilation[1], 12: dilation[0], 3: stride[1], 13: stride[0]},
        **{4: left, 14: top, 15: right, 16: bottom},
    }


def _write_quantize(c: NcnnConversion, node: NodeProto) -> None:
    """Nothing: the convolutions that read it do it; others read what it was before."""
    c.link(node.output[0], node.input[0])


def _write_dequantize(c: NcnnConversion, node: NodeProto) -> None:
    if node.input[0] not in c.graph.constants:
        c.link(node.output[0], node.input[0])


def _write_clip(c: NcnnConversion, node: NodeProto) -> None:
    low, high = c.graph.constant(node, 1), c.graph.constant(node, 2)
    least = -FLOAT_MAX if low is None else float(low.item())
    most = FLOAT_MAX if high is None else float(high.item())
    c.add("Clip", node, {0: least, 1: most})


def _write_concat(c: NcnnConversion, node: NodeProto) -> None:
    axis = c.axis(node, attributes(node)["axis"], len(c.graph.shape(node.input[0])))
    c.network.add("Concat", list(map(c.read, node.input)), [node.output[0]], {0: axis})


def _write_split(c: NcnnConversion, node: NodeProto) -> None:
    axis = c.axis(node, attributes(node).get("axis", 0), len(c.graph.shape(node.input[0])))
    parts = [c.shape(output)[axis] for output in node.output]
    c.network.add("Slice", [c.read(node.input[0])], list(node.output), {0: parts, 1: axis})


def _write_slice(c: NcnnConversion, node: NodeProto) -> None:
    shape = c.graph.shape(node.input[0])
    starts, ends = c.graph.required(node, 1), c.graph.required(node, 2)
    axes, steps = c.graph.constant(node, 3), c.graph.constant(node, 4)
    if steps is not None and (steps != 1).any():
        raise c.graph.unsupported(node, "expected steps of 1")
    axes = np.arange(len(starts)) if axes is None else axes
    cuts = [
        slice(int(start), int(end)).indices(shape[axis])
        for start, end, axis in zip(starts, ends, axes, strict=True)
    ]
    places = [c.axis(node, int(axis), len(shape)) for axis in axes]
    first, last = [cut[0] for cut in cuts], [cut[1] for cut in cuts]
    c.add("Crop", node, {9: first, 10: last, 11: places})


def _write_reshape(c: NcnnConversion, node: NodeProto) -> None:
    shape = c.shape(node.output[0])
    if not 0 < len(shape) <= MAX_AXES:
        raise c.graph.unsupported(node, f"ncnn has 1 to {MAX_AXES} axes, and no batch")
    c.add("Reshape", node, sizes(shape))


def _write_transpose(c: NcnnConversion, node: NodeProto) -> None:
    rank = len(c.graph.shape(node.input[0]))
    order = attributes(node)["perm"]
    if order[0] != 0 or rank - 1 not in ORDERS:
        raise c.graph.unsupported(node, "expected two to four axes, and the batch in its place")
    names = AXES[rank - 1]
    wanted = "".join(names[axis - 1] for axis in reversed(order[1:]))
    c.add("Permute", node, {0: ORDERS[rank - 1].index(wanted)})


def _write_matmul(c: NcnnConversion, node: NodeProto) -> None:
    c.network.add("MatMul", list(map(c.read, node.input)), [node.output[0]])


def _write_softmax(c: NcnnConversion, node: NodeProto) -> None:
    axis = c.axis(node, attributes(node).get("axis", -1), len(c.graph.shape(node.input[0])))
    c.add("Softmax", node, {0: axis, 1: 1})


def _write_layer_normalization(c: NcnnConversion, node: NodeProto) -> None:
    settings, shape = attributes(node), c.shape(node.input[0])
    if settings.get("axis", -1) % (len(shape) + 1) != len(shape) or len(node.input) < 3:
        raise c.graph.unsupported(node, "expected one over the last axis, with weight and bias")
    stored = [plain(c.graph.required(node, index)) for index in (1, 2)]
    parameters: dict[int, Value] = {0: shape[-1], 1: float(settings.get("epsilon", 1e-5)), 2: 1}
    c.network.add("LayerNorm", [c.read(node.input[0])], [node.output[0]], parameters, stored)


def _reduction(operation: int) -> Writer:
    def write_reduction(c: NcnnConversion, node: NodeProto) -> None:
        rank, axes = len(c.graph.shape(node.input[0])), c.graph.required(node, 1)
        places = [c.axis(node, int(axis), rank) for axis in axes]
        keep = attributes(node).get("keepdims", 1)
        c.add("Reduction", node, {0: operation, 1: 0, 3: places, 4: keep, 5: 1})

    return write_reduction


def _write_average_pool(c: NcnnConversion, node: NodeProto) -> None:
    settings = attributes(node)
    if any(settings.get("pads", [])) or settings.get("ceil_mode", 0):
        raise c.graph.unsupported(node, "expected one without padding")
    (height, width), stride = settings["kernel_shape"], settings.get("strides", [1, 1])
    c.add("Pooling", node, {0: 1, 1: width, 11: height, 2: stride[1], 12: stride[0], 5: 1})


def _write_resize(c: NcnnConversion, node: NodeProto) -> None:
    settings = attributes(node)
    before, after = c.shape(node.input[0]), c.shape(node.output[0])
    whole = all(n % m == 0 for n, m in zip(after, before, strict=True))
    floor = settings.get("nearest_mode", "round_prefer_floor") == "floor"
    asymmetric = settings.get("coordinate_transformation_mode") == "asymmetric"
    if settings.get("mode", "nearest") != "nearest" or not (whole and floor and asymmetric):
        raise c.graph.unsupported(node, "expected mode nearest, asymmetric, floor, a whole factor")
    scales = (float(after[axis] // before[axis]) for axis in (1, 2))
    c.add("Interp", node, {0: 1, **dict(zip((1, 2), scales, strict=True))})


def _write_pad(c: NcnnConversion, node: NodeProto) -> None:
    pads, mode = c.graph.required(node, 1), attributes(node).get("mode", "constant")
    if len(pads) != 8 or mode != "edge" or pads[[0, 1, 4, 5]].any():
        raise c.graph.unsupported(node, "expected mode edge, of images")
    top, left, bottom, right = (int(pads[index]) for index in (2, 3, 6, 7))
    c.add("Padding", node, {0: top, 1: bottom, 2: left, 3: right, 4: 1})


def _write_depth_to_space(c: NcnnConversion, node: NodeProto) -> None:
    settings = attributes(node)
    crd = settings.get("mode", "DCR") == "CRD"
    c.add("PixelShuffle", node, {0: settings["blocksize"], 1: 0 if crd else 1})


def _write_space_to_depth(c: NcnnConversion, node: NodeProto) -> None:
    c.add("Reorg", node, {0: attributes(node)["blocksize"], 1: 1})


def _write_gelu(c: NcnnConversion, node: NodeProto) -> None:
    c.add("GELU", node, {0: int(attributes(node).get("approximate", "none") == "tanh")})


def _plainly(kind: str) -> Writer:
    return lambda c, node: c.add(kind, node)


WRITERS: Mapping[str, Writer] = {
    "Add": _binary(ADD),
    "AveragePool": _write_average_pool,
    "Clip": _write_clip,
    "Concat": _write_concat,
    "Conv": _write_convolution,
    "DepthToSpace": _write_depth_to_space,
    "DequantizeLinear": _write_dequantize,
    "Div": _binary(DIV),
    "Gelu": _write_gelu,
    "LayerNormalization": _write_layer_normalization,
    "MatMul": _write_matmul,
    "Max": _binary(MAX),
    "Mul": _binary(MUL),
    "Pad": _write_pad,
    "QuantizeLinear": _write_quantize,
    "ReduceL2": _reduction(NORM),
    "ReduceMax": _reduction(MAXIMUM),
    "ReduceMean": _reduction(MEAN),
    "Relu": _plainly("ReLU"),
    "Reshape": _write_reshape,
    "Resize": _write_resize,
    "Sigmoid": _plainly("Sigmoid"),
    "Slice": _write_slice,
    "Softmax": _write_softmax,
    "SpaceToDepth": _write_space_to_depth,
    "Split": _write_split,
    "Squeeze": _write_reshape,
    "Sub": _binary(SUB),
    "Transpose": _write_transpose,
    "Unsqueeze": _write_reshape,
}
