"""The constants of a convolution in an ONNX graph, as they are or behind a DequantizeLinear."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from export.graph import Array, Graph


@dataclass(frozen=True)
class Weight:
    """The weights of a convolution (O, I / group, H, W), FP32, or int8 with a scale for each O."""

    value: Array
    scale: Array | None = None

    @property
    def dequantized(self) -> Array:
        if self.scale is None:
            return self.value
        return self.value * self.scale.reshape(-1, 1, 1, 1)


def read_weight(graph: Graph, convolution: NodeProto) -> Weight:
    """EdgeError if the weights are computed, or are not int8 around zero."""
    name = convolution.input[1]
    if name in graph.constants:
        return Weight(graph.constants[name])
    dequantize = graph.producer.get(name)
    if dequantize is None or dequantize.op_type != "DequantizeLinear":
        raise graph.unsupported(convolution, f"its weights {name} are computed")
    value, scale = graph.required(dequantize, 0), graph.required(dequantize, 1)
    zero_points = graph.constant(dequantize, 2)
    if value.dtype != np.int8 or (zero_points is not None and zero_points.any()):
        raise graph.unsupported(convolution, "its weights are not int8 around zero")
    return Weight(value, np.broadcast_to(scale, len(value)))


def read_bias(graph: Graph, convolution: NodeProto) -> Array | None:
    """The bias as real numbers; None where there is none."""
    if len(convolution.input) < 3 or not convolution.input[2]:
        return None
    dequantize = graph.producer.get(convolution.input[2])
    if dequantize is None:
        return graph.required(convolution, 2)
    value, scale = graph.required(dequantize, 0), graph.required(dequantize, 1)
    return value.astype(np.float64) * scale  # of int32, which FP32 does not hold


def int8_mac_share(graph: Graph) -> float:
    """The share of a graph's multiply-adds that are those of convolutions with int8 weights."""
    convolutions = [node for node in graph.nodes if node.op_type == "Conv"]
    quantized = [n for n in convolutions if read_weight(graph, n).scale is not None]
    return sum(map(graph.macs, quantized)) / max(1, sum(map(graph.macs, graph.nodes)))
