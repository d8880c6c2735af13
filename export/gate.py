"""The gate before every TensorRT build: graphs that TensorRT rejects or silently misinterprets.

TensorRT-RTX 1.7 was observed to build engines from opset 99, from infinite weights and, with a
warning, from uint8 Q/DQ pairs that it read as int8.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from export.contract import check_contract
from runtime.errors import EXIT_DRIFT, EdgeError

EIGHT_BITS = (TensorProto.INT8, TensorProto.UINT8, TensorProto.FLOAT8E4M3FN)
SIGNED = (TensorProto.INT8, TensorProto.FLOAT8E4M3FN)  # what TensorRT has quantized tensors of
PAIR = ("QuantizeLinear", "DequantizeLinear")
INTEGER_OPERATORS = ("QLinear", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear")
# Layers that the parsed network must have as often, and in the same types, as the graph.
COUNTED = {"Conv": "CONVOLUTION", "QuantizeLinear": "QUANTIZE", "DequantizeLinear": "DEQUANTIZE"}
TYPE_NAMES = {
    TensorProto.FLOAT: "FLOAT",
    TensorProto.FLOAT16: "HALF",
    TensorProto.INT8: "INT8",
    TensorProto.FLOAT8E4M3FN: "FP8",
}

Faults = Iterator[str]


def read_graph(content: bytes, name: str) -> ModelProto:
    """Parse an ONNX file that meets the contract; EdgeError for anything else."""
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise EdgeError(
            f"{name}: not an ONNX file, or truncated. Make it again: python -m export.onnx"
        ) from error
    try:
        check_contract(model)
    except EdgeError as error:
        raise EdgeError(f"{name}: {error}", error.status) from error
    return model


def check_for_tensorrt(model: ModelProto, name: str) -> None:
    """EdgeError with status 3 for the first fault that any of RULES finds, or with FP16 unused."""
    if unpacked := _unpacked_weights(model):
        raise EdgeError(
            f"{name}: {unpacked} is stored in FP16 and computed in FP32, which gains nothing in"
            " TensorRT; take fp16-trt.onnx: python -m quantize.fp16 --target tensorrt",
            EXIT_DRIFT,
        )
    for rule in RULES:
        for fault in rule(model):
            raise EdgeError(
                f"{name}: {fault}; TensorRT would reject it or compute something else. Quantize for"
                " it: python -m quantize.int8 --target tensorrt",
                EXIT_DRIFT,
            )


def stored_numbers_are_finite(model: ModelProto) -> Faults:
    """TensorRT silently compiles infinite weights, such as those that overflow in FP16."""
    for name, tensor in _constants(model).items():
        values = numpy_helper.to_array(tensor)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            yield f"{name} holds numbers that are not finite"


def qdq_pairs_are_int8_or_fp8(model: ModelProto) -> Faults:
    """TensorRT reads uint8 as int8 with the same scale: everything above half range is clipped."""
    constants = _constants(model)
    for node in _pairs(model):
        zero_point = constants.get(node.input[2]) if len(node.input) > 2 else None
        if zero_point is None:
            if node.op_type == "QuantizeLinear":
                yield f"{_called(node)} has no constant zero point, so is uint8"
        elif zero_point.data_type not in SIGNED:
            yield f"{_called(node)} is {_type(zero_point)}, expected int8 or float8e4m3fn"


def zero_points_are_zero(model: ModelProto) -> Faults:
    constants = _constants(model)
    for node in _pairs(model):
        zero_point = constants.get(node.input[2]) if len(node.input) > 2 else None
        if zero_point is not None and np.any(numpy_helper.to_array(zero_point).astype(np.float32)):
            yield f"{_called(node)} has a zero point that is not 0"


def dequantized_constants_are_int8_or_fp8(model: ModelProto) -> Faults:
    """Reject biases quantized to int32: TensorRT expects them in the accumulator's type."""
    constants = _constants(model)
    for node in _pairs(model):
        stored = constants.get(node.input[0])
        if stored is not None and stored.data_type not in SIGNED:
            yield (
                f"{_called(node)} reads {stored.name}, which is {_type(stored)}, expected int8 or"
                " float8e4m3fn"
            )


