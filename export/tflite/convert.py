"""An ONNX graph of the project's contract as a LiteRT file, its Q/DQ scales carried one by one."""

from __future__ import annotations

from onnx import ModelProto

from export.graph import Graph
from export.tflite.channel_order import crd_to_dcr
from export.tflite.conversion import LAST, TfliteConversion
from export.tflite.metadata import make_metadata
from export.tflite.operators import write


def convert(model: ModelProto, name: str, *, title: str = "", half: bool = False) -> bytes:
    """Write lr (1, S, S, 3) -> sr (1, 128, 128, 3), with the numbers of the ONNX graph.

    `half` stores the weights of convolutions in FP16, to compute with them in FP32. `title` goes
    into the file, `name` into messages: EdgeError names an operator that has no writer.
    """
    graph = Graph(crd_to_dcr(model, name), name)
    c = TfliteConversion(graph, half)
    inputs = {value: c.add_input(value) for value in graph.inputs}
    for node in graph.nodes:
        write(c, node)
    outputs = {value: c.read(value, LAST) for value in graph.outputs}
    for value, tensor in outputs.items():
        c.model.rename(tensor, value)
    metadata = make_metadata(title, c.shape(graph.inputs[0], LAST), c.shape(graph.outputs[0], LAST))
    return c.model.to_bytes(inputs, outputs, title, metadata)
