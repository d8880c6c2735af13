"""What an ONNX file says of itself, for people who open it in Netron or serve it with Triton."""

import json
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version

from onnx import ModelProto

from aminet.checkpoint import Checkpoint
from runtime.activation_ranges import METADATA

LICENSE = "weights: CelebA research, non-commercial; code: MIT"
PURPOSE = (
    "Face super-resolution, {side}x{side} -> 128x128. Input lr: RGB, float32 in [0, 1],"
    " (batch, 3, {side}, {side}). Output sr: (batch, 3, 128, 128), not clipped. A super-resolved"
    " face is partly invented: never identify anyone by it."
)


def describe(model: ModelProto, checkpoint: Checkpoint) -> ModelProto:
    """Return a copy with producer, description, name, version, licence and input range,
    and the activation ranges of quantization-aware training."""
    described = ModelProto()
    described.CopyFrom(model)
    described.producer_name, described.producer_version = "aminet-edge", _version()
    described.doc_string = PURPOSE.format(side=checkpoint.config.lr_side)
    described.graph.name = checkpoint.model
    properties = {
        "model": checkpoint.model,
        "version": _version(),
        "license": LICENSE,
        "input_range": "[0, 1]",
        "checkpoint_sha256": checkpoint.sha256,
    }
    if checkpoint.ranges is not None:
        content = asdict(checkpoint.ranges) | {"checkpoint_sha256": checkpoint.sha256}
        properties[METADATA] = json.dumps(content, sort_keys=True)
    for key, value in properties.items():
        described.metadata_props.add(key=key, value=value)
    return described


def _version() -> str:
    try:
        return version("aminet-edge")
    except PackageNotFoundError:  # a checkout that is not installed
        return "0"
