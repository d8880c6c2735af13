"""A graph pass that stores convolutions' weights in INT4, for benchmarks.studies.formats.

A scale for each output channel; or, in blocks, for so many weights in a row of the matrix (outputs,
inputs * height * width), which a Reshape brings back to four dimensions: TensorRT takes blocks in
the last two dimensions only.
"""

from collections.abc import Sequence

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper

from quantize.layers import Layer
from quantize.qdq import LEAST_SCALE, copy, set_nodes

OPSET = 21  # from which DequantizeLinear takes INT4 and blocks
LIMIT = 7


def store_weights_in_int4(
    model: ModelProto, layers: Sequence[Layer], block: int | None = None
) -> ModelProto:
    """Store these layers' weights in INT4; activations and biases stay as they are."""
    model = copy(model)
    next(o for o in model.opset_import if o.domain in ("", "ai.onnx")).version = OPSET
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = []
    for layer in layers:
        weight = numpy_helper.to_array(constants[layer.weight])
        matrix = weight.reshape(len(weight), -1)
        # Rows that are no multiple, such as those of depthwise kernels, have one scale.
        size = block if block and matrix.shape[1] % block == 0 else matrix.shape[1]
        levels, scales = _quantize(matrix, size)
        quantized, scale = f"{layer.weight}_quantized", f"{layer.weight}_scale"
        model.graph.initializer.remove(constants[layer.weight])
        by_channel = size == matrix.shape[1]
        made = layer.weight if by_channel else f"{layer.weight}_rows"
        stored = levels.reshape(weight.shape) if by_channel else levels
        scales = scales[:, 0] if by_channel else scales
        for name, values in ((quantized, stored.astype(ml_dtypes.int4)), (scale, scales)):
            model.graph.initializer.append(numpy_helper.from_array(values, name))
        dequantize = helper.make_node("DequantizeLinear", [quantized, scale], [made])
        options = {"axis": 0} if by_channel else {"axis": 1, "block_size": size}
        dequantize.attribute.extend(helper.make_attribute(*each) for each in options.items())
        nodes.append(dequantize)
        if not by_channel:
            shape = f"{layer.weight}_shape"
            model.graph.initializer.append(
                numpy_helper.from_array(np.array(weight.shape, np.int64), shape)
            )
            nodes.append(helper.make_node("Reshape", [made, shape], [layer.weight]))
    set_nodes(model, [*nodes, *model.graph.node])
    return model


def _quantize(
    matrix: NDArray[np.float32], size: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Whole numbers from -7 to 7, and a scale for each `size` of them in a row."""
    blocks = matrix.reshape(len(matrix), -1, size)
    scales = np.maximum(np.abs(blocks).max(axis=2) / LIMIT, LEAST_SCALE).astype(np.float32)
    return np.rint(blocks / scales[..., None]).reshape(matrix.shape), scales