def quantized_constants_are_dequantized(model: ModelProto) -> Faults:
    constants = _constants(model)
    for node in model.graph.node:
        first = 1 if node.op_type == "DequantizeLinear" else 0
        last = 2 if node.op_type in PAIR else None  # the third is the zero point
        for name in node.input[first:last]:
            if name in constants and constants[name].data_type in EIGHT_BITS:
                yield f"{_called(node)} reads {name} in 8 bits without a DequantizeLinear"


def quantized_activations_are_dequantized(model: ModelProto) -> Faults:
    """Q and DQ come in pairs: TensorRT has no integer operators."""
    made = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type.startswith(INTEGER_OPERATORS):
            yield f"{_called(node)} is a {node.op_type}, expected QuantizeLinear-DequantizeLinear"
        for name in node.input:
            quantized = name in made and made[name].op_type == "QuantizeLinear"
            if quantized and node.op_type != "DequantizeLinear":
                yield f"{_called(node)} reads {name} in 8 bits without a DequantizeLinear"


def scales_are_positive(model: ModelProto) -> Faults:
    constants = _constants(model)
    for node in _pairs(model):
        scale = constants.get(node.input[1])
        if scale is None:
            yield f"{_called(node)} has a scale that is computed, expected a constant"
        elif not (numpy_helper.to_array(scale) > 0).all():
            yield f"{_called(node)} has a scale that is not over 0"


def activations_have_one_scale(model: ModelProto) -> Faults:
    """Only weights, which are constants, may have per-channel scales."""
    constants = _constants(model)
    for node in _pairs(model):
        scale = constants.get(node.input[1])
        if node.input[0] not in constants and scale is not None and np.prod(scale.dims) > 1:
            yield f"{_called(node)} has {np.prod(scale.dims)} scales, expected one per tensor"


def _unpacked_weights(model: ModelProto) -> str | None:
    """The first FP16 constant that a Cast makes float32."""
    constants = _constants(model)
    for node in model.graph.node:
        stored = constants.get(node.input[0]) if node.op_type == "Cast" else None
        if stored is not None and stored.data_type == TensorProto.FLOAT16:
            return stored.name
    return None


RULES: tuple[Callable[[ModelProto], Faults], ...] = (
    stored_numbers_are_finite,
    qdq_pairs_are_int8_or_fp8,
    zero_points_are_zero,
    dequantized_constants_are_int8_or_fp8,
    quantized_constants_are_dequantized,
    quantized_activations_are_dequantized,
    scales_are_positive,
    activations_have_one_scale,
)


def types_of(model: ModelProto) -> dict[str, dict[str, int]]:
    """Count the convolutions, Q and DQ nodes by output type, in TensorRT's terms.

    {"CONVOLUTION": {"HALF": 89}, ...} is compared with the network that TensorRT parsed.
    """
    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {
        value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)
    }
    counts: dict[str, Counter[str]] = {}
    for node in graph.node:
        if node.op_type in COUNTED:
            made = types.get(node.output[0], TensorProto.UNDEFINED)
            kind = TYPE_NAMES.get(made, TensorProto.DataType.Name(made))
            counts.setdefault(COUNTED[node.op_type], Counter())[kind] += 1
    return {layer: dict(kinds) for layer, kinds in counts.items()}


def _constants(model: ModelProto) -> Mapping[str, TensorProto]:
    """Map names to stored tensors: initializers and Constant nodes."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = helper.get_attribute_value(node.attribute[0])
    return constants


def _pairs(model: ModelProto) -> Iterator[NodeProto]:
    return (node for node in model.graph.node if node.op_type in PAIR)


def _called(node: NodeProto) -> str:
    return node.name or f"the {node.op_type} of {node.output[0]}"


def _type(tensor: TensorProto) -> str:
    return TensorProto.DataType.Name(tensor.data_type).lower()
