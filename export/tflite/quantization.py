"""The activations of a Q/DQ graph in LiteRT's terms."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from export.graph import Graph
from export.tflite.model import Quantization


def int8_quantization(graph: Graph, quantize: NodeProto) -> Quantization:
    """The int8 that a QuantizeLinear makes; LiteRT has no uint8, whose zero point moves by 128."""
    scale, zero_point = graph.required(quantize, 1), graph.constant(quantize, 2)
    if scale.size != 1:
        raise graph.unsupported(quantize, "expected one scale for an activation")
    zero = 0 if zero_point is None else int(zero_point)
    signed = zero_point is not None and zero_point.dtype == np.int8
    return Quantization(np.asarray(scale, np.float32), zero if signed else zero - 128)
