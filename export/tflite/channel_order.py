"""Put the channels before a pixel shuffle in LiteRT's order, by permuting the convolutions there.

ONNX's mode CRD (torch's pixel_shuffle) has channel c, row y and column x of a block of r x r at
c r r + y r + x; DEPTH_TO_SPACE has it at (y r + x) C + c, as mode DCR has.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from export.graph import Array, Graph, attributes

POINTWISE = ("Relu", "QuantizeLinear", "DequantizeLinear")


def crd_to_dcr(model: ModelProto, name: str) -> ModelProto:
    """The same function with DepthToSpace in mode DCR, wherever convolutions alone make its input.

    Elsewhere (a value with other readers, another operator) the node stays in mode CRD.
    """
    result = ModelProto()
    result.CopyFrom(model)
    graph = Graph(result, name)
    for node in graph.nodes:
        settings = attributes(node)
        if node.op_type != "DepthToSpace" or settings.get("mode", "DCR") != "CRD":
            continue
        if convolutions := _makers(graph, node.input[0]):
            block = settings["blocksize"]
            channels = graph.shape(node.input[0])[1]
            order = np.arange(channels).reshape(-1, block * block).T.ravel()
            for convolution in convolutions:
                _permute(graph, convolution, order)
            next(a for a in node.attribute if a.name == "mode").s = b"DCR"
    for tensor in result.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(graph.constants[tensor.name], tensor.name))
    return result


def _makers(graph: Graph, value: str) -> list[NodeProto]:
    """The convolutions of which a value is made, through sums and per-tensor operators.

    Empty if its channels cannot be put in another order without somebody else seeing it.
    """
    node = graph.producer.get(value)
    if node is None or len(graph.readers[value]) != 1 or value in graph.outputs:
        return []
    if node.op_type == "Conv":
        mine = all(len(graph.readers[name]) == 1 for name in _outputs_by_channel(graph, node))
        return [node] if mine else []
    if node.op_type == "Add" and graph.shape(node.input[0]) == graph.shape(node.input[1]):
        branches = [_makers(graph, name) for name in node.input]
        return [*branches[0], *branches[1]] if all(branches) else []
    per_tensor = all(graph.constants[name].size == 1 for name in node.input[1:] if name)
    return _makers(graph, node.input[0]) if node.op_type in POINTWISE and per_tensor else []


def _outputs_by_channel(graph: Graph, convolution: NodeProto) -> list[str]:
    """The names of its constants with an entry for each output channel: weights, bias, scales."""
    names: list[str] = []
    for name in convolution.input[1:]:
        stored = graph.producer.get(name)
        names += [name] if stored is None else list(stored.input)
    return names


def _permute(graph: Graph, convolution: NodeProto, order: Array) -> None:
    group = attributes(convolution).get("group", 1)
    for name in _outputs_by_channel(graph, convolution):
        value = graph.constants[name]
        if value.ndim == 4 and group > 1:
            value = make_dense(value, group)
        if value.ndim and value.shape[0] == len(order):
            value = value[order]
        graph.constants[name] = value
    others = [a for a in convolution.attribute if a.name != "group"]
    del convolution.attribute[:]
    convolution.attribute.extend([*others, helper.make_attribute("group", 1)])


def make_dense(weight: Array, group: int) -> Array:
    """The weights (O, I / group, H, W) of a grouped convolution as (O, I, H, W) of a dense one."""
    outputs, inputs = weight.shape[:2]
    dense = np.zeros((outputs, inputs * group, *weight.shape[2:]), weight.dtype)
    for number, rows in enumerate(np.split(np.arange(outputs), group)):
        dense[rows, number * inputs : (number + 1) * inputs] = weight[rows]
    return dense
