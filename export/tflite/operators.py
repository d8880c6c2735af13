"""One writer for each ONNX operator that a LiteRT file can have."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from onnx import NodeProto

from export.graph import attributes
from export.tflite.conversion import LAST, PLAIN, TO_LAST, TO_PLAIN, TfliteConversion
from export.tflite.convolution import write_convolution
from export.tflite.quantization import int8_quantization

MAX_JOINED = 5  # tensors that XNNPACK's concatenation takes
Writer = Callable[[TfliteConversion, NodeProto], None]


def write(c: TfliteConversion, node: NodeProto) -> None:
    """Write a node; EdgeError if its operator, or what is asked of it, has no writer."""
    if node.op_type not in WRITERS:
        raise c.graph.unsupported(
            node, f"LiteRT files are written with {', '.join(sorted(WRITERS))}"
        )
    if not c.is_written(node):
        WRITERS[node.op_type](c, node)


def _elementwise(name: str, options: Callable[[], object] | None = None) -> Writer:
    def write_elementwise(c: TfliteConversion, node: NodeProto) -> None:
        layout = c.layout_of(node.input)
        inputs = [c.read(value, layout) for value in node.input]
        c.write(name, inputs, node.output[0], layout, options() if options else None)

    return write_elementwise


def _write_clip(c: TfliteConversion, node: NodeProto) -> None:
    layout = c.layout_of(node.input[:1])
    tensor = c.read(node.input[0], layout)
    for index, name in ((1, "MAXIMUM"), (2, "MINIMUM")):
        bound = c.graph.constant(node, index)
        if bound is not None:
            shape, options = c.shape(node.output[0], layout), schema.MaximumMinimumOptionsT()
            tensor = c.emit(name, [tensor, c.floats(bound)], shape, options)
    c.link(node.output[0], layout, tensor)


def _write_gelu(c: TfliteConversion, node: NodeProto) -> None:
    layout = c.layout_of(node.input)
    options = schema.GeluOptionsT()
    options.approximate = attributes(node).get("approximate", "none") == "tanh"
    c.write("GELU", [c.read(node.input[0], layout)], node.output[0], layout, options)


def _write_layer_normalization(c: TfliteConversion, node: NodeProto) -> None:
    """Over the last axis, in parts: LiteRT has no operator for it."""
    value, settings = node.input[0], attributes(node)
    rank = len(c.graph.shape(value))
    if settings.get("axis", -1) % rank != rank - 1:
        raise c.graph.unsupported(node, "expected one over the last axis")
    x, shape = c.read(value), c.graph.shape(value)
    mean = _reduce(c, "MEAN", x, [rank - 1])
    centred = c.emit("SUB", [x, mean], shape, schema.SubOptionsT())
    square = c.emit("MUL", [centred, centred], shape, schema.MulOptionsT())
    variance = _reduce(c, "MEAN", square, [rank - 1])
    epsilon = c.floats(np.array(settings.get("epsilon", 1e-5)))
    steady = c.emit("ADD", [variance, epsilon], c.shape_of(variance), schema.AddOptionsT())
    factor = c.emit("RSQRT", [steady], c.shape_of(variance))
    y = c.emit("MUL", [centred, factor], shape, schema.MulOptionsT())
    y = c.emit("MUL", [y, c.read(node.input[1])], shape, schema.MulOptionsT())
    if len(node.input) > 2 and node.input[2]:
        y = c.emit("ADD", [y, c.read(node.input[2])], shape, schema.AddOptionsT())
    c.link(node.output[0], PLAIN, y)


def _reduction(name: str) -> Writer:
    def write_reduction(c: TfliteConversion, node: NodeProto) -> None:
        value, settings = node.input[0], attributes(node)
        axes = c.graph.constant(node, 1)
        if axes is None or not settings.get("keepdims", 1):
            raise c.graph.unsupported(node, "expected axes, and that they are kept")
        layout, rank = c.layout_of([value]), len(c.graph.shape(value))
        places = [c.axis(int(axis), rank, layout) for axis in axes]
        tensor = c.read(value, layout)
        if name == "NORM":
            tensor = c.emit("MUL", [tensor, tensor], c.shape_of(tensor), schema.MulOptionsT())
            total = _reduce(c, "SUM", tensor, places)
            c.write("SQRT", [total], node.output[0], layout)
        else:
            c.link(node.output[0], layout, _reduce(c, name, tensor, places))

    return write_reduction


def _reduce(c: TfliteConversion, name: str, tensor: int, axes: list[int]) -> int:
    options = schema.ReducerOptionsT()
    options.keepDims = True
    shape = tuple(1 if axis in axes else n for axis, n in enumerate(c.shape_of(tensor)))
    return c.emit(name, [tensor, c.integers(axes)], shape, options)


def _write_concat(c: TfliteConversion, node: NodeProto) -> None:
    layout = c.layout_of(node.input)
    axis = c.axis(attributes(node)["axis"], len(c.graph.shape(node.input[0])), layout)
    tensors = [c.read(value, layout) for value in node.input]
    c.link(node.output[0], layout, _join(c, tensors, axis))


def _join(c: TfliteConversion, tensors: list[int], axis: int) -> int:
    shapes = [c.shape_of(tensor) for tensor in tensors]
    shape = list(shapes[0])
    shape[axis] = sum(other[axis] for other in shapes)
    options = schema.ConcatenationOptionsT()
    options.axis = axis
    return c.emit("CONCATENATION", tensors, tuple(shape), options, like=tensors[0], version=2)


def _cut(c: TfliteConversion, tensor: int, axis: int, start: int, size: int) -> int:
    """`size` entries of an axis, from `start`."""
    shape = list(c.shape_of(tensor))
    begin = [0] * len(shape)
    begin[axis], shape[axis] = start, size
    inputs = [tensor, c.integers(begin), c.integers(shape)]
    return c.emit("SLICE", inputs, tuple(shape), schema.SliceOptionsT(), like=tensor, version=3)


def _write_split(c: TfliteConversion, node: NodeProto) -> None:
    value = node.input[0]
    layout, rank = c.layout_of([value]), len(c.graph.shape(value))
    axis = attributes(node).get("axis", 0) % rank
    start = 0
    for output in node.output:
        size = c.graph.shape(output)[axis]
        tensor = c.read_stored(value, layout)
        c.link_moved(output, layout, _cut(c, tensor, c.axis(axis, rank, layout), start, size))
        start += size


def _write_slice(c: TfliteConversion, node: NodeProto) -> None:
    value = node.input[0]
    starts, ends, axes, steps = (c.graph.constant(node, index) for index in (1, 2, 3, 4))
    if starts is None or ends is None or (steps is not None and (steps != 1).any()):
        raise c.graph.unsupported(node, "expected constant ends and steps of 1")
    layout, rank = c.layout_of([value]), len(c.graph.shape(value))
    tensor = c.read_stored(value, layout)
    axes = np.arange(len(starts)) if axes is None else axes
    for start, end, axis in zip(starts, ends, axes, strict=True):
        first, last, _ = slice(int(start), int(end)).indices(c.graph.shape(value)[axis])
        tensor = _cut(c, tensor, c.axis(int(axis), rank, layout), first, last - first)
    c.link_moved(node.output[0], layout, tensor)


def _write_reshape(c: TfliteConversion, node: NodeProto) -> None:
    """Reshape, Squeeze, Unsqueeze: the numbers stay in ONNX's order."""
    tensor = c.read_stored(node.input[0])
    c.link_moved(node.output[0], PLAIN, c.reshape(tensor, c.graph.shape(node.output[0])))


