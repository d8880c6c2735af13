"""Convolutions for LiteRT, dense and depthwise: INT8 where both sides are quantized, else FP32."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from onnx import NodeProto

from export.graph import Array, attributes
from export.tflite.channel_order import make_dense
from export.tflite.conversion import HALF, LAST, TfliteConversion
from export.tflite.model import Quantization
from export.tflite.quantization import int8_quantization
from export.weights import Weight, read_bias, read_weight

SAME, VALID = schema.Padding.SAME, schema.Padding.VALID


def write_convolution(c: TfliteConversion, node: NodeProto) -> None:
    """Write a convolution with the Relu and, in INT8, the QuantizeLinear that follow it."""
    graph, settings = c.graph, attributes(node)
    if len(graph.shape(node.input[0])) != 4 or settings.get("auto_pad", "NOTSET") != "NOTSET":
        raise graph.unsupported(node, "expected one of images, with its padding in numbers")
    relu = graph.only_reader(node.output[0], "Relu")
    result = relu.output[0] if relu else node.output[0]
    quantize = graph.only_reader(result, "QuantizeLinear")
    weight, bias = read_weight(graph, node), read_bias(graph, node)
    bias = np.zeros(len(weight.value), np.float32) if bias is None else bias  # LiteRT wants one
    int8 = c.is_stored(node.input[0]) and weight.scale is not None and quantize is not None
    data = (c.read_stored if int8 else c.read)(node.input[0], LAST)
    data, padding = _pad(c, node, data)
    group = settings.get("group", 1)
    c.mark_written(relu)
    if int8 and quantize:
        c.mark_written(quantize)
        made = quantize.output[0]
        output = int8_quantization(graph, quantize)
        constants = _int8_constants(c, node, weight, bias, c.stored_type(node.input[0]))
    else:
        made, output = result, None
        constants = _float_constants(c, node, weight.dequantized, bias)
    multiplier = len(weight.value) // group if _is_depthwise(c, node, group) else 0
    name, options = _options(node, multiplier, padding, relu is not None)
    tensor = c.emit(
        name,
        [data, *constants],
        c.shape(made, LAST),
        options,
        dtype="int8" if output else "float32",
        quantization=output,
        version=3 if output else 1,
    )
    c.link(made, LAST, tensor)


def _is_depthwise(c: TfliteConversion, node: NodeProto, group: int) -> bool:
    return group > 1 and group == c.graph.shape(node.input[0])[1]


def _pad(c: TfliteConversion, node: NodeProto, data: int) -> tuple[int, int]:
    """The data, padded where LiteRT has no word for it, and SAME or VALID.

    SAME puts the odd pixel of a stride on the other side than torch does.
    """
    settings = attributes(node)
    kernel = c.graph.shape(node.input[1])[2:]
    pads = settings.get("pads", [0, 0, 0, 0])
    if not any(pads):
        return data, VALID
    reach = [
        (size - 1) * dilation
        for size, dilation in zip(kernel, settings.get("dilations", [1, 1]), strict=True)
    ]
    if settings.get("strides", [1, 1]) == [1, 1] and [2 * pad for pad in pads] == [*reach, *reach]:
        return data, SAME
    top, left, bottom, right = pads
    paddings = np.array([[0, 0], [top, bottom], [left, right], [0, 0]])
    n, height, width, channels = c.shape_of(data)
    shape = (n, height + top + bottom, width + left + right, channels)
    options = schema.PadOptionsT()
    version = 2  # the first that pads int8, by its zero point
    padded = c.emit("PAD", [data, c.integers(paddings)], shape, options, like=data, version=version)
    return padded, VALID


def _arrange(c: TfliteConversion, node: NodeProto, value: Array) -> tuple[Array, int]:
    """Weights as OHWI, or 1HWO if depthwise, and the axis of the output channels."""
    group = attributes(node).get("group", 1)
    if _is_depthwise(c, node, group):
        return value.transpose(1, 2, 3, 0), 3
    dense = make_dense(value, group) if group > 1 else value
    return dense.transpose(0, 2, 3, 1), 0


def _float_constants(c: TfliteConversion, node: NodeProto, value: Array, bias: Array) -> list[int]:
    names = (node.input[1], f"{node.input[1]}.bias")
    values = (_arrange(c, node, value)[0], bias)
    return [_float_constant(c, *each) for each in zip(names, values, strict=True)]


def _float_constant(c: TfliteConversion, name: str, value: Array) -> int:
    value = value.astype(np.float32)
    if not c.half:
        return c.model.constant(name, value)
    with np.errstate(over="ignore"):
        stored = value.astype(HALF)
    if not np.isfinite(stored).all():
        return c.model.constant(name, value)
    options = schema.DequantizeOptionsT()
    tensor = c.model.constant(name, stored)
    return c.emit("DEQUANTIZE", [tensor], value.shape, options, version=3)


def _int8_constants(
    c: TfliteConversion, node: NodeProto, weight: Weight, bias: Array, data: Quantization
) -> list[int]:
    """Weights with the file's own scales, and the bias in steps of data's scale times weight's."""
    value, axis = _arrange(c, node, weight.value)
    assert weight.scale is not None
    steps = weight.scale.astype(np.float64) * float(data.scale)
    rounded = np.rint(bias / steps).clip(-(2**31), 2**31 - 1).astype(np.int32)
    return [
        c.model.constant(node.input[1], value, Quantization(weight.scale, axis=axis)),
        c.model.constant(f"{node.input[1]}.bias", rounded, Quantization(steps)),
    ]


def _options(
    node: NodeProto, multiplier: int, padding: int, relu: bool
) -> tuple[str, schema.Conv2DOptionsT | schema.DepthwiseConv2DOptionsT]:
    """The operator and its options; `multiplier` is how many channels depthwise makes of each."""
    settings = attributes(node)
    options = schema.DepthwiseConv2DOptionsT() if multiplier else schema.Conv2DOptionsT()
    options.padding = padding
    options.strideH, options.strideW = settings.get("strides", [1, 1])
    options.dilationHFactor, options.dilationWFactor = settings.get("dilations", [1, 1])
    kind = schema.ActivationFunctionType
    options.fusedActivationFunction = kind.RELU if relu else kind.NONE
    if multiplier:
        options.depthMultiplier = multiplier
    return ("DEPTHWISE_CONV_2D" if multiplier else "CONV_2D"), options
