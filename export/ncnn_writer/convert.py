"""An ONNX graph of the project's contract as a ncnn network, its Q/DQ scales carried one by one.

ncnn has no batch: a value of (1, C, H, W) is one of (C, H, W) there. A quantized convolution takes
FP32, rounds it to int8 by its own scale, and gives FP32 back: no Q/DQ node stands outside of one.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx import ModelProto

from export.graph import Graph
from export.ncnn_writer.conversion import NcnnConversion
from export.ncnn_writer.layers import write
from export.ncnn_writer.network import sizes


@dataclass(frozen=True)
class NcnnConverted:
    """The two files, and the share of the multiply-adds that they say is in INT8."""

    param: bytes
    bin: bytes
    int8_mac_share: float


def convert(model: ModelProto, name: str, *, half: bool = False) -> NcnnConverted:
    """Write lr (3, S, S) -> sr (3, 128, 128), with the numbers of the ONNX graph.

    `half` stores the weights of convolutions in FP16. EdgeError names an operator without a writer.
    """
    graph = Graph(model, name)
    c = NcnnConversion(graph, half)
    for value in graph.inputs:
        c.network.add("Input", [], [value], sizes(c.shape(value)))
    for node in graph.nodes:
        write(c, node)
    for value in graph.outputs:
        if c.read(value) != value:
            raise graph.unsupported(graph.producer[value], "it makes the output")
    total = sum(map(graph.macs, graph.nodes))
    return NcnnConverted(c.network.param(), c.network.bin(), c.int8_macs / max(1, total))