def _write_transpose(c: TfliteConversion, node: NodeProto) -> None:
    """Between (N, C, H, W) and (N, H, W, C) it is but another view of the same tensor."""
    value, made = node.input[0], node.output[0]
    shape = c.graph.shape(value)
    order = tuple(attributes(node).get("perm", range(len(shape))[::-1]))
    if order == TO_LAST:
        c.link_moved(made, PLAIN, c.read_stored(value, LAST))
    elif order == TO_PLAIN:
        c.link_moved(made, LAST, c.read_stored(value))
    else:
        c.link_moved(made, PLAIN, c.transpose(c.read_stored(value), shape, order))


def _write_matmul(c: TfliteConversion, node: NodeProto) -> None:
    left, right = (c.read(value) for value in node.input)
    c.write("BATCH_MATMUL", [left, right], node.output[0], PLAIN, schema.BatchMatMulOptionsT())


def _write_softmax(c: TfliteConversion, node: NodeProto) -> None:
    value = node.input[0]
    layout, rank = c.layout_of([value]), len(c.graph.shape(value))
    if c.axis(attributes(node).get("axis", -1), rank, layout) != rank - 1:
        raise c.graph.unsupported(node, "expected one over the last axis")
    options = schema.SoftmaxOptionsT()
    options.beta = 1.0
    c.write("SOFTMAX", [c.read(value, layout)], node.output[0], layout, options)


