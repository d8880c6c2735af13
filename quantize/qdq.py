"""Graph passes that insert Q/DQ pairs, INT8 or FP8: QuantizeLinear (Q), DequantizeLinear (DQ).

Between the two an activation is 8 bits wide. A backend computes a convolution in INT8 where DQ
stand before its inputs and, in ONNX Runtime, Q after its result; it then fuses all of them, with
the ReLU between, into one operator.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from quantize.layers import Layer
from quantize.targets import Target

LEAST_SCALE = 1e-10  # of an activation or channel that is always zero
BIAS_LIMIT = 1 << 30  # of an int32 bias, with room for the sum that it is added to
FP8, FP8_LIMIT = ml_dtypes.float8_e4m3fn, 448.0


@dataclass(frozen=True)
class Range:
    """What 8 bits of an activation stand for; zero is always in it."""

    low: float
    high: float

    def parameters(self, signed: bool) -> tuple[np.float32, np.uint8 | np.int8]:
        """Scale and zero point: int8 around zero if `signed`, else uint8."""
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        if signed:
            return np.float32(max(-low, high, LEAST_SCALE) / 127), np.int8(0)
        scale = max(high - low, LEAST_SCALE) / 255
        return np.float32(scale), np.uint8(np.rint(-low / scale))

    def fp8_parameters(self) -> tuple[np.float32, NDArray]:
        """Scale and zero point of FP8, which has a sign and a zero of its own."""
        scale = max(-self.low, self.high, LEAST_SCALE) / FP8_LIMIT
        return np.float32(scale), np.zeros((), FP8)


def quantize_layers(
    model: ModelProto, layers: Sequence[Layer], ranges: Mapping[str, Range], target: Target
) -> ModelProto:
    """Apply both passes; `ranges` has one for each input and result of these layers."""
    model = quantize_activations(model, layers, ranges, target)
    return quantize_constants(model, layers, target)


def quantize_activations(
    model: ModelProto, layers: Sequence[Layer], ranges: Mapping[str, Range], target: Target
) -> ModelProto:
    """Insert a Q/DQ pair before these layers and, if the target says so, after their results.

    All readers of a result read its 8 bits. Any other activation is read in 8 bits by these layers
    alone, so a residual keeps its full precision.
    """
    model = copy(model)
    graph = model.graph
    results = {layer.result for layer in layers} if target.quantized_results else set()
    paired = results | {layer.input for layer in layers}
    convolutions = {layer.output for layer in layers}
    nodes = [n for value in graph.input if value.name in paired for n in _qdq_pair(value.name)]
    for node in graph.node:
        of_layer = node.output[0] in convolutions
        for place, name in enumerate(node.input):
            if name in results or (of_layer and place == 0 and name in paired):
                node.input[place] = _dequantized(name)
        nodes.append(node)
        nodes += [n for name in node.output if name in paired for n in _qdq_pair(name)]
    for name in sorted(paired):
        scale, zero_point = _parameters(ranges[name], target)
        _add_constants(model, {_scale(name): scale, _zero_point(name): zero_point})
    set_nodes(model, nodes)
    return model


def quantize_results(
    model: ModelProto, layers: Sequence[Layer], ranges: Mapping[str, Range]
) -> ModelProto:
    """Insert a uint8 Q/DQ pair after these layers' results, where none follows yet.

    For a graph that has its pairs before the layers: ONNX Runtime fuses no other convolution.
    """
    model = copy(model)
    quantized = {n.input[0] for n in model.graph.node if n.op_type == "QuantizeLinear"}
    results = {layer.result for layer in layers} - quantized
    nodes = []
    for node in model.graph.node:
        node.input[:] = [_dequantized(name) if name in results else name for name in node.input]
        nodes += [node, *(n for name in node.output if name in results for n in _qdq_pair(name))]
    for name in sorted(results):
        scale, zero_point = ranges[name].parameters(signed=False)
        _add_constants(model, {_scale(name): scale, _zero_point(name): zero_point})
    set_nodes(model, nodes)
    return model


def quantize_constants(model: ModelProto, layers: Sequence[Layer], target: Target) -> ModelProto:
    """Store the weights of these layers in 8 bits and, if the target says so, biases in int32.

    The layers' inputs must have their Q/DQ pairs already.
    """
    model = copy(model)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = []
    for layer in layers:
        input_scale = numpy_helper.to_array(constants[_scale(layer.input)])
        weight = numpy_helper.to_array(constants[layer.weight])
        bias = numpy_helper.to_array(constants[layer.bias]) if layer.bias else None
        least = np.abs(bias) / (input_scale * BIAS_LIMIT) if bias is not None else LEAST_SCALE
        if target.grid == "fp8":
            levels, scale = quantize_weight_to_fp8(weight)
        else:
            levels, scale = quantize_weight(weight, least, target.weight_limit)
        quantized = {layer.weight: (levels, scale)}
        if layer.bias and bias is not None and target.quantized_bias:
            bias_scale = (input_scale * scale).astype(np.float32)
            quantized[layer.bias] = (np.rint(bias / bias_scale).astype(np.int32), bias_scale)
        for name, (values, scales) in quantized.items():
            model.graph.initializer.remove(constants[name])
            _add_constants(model, {_quantized(name): values, _scale(name): scales})
            inputs = [_quantized(name), _scale(name)]
            nodes.append(_node("DequantizeLinear", inputs, name, 0))
    set_nodes(model, [*nodes, *model.graph.node])
    return model


def quantize_weight(
    weight: NDArray[np.float32], least_scale: NDArray[np.float32] | float, limit: int
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantize to int8 around zero with a scale per output channel, none under `least_scale`."""
    largest = np.abs(weight).reshape(len(weight), -1).max(axis=1)
    scale = np.maximum(largest / limit, np.maximum(least_scale, LEAST_SCALE)).astype(np.float32)
    levels = np.rint(weight / scale.reshape(-1, *[1] * (weight.ndim - 1)))
    return np.clip(levels, -limit, limit).astype(np.int8), scale


