"""Graph passes that bring another engine's Q/DQ pairs to the zero points that a target computes."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from quantize.qdq import copy

Arrays = tuple[NDArray, NDArray]  # scale and zero point


def make_unsigned(model: ModelProto) -> ModelProto:
    """Turn int8 activations into uint8 ones with the zero point 128 higher: the same numbers.

    ONNX Runtime's fast kernels want uint8 activations, and OpenVINO computes int8 ones wrong.
    """

    def shifted(scale: NDArray, zero_point: NDArray) -> Arrays:
        if zero_point.dtype != np.int8:
            return scale, zero_point
        return scale, (zero_point.astype(np.int16) + 128).astype(np.uint8)

    return _change_activations(model, shifted)


def make_signed(model: ModelProto) -> ModelProto:
    """Turn uint8 activations around zero into int8 ones, with 255/127 times the scale.

    TensorRT's parser reads uint8 as int8 of the same scale, and clips all above half range. A zero
    point that is not 0 is left for export.gate to refuse.
    """

    def halved(scale: NDArray, zero_point: NDArray) -> Arrays:
        if zero_point.dtype != np.uint8 or zero_point.any():
            return scale, zero_point
        return (scale * np.float32(255 / 127)).astype(scale.dtype), zero_point.astype(np.int8)

    return _change_activations(model, halved)


def _change_activations(
    model: ModelProto, change: Callable[[NDArray, NDArray], Arrays]
) -> ModelProto:
    """Change scale and zero point of the pairs on activations; shapes noted in the graph go."""
    model = copy(model)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    changed: set[str] = set()
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear" or len(node.input) < 3 or node.input[2] in changed:
            continue
        tensors = [constants[name] for name in node.input[1:3]]
        arrays = change(*(numpy_helper.to_array(tensor) for tensor in tensors))
        for tensor, array in zip(tensors, arrays, strict=True):
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
            changed.add(tensor.name)
    del model.graph.value_info[:]
    return model
