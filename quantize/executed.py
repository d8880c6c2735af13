"""What a backend really computes in INT8: read from its own optimized graph, not from the file."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx
import onnxruntime
from onnx import ModelProto, TensorProto

from quantize.layers import Layer
from runtime.backends.onnxruntime import SILENT
from runtime.backends.openvino import OpenVinoSession

INT8_OPERATORS = ("QLinearConv", "ConvInteger")
INT8_TYPES = ("u8", "i8")


def int8_layers_onnxruntime(content: bytes, layers: Sequence[Layer]) -> set[str]:
    """The names of the layers that ONNX Runtime fused into an INT8 operator."""
    nodes = [n for n in optimized_graph(content).graph.node if n.op_type in INT8_OPERATORS]
    weights = {name for node in nodes for name in node.input}
    # A fused operator has the name of the convolution in it, with a number added.
    names = {node.name.partition("_token_")[0] for node in nodes}
    return {
        layer.name
        for layer in layers
        if f"{layer.weight}_quantized" in weights or layer.node in names
    }


def int8_layers_openvino(session: OpenVinoSession, layers: Sequence[Layer]) -> set[str]:
    """The names of the layers that OpenVINO computes in INT8."""
    computed = session.convolutions()
    return {layer.name for layer in layers if computed.get(layer.node, "") in INT8_TYPES}


def computes_in_half(content: bytes) -> bool:
    """Whether ONNX Runtime runs a convolution of an FP16 file in FP16, not in FP32 after a cast."""
    graph = optimized_graph(content).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    convolutions = [node for node in graph.node if "Conv" in node.op_type]
    return any(types.get(node.input[1]) == TensorProto.FLOAT16 for node in convolutions)


def optimized_graph(content: bytes) -> ModelProto:
    """The graph that ONNX Runtime runs on this processor, in the end."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "optimized.onnx")
        open_quietly(content, optimized_model_filepath=str(path))
        return onnx.load(path)


def open_quietly(content: bytes, **settings: str | bool) -> onnxruntime.InferenceSession:
    """A session of any graph on the CPU; what goes wrong is raised, not logged as well."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = SILENT
    for name, value in settings.items():
        setattr(options, name, value)
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