def quantize_weight_to_fp8(
    weight: NDArray[np.float32],
) -> tuple[NDArray, NDArray[np.float32]]:
    """Quantize to FP8 with a scale per output channel, whose largest weight is FP8's largest."""
    largest = np.abs(weight).reshape(len(weight), -1).max(axis=1)
    scale = np.maximum(largest / FP8_LIMIT, LEAST_SCALE).astype(np.float32)
    scaled = weight / scale.reshape(-1, *[1] * (weight.ndim - 1))
    return np.clip(scaled, -FP8_LIMIT, FP8_LIMIT).astype(FP8), scale


def copy(model: ModelProto) -> ModelProto:
    other = ModelProto()
    other.CopyFrom(model)
    return other


def _parameters(found: Range, target: Target) -> tuple[np.float32, NDArray | np.generic]:
    return found.fp8_parameters() if target.grid == "fp8" else found.parameters(target.signed)


def _qdq_pair(name: str) -> tuple[NodeProto, NodeProto]:
    parameters = [_scale(name), _zero_point(name)]
    return (
        _node("QuantizeLinear", [name, *parameters], _quantized(name)),
        _node("DequantizeLinear", [_quantized(name), *parameters], _dequantized(name)),
    )


def _node(kind: str, inputs: Sequence[str], output: str, axis: int | None = None) -> NodeProto:
    return helper.make_node(kind, inputs, [output], name=f"{output}_{kind}", axis=axis)


def _add_constants(model: ModelProto, values: Mapping[str, NDArray | np.generic]) -> None:
    for name, value in values.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))


def set_nodes(model: ModelProto, nodes: Iterable[NodeProto]) -> None:
    nodes = list(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _quantized(name: str) -> str:
    return f"{name}_quantized"


def _dequantized(name: str) -> str:
    return f"{name}_dequantized"


def _scale(name: str) -> str:
    return f"{name}_scale"


def _zero_point(name: str) -> str:
    return f"{name}_zero_point"
