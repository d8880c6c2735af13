"""Graph passes, each a function ModelProto -> ModelProto that does not change its argument.

They expect a graph without control flow, as the exporter emits. The caller proves that the outputs
are unchanged (export.parity).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import onnx
from onnx import GraphProto, ModelProto, NodeProto

from export.contract import shape_of
from runtime.errors import needs
from runtime.telemetry import disable_telemetry

Pass = Callable[[ModelProto], ModelProto]
Shape = tuple[int | str, ...]
Proto = TypeVar("Proto", ModelProto, NodeProto)

BROADCASTING = ("Add", "Sub", "Mul", "Div")


def fold_constants(model: ModelProto) -> ModelProto:
    """Fold constants and remove no-ops by onnxsim."""
    disable_telemetry()  # onnxsim imports onnxruntime
    with needs("export"):
        import onnxsim
    simplified, _ = onnxsim.simplify(model)  # its own check is on random inputs: ours is parity
    return simplified


def drop_expands(model: ModelProto) -> ModelProto:
    """Bypass each Expand whose consumer broadcasts to the same shape by itself.

    F.normalize leaves two in each attention, with the shape arithmetic. Where the shapes are not
    known to be equal, the Expand stays.
    """
    model = _copy(model)
    shapes = _shapes(model)
    sources = {e.output[0]: e.input[0] for e in model.graph.node if e.op_type == "Expand"}
    for node in model.graph.node:
        if node.op_type in BROADCASTING:
            for place, name in enumerate(node.input):
                others = [other for other in node.input if other != name]
                if name in sources and any(_same_shape(name, other, shapes) for other in others):
                    node.input[place] = sources[name]
    return model


def merge_pixel_shuffles(model: ModelProto) -> ModelProto:
    """Rewrite the sum of two pixel shuffles as one shuffle of the sum.

    The residual of a network whose body works at a low resolution is such a sum.
    """
    model = _copy(model)
    shapes, reads = _shapes(model), _reads(model.graph)
    shuffles = {n.output[0]: n for n in model.graph.node if n.op_type == "DepthToSpace"}
    nodes = []
    for node in model.graph.node:
        pair = [shuffles[name] for name in node.input if name in shuffles and reads[name] == 1]
        if node.op_type == "Add" and len(pair) == 2 and _are_alike(pair[0], pair[1], shapes):
            total, shuffle = f"{node.output[0]}_unshuffled", _copy(pair[0])
            shuffle.name = f"{node.output[0]}_shuffle"
            shuffle.input[:], shuffle.output[:] = [total], node.output
            node.input[:], node.output[:] = [pair[0].input[0], pair[1].input[0]], [total]
            nodes += [node, shuffle]
        else:
            nodes.append(node)
    _replace(model.graph, "node", nodes)
    return model


def remove_unused(model: ModelProto) -> ModelProto:
    """Remove nodes and initializers that no output needs, and the shapes of removed tensors."""
    model = _copy(model)
    graph = model.graph
    needed = {value.name for value in graph.output}
    nodes = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed.update(node.input)
            nodes.append(node)
    made = {output for node in nodes for output in node.output}
    initializers = [tensor for tensor in graph.initializer if tensor.name in needed]
    shapes = [value for value in graph.value_info if value.name in made & needed]
    _replace(graph, "node", reversed(nodes))
    _replace(graph, "initializer", initializers)
    _replace(graph, "value_info", shapes)
    return model


def strip_metadata(model: ModelProto) -> ModelProto:
    """Remove metadata and doc strings, in which the exporter leaves source paths and lines."""
    model = _copy(model)
    _strip(model)
    return model


# onnxsim first: the other passes match the folded graph.
PASSES: tuple[Pass, ...] = (
    fold_constants,
    drop_expands,
    merge_pixel_shuffles,
    remove_unused,
    strip_metadata,
)


def _copy(message: Proto) -> Proto:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def _shapes(model: ModelProto) -> dict[str, Shape]:
    """Map the names of all tensors with a known shape to it."""
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    values = [*graph.input, *graph.value_info, *graph.output]
    return {**shapes, **{value.name: shape_of(value) for value in values}}


def _same_shape(a: str, b: str, shapes: Mapping[str, Shape]) -> bool:
    return shapes.get(a) == shapes.get(b) and "" not in shapes.get(a, ("",))


def _are_alike(a: NodeProto, b: NodeProto, shapes: Mapping[str, Shape]) -> bool:
    """Whether two nodes have equal attributes and inputs of the same shape."""
    attributes = [
        {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        for node in (a, b)
    ]
    return attributes[0] == attributes[1] and _same_shape(a.input[0], b.input[0], shapes)


def _reads(graph: GraphProto) -> Counter[str]:
    """Count the readers of each tensor, graph outputs included."""
    reads = Counter(name for node in graph.node for name in node.input)
    return reads + Counter(value.name for value in graph.output)


def _replace(graph: GraphProto, field: str, items: Iterable[Any]) -> None:
    """Set a repeated field; the items may be its own."""
    kept = GraphProto()
    getattr(kept, field).extend(items)
    graph.ClearField(field)
    getattr(graph, field).extend(getattr(kept, field))


def _strip(message: Any) -> None:
    for name in ("metadata_props", "doc_string"):
        if name in message.DESCRIPTOR.fields_by_name:
            message.ClearField(name)
    for field, value in message.ListFields():
        if field.message_type is not None:
            for child in [value] if hasattr(value, "ListFields") else value:
                _strip(child)
