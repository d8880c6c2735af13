"""The Q/DQ nodes of an ONNX graph in LiteRT's terms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from export.graph import Array, Graph
from export.tflite.model import Quantization


@dataclass(frozen=True)
class Stored:
    """A constant behind a DequantizeLinear: its numbers, and a scale for all or for each row."""

    value: Array
    scale: Array
    zero_point: int


def read_stored(graph: Graph, dequantize: NodeProto) -> Stored:
    """The constant of a DequantizeLinear; EdgeError if it has more than one zero point."""
    zero_points = graph.constant(dequantize, 2)
    distinct = np.zeros(1) if zero_points is None else np.unique(zero_points)
    if len(distinct) != 1:
        raise graph.unsupported(dequantize, "it has more than one zero point")
    scale = graph.required(dequantize, 1)
    return Stored(graph.required(dequantize, 0), scale, int(distinct[0]))


def int8_quantization(graph: Graph, quantize: NodeProto) -> Quantization:
    """The int8 that a QuantizeLinear makes; LiteRT has no uint8, whose zero point moves by 128."""
    scale, zero_point = graph.required(quantize, 1), graph.constant(quantize, 2)
    if scale.size != 1:
        raise graph.unsupported(quantize, "expected one scale for an activation")
    zero = 0 if zero_point is None else int(zero_point)
    signed = zero_point is not None and zero_point.dtype == np.int8
    return Quantization(np.asarray(scale, np.float32), zero if signed else zero - 128)
