"""The convolutions of a graph that can be quantized, and what a graph computes altogether."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import onnx
from onnx import ModelProto, NodeProto

LEAST_CHANNELS = 8  # INT8 kernels gain nothing on narrower results
# Errors of what reads the picture run through the whole network, and the worst faces show them.
LEAST_FIRST_SHARE = 0.01  # of the multiply-adds: a first layer with less stays exact

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """A convolution: the values that it reads and makes, its constants, what it computes.

    `node` is the operator's name. `made` is what the convolution itself makes, `result` what the
    activation that follows makes of it, else the same. `macs` are the multiply-adds of one face.
    """

    name: str
    node: str
    source: str
    made: str
    result: str
    weight: str
    bias: str | None
    macs: int


def find_layers(model: ModelProto) -> tuple[Layer, ...]:
    """The convolutions worth quantizing, in the graph's order.

    Dense or depthwise ones with constant weights, more than one pixel and LEAST_CHANNELS: not
    AMINet's fixed enlargement, its attention units and its maps of weights; nor a small one that
    reads the picture itself.
    """
    shapes = value_shapes(model)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    layers = []
    for node in model.graph.node:
        if node.op_type != "Conv" or not set(node.input[1:]) <= constants.keys():
            continue
        weight, made = constants[node.input[1]], shapes[node.output[0]]
        group = next((a.i for a in node.attribute if a.name == "group"), 1)
        if group in (1, weight.dims[0]) and made[1] >= LEAST_CHANNELS and prod(made[2:]) > 1:
            layers.append(_layer(model, node, count_macs(node, shapes)))
    outputs = {value.name for value in model.graph.output}
    return tuple(
        layer
        for layer in layers
        if layer.result not in outputs and not _is_small_first(model, layer)
    )


def _is_small_first(model: ModelProto, layer: Layer) -> bool:
    inputs = {value.name for value in model.graph.input}
    return layer.source in inputs and layer.macs < LEAST_FIRST_SHARE * total_macs(model)


def total_macs(model: ModelProto) -> int:
    """The multiply-adds of one face, of convolutions and matrix products."""
    shapes = value_shapes(model)
    return sum(count_macs(node, shapes) for node in model.graph.node)


def count_macs(node: NodeProto, shapes: Mapping[str, Shape]) -> int:
    """The multiply-adds of a node for one face; 0 for all but convolutions and products."""
    if node.op_type == "Conv":
        return prod(shapes[node.input[1]]) * prod(shapes[node.output[0]][2:])
    if node.op_type == "MatMul":
        return prod(shapes[node.output[0]][1:]) * shapes[node.input[0]][-1]
    return 0


def value_shapes(model: ModelProto) -> dict[str, Shape]:
    """The shapes of all values; the batch and what is not known count as 1."""
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        shapes[value.name] = tuple(dim.dim_value or 1 for dim in dims)
    return shapes


def _layer(model: ModelProto, node: NodeProto, macs: int) -> Layer:
    made = node.output[0]
    readers = [reader for reader in model.graph.node if made in reader.input]
    fused = len(readers) == 1 and readers[0].op_type == "Relu"
    return Layer(
        name=node.input[1].removesuffix(".weight"),
        node=node.name or made,
        source=node.input[0],
        made=made,
        result=readers[0].output[0] if fused else made,
        weight=node.input[1],
        bias=node.input[2] if len(node.input) > 2 else None,
        macs=macs,
    )
