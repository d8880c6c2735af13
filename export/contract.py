"""The ONNX contract: what every artifact of the project looks like from outside."""

import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto

from runtime.errors import EdgeError
from runtime.image import LR_SIDE, SR_SIDE

OPSET = 20
BATCH = "batch"
INPUT = ("lr", (BATCH, 3, LR_SIDE, LR_SIDE))
OUTPUT = ("sr", (BATCH, 3, SR_SIDE, SR_SIDE))
_MEND = "export with the versions in constraints.txt"


def check_contract(model: ModelProto) -> None:
    """EdgeError unless the model is valid, of this opset alone, whole, and lr -> sr."""
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise EdgeError(f"the exported graph has weights in other files; {_MEND}")
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = str(error).splitlines()[0]
        raise EdgeError(f"the exported graph is not valid ONNX: {reason}; {_MEND}") from error
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if opsets != {"": OPSET} or model.functions:
        raise EdgeError(f"the exported graph is of opset {opsets}, expected {OPSET}; {_MEND}")
    _check_values("input", model.graph.input, INPUT)
    _check_values("output", model.graph.output, OUTPUT)


def shape_of(value: ValueInfoProto) -> tuple[int | str, ...]:
    """Sizes and names of dimensions; "" for a dimension of which nothing is known."""
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in dims)


def _check_values(kind: str, values: list[ValueInfoProto], expected: tuple) -> None:
    found = [(value.name, shape_of(value)) for value in values]
    types = [value.type.tensor_type.elem_type for value in values]
    if found != [expected] or types != [TensorProto.FLOAT]:
        name, shape = expected
        listed = ", ".join(f"{name} {shape}" for name, shape in found)
        raise EdgeError(
            f"the exported graph's {kind} is {listed}, expected {name} float32 {shape}; {_MEND}"
        )
