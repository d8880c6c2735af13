"""How long each layer takes in ONNX Runtime, from its own profile."""

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto

from quantize.executed import open_quietly
from quantize.layers import Layer
from runtime.image import LR_SIDE

WARM_UP_RUNS, TIMED_RUNS = 5, 40


def layer_times_ms(content: bytes, layers: Sequence[Layer]) -> dict[str, float]:
    """The median time of each layer's operator, for one face; layers that vanished are left out."""
    times_ms, optimized = node_times_ms(content)
    times = {}
    for layer in layers:
        found = [node.name for node in optimized.graph.node if _computes(node, layer)]
        if found and found[0] in times_ms:
            times[layer.name] = times_ms[found[0]]
    return times


def node_times_ms(content: bytes) -> tuple[dict[str, float], ModelProto]:
    """The median time of each node that ONNX Runtime runs for one face, and the graph of these."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "optimized.onnx")
        session = open_quietly(
            content,
            optimized_model_filepath=str(path),
            enable_profiling=True,
            profile_file_prefix=str(Path(folder, "profile")),
        )
        lr = np.full((1, 3, LR_SIDE, LR_SIDE), 0.5, np.float32)
        for _ in range(WARM_UP_RUNS + TIMED_RUNS):
            session.run(None, {"lr": lr})
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
    """Whether an optimized node is this layer's: it still reads its constants, or has its name."""
    constants = {layer.weight, f"{layer.weight}_quantized"} | (
        {layer.bias} if layer.bias else set()
    )
    named = node.name == f"{layer.made}_nchwc"  # weights of a blocked layout have new names
    return "Conv" in node.op_type and (named or bool(constants & set(node.input)))
