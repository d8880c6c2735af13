"""An ONNX graph of one image, as a converter to another format reads it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper

from runtime.errors import EdgeError

Shape = tuple[int, ...]
Array = np.ndarray


class Graph:
    """The nodes, constants and shapes of a model whose batch is fixed to 1.

    `name` is for messages. Raises EdgeError if the shape of a value cannot be inferred.
    """

    def __init__(self, model: ModelProto, name: str) -> None:
        self.name = name
        self.constants: dict[str, Array] = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer
        }
        self.nodes: list[NodeProto] = []
        for node in model.graph.node:
            if node.op_type == "Constant":
                self.constants[node.output[0]] = numpy_helper.to_array(attributes(node)["value"])
            else:
                self.nodes.append(node)
        self.inputs = [value.name for value in model.graph.input]
        self.outputs = [value.name for value in model.graph.output]
        self.producer = {output: node for node in self.nodes for output in node.output}
        self._shapes = _infer_shapes(model)

    @cached_property
    def readers(self) -> Mapping[str, list[NodeProto]]:
        """The nodes that read each value, in the graph's order."""
        readers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for value in dict.fromkeys(node.input):
                readers[value].append(node)
        return readers

    def shape(self, value: str) -> Shape:
        """The shape of a value for one image."""
        if value in self.constants:
            return self.constants[value].shape
        shape = self._shapes.get(value)
        if shape is None or 0 in shape:
            raise EdgeError(
                f"{self.name}: the shape of {value} is not known before it runs;"
                " export it again: python -m export.onnx"
            )
        return shape

    def constant(self, node: NodeProto, index: int) -> Array | None:
        """The constant that a node reads as its input number `index`; None where it has none.

        EdgeError if that input is computed.
        """
        if index >= len(node.input) or not node.input[index]:
            return None
        value = node.input[index]
        if value not in self.constants:
            raise self.unsupported(node, f"{value} is computed, expected a constant")
        return self.constants[value]

    def required(self, node: NodeProto, index: int) -> Array:
        """The constant that a node reads as its input number `index`; EdgeError without one."""
        value = self.constant(node, index)
        if value is None:
            raise self.unsupported(node, f"it has no input {index}")
        return value

    def macs(self, node: NodeProto) -> int:
        """The multiply-adds of a convolution or a product of matrices; 0 of all else."""
        if node.op_type == "Conv":
            return prod(self.shape(node.input[1])) * prod(self.shape(node.output[0])[2:])
        if node.op_type == "MatMul":
            return prod(self.shape(node.output[0])) * self.shape(node.input[0])[-1]
        return 0

    def only_reader(self, value: str, op_type: str) -> NodeProto | None:
        """The node of `op_type` that alone reads a value; None if others do or see it outside."""
        readers = self.readers[value]
        if len(readers) == 1 and readers[0].op_type == op_type and value not in self.outputs:
            return readers[0]
        return None

    def unsupported(self, node: NodeProto, reason: str) -> EdgeError:
        """The error for a node that the converter cannot write."""
        called = node.name or node.output[0]
        return EdgeError(f"{self.name}: {node.op_type} {called!r} cannot be converted: {reason}")


def attributes(node: NodeProto) -> dict[str, Any]:
    """A node's attributes by name, as Python values; text as str."""
    values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {name: v.decode() if isinstance(v, bytes) else v for name, v in values.items()}


def _infer_shapes(model: ModelProto) -> dict[str, Shape | None]:
    fixed = ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]  # which was written for any batch
    for value in (*fixed.graph.input, *fixed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    graph = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
    shapes: dict[str, Shape | None] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        known = all(dim.HasField("dim_value") for dim in dims)
        shapes[value.name] = tuple(dim.dim_value for dim in dims) if known else None
    return shapes
