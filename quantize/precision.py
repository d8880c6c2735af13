"""The effective precision and the time of each layer, read from a backend's optimized graph."""

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto

from quantize.layers import Layer
from runtime.backends.onnxruntime import SILENT, import_onnxruntime
from runtime.backends.open import Runner
from runtime.backends.openvino import OpenVinoSession

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

INT8_OPERATORS = ("QLinearConv", "ConvInteger")
INT8_TYPES = ("u8", "i8")
WARM_UP_RUNS, TIMED_RUNS = 5, 40
ANY_SIDE = 64  # px, of a graph that reads images of any size


def int8_layers(runner: Runner, content: bytes, layers: Sequence[Layer]) -> set[str]:
    """The names of the layers of this file that the backend open in `runner` computes in INT8."""
    if isinstance(runner, OpenVinoSession):
        computed = runner.convolutions()
        return {layer.name for layer in layers if computed.get(layer.node, "") in INT8_TYPES}
    return int8_layers_onnxruntime(content, layers)


def int8_layers_onnxruntime(content: bytes, layers: Sequence[Layer]) -> set[str]:
    """The names of the layers that ONNX Runtime fuses into an INT8 operator on this processor."""
    return fused_int8_layers(optimized_graph(content), layers)


def fused_int8_layers(optimized: ModelProto, layers: Sequence[Layer]) -> set[str]:
    """The names of the layers in INT8 in a graph that ONNX Runtime optimized, here or elsewhere."""
    nodes = [node for node in optimized.graph.node if node.op_type in INT8_OPERATORS]
    weights = {name for node in nodes for name in node.input}
    # A fused operator has the name of the convolution in it, with a number added.
    names = {node.name.partition("_token_")[0] for node in nodes}
    return {
        layer.name
        for layer in layers
        if f"{layer.weight}_quantized" in weights or layer.node in names
    }


def computes_in_half(content: bytes) -> bool:
    """Whether ONNX Runtime runs a convolution of an FP16 file in FP16, not in FP32 after a cast."""
    graph = optimized_graph(content).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    convolutions = [node for node in graph.node if "Conv" in node.op_type]
    return any(types.get(node.input[1]) == TensorProto.FLOAT16 for node in convolutions)


def optimized_graph(content: bytes, **settings: Any) -> ModelProto:
    """The graph that ONNX Runtime runs on this processor; all optimizations by default."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "optimized.onnx")
        open_quietly(content, optimized_model_filepath=str(path), **settings)
        return onnx.load(path)


def open_quietly(content: bytes, **settings: Any) -> "InferenceSession":
    """Open any graph on the CPU; errors are raised and not logged as well."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = SILENT
    for name, value in settings.items():
        setattr(options, name, value)
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def layer_times_ms(content: bytes, layers: Sequence[Layer]) -> dict[str, float]:
    """The median time of each layer's operator for one image; layers fused away are left out."""
    times_ms, optimized = node_times_ms(content)
    times = {}
    for layer in layers:
        found = [node.name for node in optimized.graph.node if _computes(node, layer)]
        if found and found[0] in times_ms:
            times[layer.name] = times_ms[found[0]]
    return times


def node_times_ms(content: bytes) -> tuple[dict[str, float], ModelProto]:
    """The median time of each node that ONNX Runtime runs for one image, and its graph."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "optimized.onnx")
        session = open_quietly(
            content,
            optimized_model_filepath=str(path),
            enable_profiling=True,
            profile_file_prefix=str(Path(folder, "profile")),
        )
        (graph_input,) = session.get_inputs()
        sizes = [size if isinstance(size, int) else ANY_SIDE for size in graph_input.shape[1:]]
        lr = np.full((1, *sizes), 0.5, np.float32)
        for _ in range(WARM_UP_RUNS + TIMED_RUNS):
            session.run(None, {graph_input.name: lr})
        events = json.loads(Path(session.end_profiling()).read_text())
        optimized = onnx.load(path)
    times_us = _kernel_times_us(events)
    medians = {name: np.median(times[WARM_UP_RUNS:]) for name, times in times_us.items()}
    return {name: float(median) / 1e3 for name, median in medians.items()}, optimized


def _kernel_times_us(events: Sequence[Mapping]) -> dict[str, list[float]]:
    times = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times[event["name"].removesuffix("_kernel_time")].append(event["dur"])
    return times


def _computes(node: NodeProto, layer: Layer) -> bool:
    """Whether an optimized node is this layer: it still reads its constants, or has its name."""
    constants = {layer.weight, f"{layer.weight}_quantized"} | (
        {layer.bias} if layer.bias else set()
    )
    named = node.name == f"{layer.output}_nchwc"  # weights of a blocked layout have new names
    return "Conv" in node.op_type and (named or bool(constants & set(node.input)))