def _write_average_pool(c: TfliteConversion, node: NodeProto) -> None:
    settings = attributes(node)
    if any(settings.get("pads", [])) or settings.get("ceil_mode", 0):
        raise c.graph.unsupported(node, "expected one without padding")
    options = schema.Pool2DOptionsT()
    options.padding = schema.Padding.VALID
    options.filterHeight, options.filterWidth = settings["kernel_shape"]
    options.strideH, options.strideW = settings.get("strides", [1, 1])
    c.write("AVERAGE_POOL_2D", [c.read(node.input[0], LAST)], node.output[0], LAST, options)


def _write_depth_to_space(c: TfliteConversion, node: NodeProto) -> None:
    """In mode CRD, which LiteRT does not have, by a transposition of six axes."""
    settings = attributes(node)
    block, tensor = settings["blocksize"], c.read_stored(node.input[0], LAST)
    if settings.get("mode", "DCR") == "DCR":
        c.link_moved(node.output[0], LAST, _depth_to_space(c, tensor, block))
        return
    n, height, width, depth = c.shape_of(tensor)
    split = (n, height, width, depth // block**2, block, block)
    moved = c.transpose(c.reshape(tensor, split), split, (0, 1, 4, 2, 5, 3))
    c.link_moved(node.output[0], LAST, c.reshape(moved, c.shape(node.output[0], LAST)))


def _depth_to_space(c: TfliteConversion, tensor: int, block: int) -> int:
    n, height, width, depth = c.shape_of(tensor)
    shape = (n, height * block, width * block, depth // block**2)
    options = schema.DepthToSpaceOptionsT()
    options.blockSize = block
    return c.emit("DEPTH_TO_SPACE", [tensor], shape, options, like=tensor)


def _write_space_to_depth(c: TfliteConversion, node: NodeProto) -> None:
    options = schema.SpaceToDepthOptionsT()
    options.blockSize = attributes(node)["blocksize"]
    tensor = c.read_stored(node.input[0], LAST)
    c.write_moved("SPACE_TO_DEPTH", [tensor], node.output[0], LAST, options)


def _write_resize(c: TfliteConversion, node: NodeProto) -> None:
    """Each pixel twice each way: four copies of the channels, spread by DEPTH_TO_SPACE.

    XNNPACK runs these, and not RESIZE_NEAREST_NEIGHBOR, which would break the graph in parts.
    """
    settings = attributes(node)
    before, after = c.graph.shape(node.input[0]), c.graph.shape(node.output[0])
    doubled = tuple(n // m for n, m in zip(after, before, strict=True)) == (1, 1, 2, 2)
    floor = settings.get("nearest_mode", "round_prefer_floor") == "floor"
    asymmetric = settings.get("coordinate_transformation_mode") == "asymmetric"
    if settings.get("mode", "nearest") != "nearest" or not (doubled and floor and asymmetric):
        raise c.graph.unsupported(node, "expected mode nearest, asymmetric, floor, twice the size")
    tensor = c.read_stored(node.input[0], LAST)
    c.link_moved(node.output[0], LAST, _depth_to_space(c, _join(c, [tensor] * 4, 3), 2))


def _write_pad(c: TfliteConversion, node: NodeProto) -> None:
    """Mode edge repeats the outermost rows and columns."""
    pads, mode = c.graph.constant(node, 1), attributes(node).get("mode", "constant")
    if pads is None or len(pads) != 8 or mode != "edge":
        raise c.graph.unsupported(node, "expected mode edge, of images")
    tensor = c.read_stored(node.input[0], LAST)
    for axis, (before, after) in ((1, (pads[2], pads[6])), (2, (pads[3], pads[7]))):
        size = c.shape_of(tensor)[axis]
        first = _cut(c, tensor, axis, 0, 1)
        last = _cut(c, tensor, axis, size - 1, 1)
        parts = [first] * int(before) + [tensor] + [last] * int(after)
        if len(parts) > MAX_JOINED or min(before, after) < 0 or any(pads[[0, 1, 4, 5]]):
            raise c.graph.unsupported(node, f"expected 0 to {MAX_JOINED // 2} pixels a side")
        tensor = _join(c, parts, axis) if len(parts) > 1 else tensor
    c.link_moved(node.output[0], LAST, tensor)


def _write_quantize(c: TfliteConversion, node: NodeProto) -> None:
    layout = c.layout_of(node.input[:1])
    tensor = c.read(node.input[0], layout)
    made = c.emit(
        "QUANTIZE",
        [tensor],
        c.shape_of(tensor),
        schema.QuantizeOptionsT(),
        dtype="int8",
        quantization=int8_quantization(c.graph, node),
    )
    c.link(node.output[0], layout, made)


def _write_dequantize(c: TfliteConversion, node: NodeProto) -> None:
    """Of weights: nothing, the convolution does it. Of activations: when somebody reads them."""
    if node.input[0] not in c.graph.constants:
        c.link_stored(node.output[0], node.input[0])


WRITERS: Mapping[str, Writer] = {
    "Add": _elementwise("ADD", schema.AddOptionsT),
    "AveragePool": _write_average_pool,
    "Clip": _write_clip,
    "Concat": _write_concat,
    "Conv": write_convolution,
    "DepthToSpace": _write_depth_to_space,
    "DequantizeLinear": _write_dequantize,
    "Div": _elementwise("DIV", schema.DivOptionsT),
    "Gelu": _write_gelu,
    "LayerNormalization": _write_layer_normalization,
    "MatMul": _write_matmul,
    "Max": _elementwise("MAXIMUM", schema.MaximumMinimumOptionsT),
    "Mul": _elementwise("MUL", schema.MulOptionsT),
    "Pad": _write_pad,
    "QuantizeLinear": _write_quantize,
    "ReduceL2": _reduction("NORM"),
    "ReduceMax": _reduction("REDUCE_MAX"),
    "ReduceMean": _reduction("MEAN"),
    "Relu": _elementwise("RELU"),
    "Reshape": _write_reshape,
    "Resize": _write_resize,
    "Sigmoid": _elementwise("LOGISTIC"),
    "Slice": _write_slice,
    "Softmax": _write_softmax,
    "SpaceToDepth": _write_space_to_depth,
    "Split": _write_split,
    "Squeeze": _write_reshape,
    "Sub": _elementwise("SUB", schema.SubOptionsT),
    "Transpose": _write_transpose,
    "Unsqueeze": _write_reshape,
}
