"""The source model: the FP32 artifact that smaller ones are made from."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import onnx
from onnx import ModelProto

from quantize.layers import Layer, find_layers, layers_always_fp32, total_macs
from runtime import drift
from runtime.artifact import Artifact, read_artifact
from runtime.backends.open import Runner, open_backend
from runtime.drift import Probes
from runtime.errors import EdgeError
from runtime.manifest import Manifest, probes_path


@dataclass(frozen=True)
class SourceModel:
    """An FP32 artifact: its graph, the layers that can be quantized, all multiply-adds.

    `always_fp32`: the other convolutions, with the reason.
    """

    artifact: Artifact
    model: ModelProto
    layers: tuple[Layer, ...]
    always_fp32: dict[str, str]
    macs: int

    @property
    def path(self) -> Path:
        return self.artifact.path

    @property
    def manifest(self) -> Manifest:
        return self.artifact.manifest

    @property
    def lr_side(self) -> int:
        """The side in px of the faces that it reads."""
        return self.manifest.lr_side

    @property
    def content(self) -> bytes:
        """The FP32 file."""
        return self.artifact.model

    @cached_property
    def probes(self) -> Probes:
        return drift.decode_probes(self.artifact.probes, str(probes_path(self.path)))

    def open(self, content: bytes, backend: str = "onnxruntime") -> Runner:
        """Open the file, or another made from it that is not written yet, in a backend."""
        return open_backend(backend, replace(self.artifact, model=content))


def read_source(path: str | Path) -> SourceModel:
    """Read an FP32 artifact; EdgeError for another precision or contract, or without layers."""
    artifact = read_artifact(Path(path))
    if artifact.manifest.precision != "fp32":
        raise EdgeError(
            f"{path}: is {artifact.manifest.precision} already, expected the fp32.onnx that it was"
            " made from"
        )
    open_backend("onnxruntime", artifact).close()  # checks the contract
    model = onnx.load_model_from_string(artifact.model)
    layers = find_layers(model)
    if not layers:
        raise EdgeError(f"{path}: has no convolution that could be quantized; leave it FP32")
    return SourceModel(artifact, model, layers, layers_always_fp32(model), total_macs(model))
