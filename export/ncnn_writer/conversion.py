"""What the layers' writers share: the values of an ONNX graph as blobs of a ncnn network."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import NodeProto

from export.graph import Graph, Shape
from export.ncnn_writer.network import NcnnNetwork, Value, plain, sizes


class NcnnConversion:
    """A graph whose nodes become layers of `network` one after the other."""

    def __init__(self, graph: Graph, half: bool) -> None:
        self.graph = graph
        self.half = half
        self.network = NcnnNetwork()
        self.int8_macs = 0
        self._constants = 0
        self._written: set[str] = set()
        self._same_as: dict[str, str] = {}  # values that are no layer's: of Q and DQ

    def read(self, value: str) -> str:
        """The blob of a value; a constant becomes a layer of its own each time."""
        value = self._same_as.get(value, value)
        if value not in self.graph.constants:
            return value
        array = np.asarray(self.graph.constants[value], np.float32)
        shape = array.shape[1:] if array.ndim == 4 and array.shape[0] == 1 else array.shape or (1,)
        self._constants += 1
        blob = f"constant_{self._constants}"
        self.network.add("MemoryData", [], [blob], sizes(shape), [plain(array)])
        return blob

    def link(self, value: str, same: str) -> None:
        """Say that a value is another one."""
        self._same_as[value] = self._same_as.get(same, same)

    def mark_written(self, node: NodeProto) -> None:
        """A node that another one's writer has taken care of."""
        self._written.add(node.output[0])

    def is_written(self, node: NodeProto) -> bool:
        return node.output[0] in self._written

    def shape(self, value: str) -> Shape:
        """Without the batch."""
        return self.graph.shape(value)[1:]

    def axis(self, node: NodeProto, axis: int, rank: int) -> int:
        """An axis of ONNX without the batch, which may not be meant."""
        if axis % rank == 0:
            raise self.graph.unsupported(node, "it works on the batch")
        return axis % rank - 1

    def add(
        self, kind: str, node: NodeProto, parameters: Mapping[int, Value] | None = None
    ) -> None:
        """Add a layer of the node's first input and output."""
        self.network.add(kind, [self.read(node.input[0])], [node.output[0]], parameters)
