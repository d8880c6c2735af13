"""What TensorRT would silently get wrong is refused before a file is written."""

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper

from runtime.errors import EXIT_DRIFT, EdgeError

EIGHT_BITS = (TensorProto.INT8, TensorProto.UINT8)


def check_for_tensorrt(model: ModelProto, name: str) -> None:
    """EdgeError unless all pairs are int8 around zero and only weights are stored quantized.

    TensorRT's parser reads uint8 as int8 with the same scale, and only warns.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            stored = [i for i in node.input if i in constants and _is_eight_bits(constants[i])]
            if stored:
                raise _refusal(name, node.name, f"reads {stored[0]} without a DequantizeLinear")
            continue
        if node.op_type == "QuantizeLinear" and len(node.input) < 3:
            raise _refusal(name, node.name, "has no zero point, so is uint8")
        if len(node.input) > 2:
            zero_point = constants[node.input[2]]
            if zero_point.data_type != TensorProto.INT8:
                raise _refusal(name, node.name, "is not int8")
            if np.any(numpy_helper.to_array(zero_point)):
                raise _refusal(name, node.name, "has a zero point that is not 0")
        stored_tensor = constants.get(node.input[0])
        if stored_tensor is not None and stored_tensor.data_type != TensorProto.INT8:
            raise _refusal(name, node.name, f"reads {stored_tensor.name}, which is not int8")


def _is_eight_bits(tensor: TensorProto) -> bool:
    return tensor.data_type in EIGHT_BITS


def _refusal(name: str, node: str, reason: str) -> EdgeError:
    return EdgeError(
        f"{name}: {node} {reason}; TensorRT would compute something else; quantize it with"
        " python -m quantize.int8 --target tensorrt",
        EXIT_DRIFT,
    )
