"""The convolutions of a graph that can be quantized, and its multiply-adds."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import onnx
from onnx import ModelProto, NodeProto

LEAST_CHANNELS = 8  # INT8 kernels gain nothing on narrower results
# The error of a layer that reads the image runs through the whole network, and the worst faces show
# it: a first layer with less than this share of the multiply-adds stays FP32.
LEAST_FIRST_SHARE = 0.01

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """A convolution: its input and output activations, its constants, its cost.

    `node` is the operator's name. `result` is the output after the ReLU that follows, else the
    output itself. `macs` are the multiply-adds of one image.
    """

    name: str
    node: str
    input: str
    output: str
    result: str
    weight: str
    bias: str | None
    macs: int


def module_name(convolution: NodeProto) -> str:
    """The network's module that a convolution with constant weights was exported from."""
    return convolution.input[1].removesuffix(".weight")


def find_layers(model: ModelProto) -> tuple[Layer, ...]:
    """The convolutions worth quantizing, in the graph's order."""
    return tuple(layer for layer, reason in _convolutions(model) if reason is None)


def layers_always_fp32(model: ModelProto) -> dict[str, str]:
    """The names of the other convolutions, and why they are not quantized."""
    return {layer.name: reason for layer, reason in _convolutions(model) if reason}


def _convolutions(model: ModelProto) -> list[tuple[Layer, str | None]]:
    """Each convolution with constant weights, and why it stays FP32, else None."""
    shapes = activation_shapes(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    uses = Counter(name for node in model.graph.node for name in node.input)
    total = total_macs(model)
    found = []
    for node in model.graph.node:
        if node.op_type == "Conv" and set(node.input[1:]) <= constants:
            layer = _layer(model, node, count_macs(node, shapes))
            found.append((layer, _why_fp32(model, node, layer, shapes, uses, total)))
    return found


def _why_fp32(
    model: ModelProto,
    node: NodeProto,
    layer: Layer,
    shapes: Mapping[str, Shape],
    uses: Mapping[str, int],
    total: int,
) -> str | None:
    output, weight = shapes[layer.output], shapes[layer.weight]
    group = next((a.i for a in node.attribute if a.name == "group"), 1)
    inputs = {value.name for value in model.graph.input}
    outputs = {value.name for value in model.graph.output}
    if group not in (1, weight[0]):
        return f"{group} groups of channels, neither dense nor depthwise"
    if len(output) != 4 or prod(output[2:]) <= 1:
        return "one pixel"
    if output[1] < LEAST_CHANNELS:
        return f"{output[1]} channels, INT8 kernels gain from {LEAST_CHANNELS} on"
    if max(uses[name] for name in node.input[1:]) > 1:
        return "shares its weights with another layer"
    if layer.result in outputs:
        return "makes the network's output"
    if layer.input in inputs and layer.macs < LEAST_FIRST_SHARE * total:
        return f"reads the image, {layer.macs / total:.1%} of the multiply-adds"
    return None


def total_macs(model: ModelProto) -> int:
    """The multiply-adds of one image, of convolutions and matrix products."""
    shapes = activation_shapes(model)
    return sum(count_macs(node, shapes) for node in model.graph.node)


def count_macs(node: NodeProto, shapes: Mapping[str, Shape]) -> int:
    """The multiply-adds of a node for one image; 0 for all but convolutions and products."""
    if node.op_type == "Conv":
        return prod(shapes[node.input[1]]) * prod(shapes[node.output[0]][2:])
    if node.op_type == "ConvTranspose":
        return prod(shapes[node.input[1]]) * prod(shapes[node.input[0]][2:])
    if node.op_type == "MatMul":
        return prod(shapes[node.output[0]][1:]) * shapes[node.input[0]][-1]
    return 0


def activation_shapes(model: ModelProto) -> dict[str, Shape]:
    """The shapes of all activations and constants; the batch and unknown sizes count as 1."""
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        shapes[value.name] = tuple(dim.dim_value or 1 for dim in dims)
    return shapes


def _layer(model: ModelProto, node: NodeProto, macs: int) -> Layer:
    output = node.output[0]
    readers = [reader for reader in model.graph.node if output in reader.input]
    fused = len(readers) == 1 and readers[0].op_type == "Relu"
    return Layer(
        name=module_name(node),
        node=node.name or output,
        input=node.input[0],
        output=output,
        result=readers[0].output[0] if fused else output,
        weight=node.input[1],
        bias=node.input[2] if len(node.input) > 2 else None,
        macs=macs,
    )
