"""The ONNX contract: the interface that every artifact of the project has."""

import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto

from runtime.errors import EdgeError
from runtime.image import LR_SIDE, SR_SIDE

OPSET = 20
BATCH = "batch"  # name of the dynamic dimension
INPUT, OUTPUT = "lr", "sr"
_FIX = "export with the versions in constraints.txt"

Shape = tuple[int | str, ...]


def check_contract(model: ModelProto, lr_side: int | None = None) -> None:
    """Raise EdgeError unless the model is valid, self-contained, of OPSET alone and maps lr to sr.

    lr is float32 (batch, 3, S, S) with S = `lr_side` (any side where it is None), sr float32
    (batch, 3, 128, 128).
    """
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise EdgeError(f"the exported graph has weights in other files; {_FIX}")
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = str(error).splitlines()[0]
        raise EdgeError(f"the exported graph is not valid ONNX: {reason}; {_FIX}") from error
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if opsets != {"": OPSET} or model.functions:
        raise EdgeError(f"the exported graph is of opset {opsets}, expected {OPSET}; {_FIX}")
    side = lr_side or lr_side_of(model)
    _check_values("input", model.graph.input, INPUT, (BATCH, 3, side, side))
    _check_values("output", model.graph.output, OUTPUT, (BATCH, 3, SR_SIDE, SR_SIDE))


def lr_side_of(model: ModelProto) -> int:
    """The side S of the input lr (batch, 3, S, S); 16, the paper's, if there is no such input."""
    for value in model.graph.input:
        shape = shape_of(value)
        if value.name == INPUT and len(shape) == 4 and isinstance(shape[-1], int) and shape[-1]:
            return shape[-1]
    return LR_SIDE


def shape_of(value: ValueInfoProto) -> Shape:
    """Sizes and names of dimensions; "" for an unknown dimension."""
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in dims)


def _check_values(kind: str, values: list[ValueInfoProto], name: str, shape: Shape) -> None:
    found = [(value.name, shape_of(value)) for value in values]
    types = [value.type.tensor_type.elem_type for value in values]
    if found != [(name, shape)] or types != [TensorProto.FLOAT]:
        listed = ", ".join(f"{name} {shape}" for name, shape in found)
        raise EdgeError(
            f"the exported graph's {kind} is {listed}, expected {name} float32 {shape}; {_FIX}"
        )
