"""Graph passes for FP16: weights stored in it, arithmetic in it, and a proxy for the latter."""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from quantize.qdq import copy, set_nodes

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
MAKING = {int(FLOAT): "_single", int(HALF): "_half"}  # what the casts of each pass are called
ROUNDING = {int(FLOAT): "_rounded"}
# Sums over many values, which may overflow, and what divides by a small one, which may vanish.
IN_FP32 = ("ReduceL2", "ReduceMean", "Clip", "Div", "LayerNormalization", "Softmax", "Pow", "Sqrt")
FLOAT_BY_SCHEMA = {"Resize": (1, 2)}  # region and scales are float32 whatever is resized

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")  # whose second input may be weights


def store_weights_in_half(model: ModelProto) -> ModelProto:
    """Store the weights in FP16 and compute in FP32: a Cast follows each, which runtimes fold.

    No operator reads or makes FP16, so a runtime's FP16 kernels have no part in it.
    """
    model = store_constants(model)
    weights = {node.input[1] for node in model.graph.node if node.op_type in WEIGHTED}
    casts: list[NodeProto] = []
    for tensor in model.graph.initializer:
        if tensor.name in weights and tensor.data_type == FLOAT:
            casts.append(_cast(f"{tensor.name}_half", tensor.name, FLOAT))
            tensor.CopyFrom(_cast_constant(tensor, f"{tensor.name}_half", HALF))
    set_nodes(model, [*casts, *model.graph.node])
    return model


def to_half(model: ModelProto) -> ModelProto:
    """Compute in FP16 all but IN_FP32; input and output stay float32.

    The scales of pairs become FP16 with the values, for which the opset must be 19 or newer.
    """
    model = store_constants(model)
    values = _Values(model, MAKING)
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        kind = FLOAT if node.op_type in IN_FP32 else HALF
        by_schema = FLOAT_BY_SCHEMA.get(node.op_type, ())
        for place, name in enumerate(node.input):
            node.input[place] = values.read(name, FLOAT if place in by_schema else kind, nodes)
        nodes.append(node)
        values.made(node, kind)
    for value in model.graph.output:
        if values.types.get(value.name) == HALF:
            _rename(nodes, value.name, f"{value.name}_half")
            nodes.append(_cast(f"{value.name}_half", value.name, FLOAT))
    _finish(model, nodes)
    return model


def round_to_half(model: ModelProto) -> ModelProto:
    """What `to_half` makes, computed in FP32 and each value rounded to FP16 after it.

    So a GPU computes that sums in FP32; quantize.fp16_sums is for processors that sum in FP16.
    """
    model = to_half(model)
    values = _Values(model, ROUNDING)
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        if node.op_type == "Cast":
            nodes.append(node)
            continue
        for place, name in enumerate(node.input):
            node.input[place] = values.read(name, FLOAT, nodes)
        halves = [name for name in node.output if values.types.get(name) == HALF]
        nodes.append(node)
        for name in halves:
            node.output[list(node.output).index(name)] = f"{name}_exact"
            nodes.append(_cast(f"{name}_exact", name, HALF))
    _finish(model, nodes)
    return model


class _Values:
    """The values of a graph as it is rewritten: of which kind each is, and its casts so far."""

    def __init__(self, model: ModelProto, suffixes: Mapping[int, str]) -> None:
        self.types = _types(model)
        self._suffixes = suffixes
        self._graph = model.graph
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._casts: set[str] = set()

    def read(self, name: str, kind: int, nodes: list[NodeProto]) -> str:
        """The name of this value in this kind; nodes get the cast. What is no float stays."""
        if self.types.get(name, kind) == kind:
            return name
        cast = name + self._suffixes[kind]
        if cast not in self._casts:
            self._casts.add(cast)
            if name in self._constants:
                self._graph.initializer.append(_cast_constant(self._constants[name], cast, kind))
            else:
                nodes.append(_cast(name, cast, kind))
        return cast

    def made(self, node: NodeProto, kind: int) -> None:
        """Note that this node's floats are now of this kind."""
        self.types.update((name, kind) for name in node.output if name in self.types)


def _types(model: ModelProto) -> dict[str, int]:
    """The kinds of all floating-point values; shapes noted in the graph go, with their kinds."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    del model.graph.value_info[:]
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        types[value.name] = value.type.tensor_type.elem_type
    return {name: kind for name, kind in types.items() if kind in (FLOAT, HALF)}


def store_constants(model: ModelProto) -> ModelProto:
    """A copy whose Constant nodes are initializers."""
    model = copy(model)
    for node in model.graph.node:
        if node.op_type == "Constant":
            value = helper.get_attribute_value(node.attribute[0])
            tensor = value if isinstance(value, TensorProto) else numpy_helper.from_array(value)
            tensor.name = node.output[0]
            model.graph.initializer.append(tensor)
    set_nodes(model, [node for node in model.graph.node if node.op_type != "Constant"])
    return model


def _cast_constant(constant: TensorProto, name: str, kind: int) -> TensorProto:
    with np.errstate(over="ignore"):  # infinity is seen when it is measured
        values = numpy_helper.to_array(constant).astype(helper.tensor_dtype_to_np_dtype(kind))
    return numpy_helper.from_array(values, name)


def _rename(nodes: list[NodeProto], old: str, new: str) -> None:
    for node in nodes:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]


def _finish(model: ModelProto, nodes: list[NodeProto]) -> None:
    """Set the nodes, and drop the constants that none of them reads."""
    set_nodes(model, nodes)
    read = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def _cast(source: str, made: str, kind: int) -> NodeProto:
    return helper.make_node("Cast", [source], [made], name=f"{made}_cast", to=kind)
