"""The source model: the FP32 artifact that smaller ones are made from."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto

from quantize.layers import Layer, find_layers, layers_always_fp32, total_macs
from quantize.qdq import copy
from quantize.trained_ranges import read_trained_ranges, without_ranges
from runtime import drift
from runtime.activation_ranges import ActivationRanges
from runtime.artifact import Artifact, read_artifact
from runtime.atomic import sha256_bytes
from runtime.backends.open import Runner, open_backend
from runtime.drift import Probes
from runtime.errors import EdgeError
from runtime.image import Pixels, Tensor, to_tensor
from runtime.manifest import Manifest, probes_path
from runtime.network import Network


@dataclass(frozen=True)
class SourceModel:
    """An FP32 artifact: its graph, the layers that can be quantized, all multiply-adds.

    The graph of another network than AMINet has the size of its probes, so that all shapes are
    known; `serialize` makes it of any size again. `always_fp32`: the convolutions that are never
    quantized, with the reason. `trained`: the ranges of a quantization-aware training.
    """

    artifact: Artifact
    model: ModelProto
    layers: tuple[Layer, ...]
    always_fp32: dict[str, str]
    macs: int
    trained: ActivationRanges | None = None

    @property
    def path(self) -> Path:
        return self.artifact.path

    @property
    def manifest(self) -> Manifest:
        return self.artifact.manifest

    @property
    def reads(self) -> int | Network:
        """The side in px of the faces that it reads, or how another network reads images."""
        return self.manifest.network or self.manifest.lr_side

    @property
    def content(self) -> bytes:
        """The FP32 file."""
        return self.artifact.model

    @cached_property
    def probes(self) -> Probes:
        name = str(probes_path(self.path))
        return drift.decode_probes(self.artifact.probes, name, self.manifest.network)

    def feed(self, images: Pixels) -> Tensor:
        """Turn images (N, H, W, 3) into what the graph reads."""
        network = self.manifest.network
        return to_tensor(images) if network is None else network.feed(to_tensor(images))

    def serialize(self, model: ModelProto) -> bytes:
        """The file of a graph made from this one, with the input and output of the source."""
        if self.manifest.network is None:
            return model.SerializeToString(deterministic=True)
        of_any_size, original = copy(model), onnx.load_model_from_string(self.content).graph
        for ends, stated in (
            (of_any_size.graph.input, original.input),
            (of_any_size.graph.output, original.output),
        ):
            del ends[:]
            ends.extend(stated)
        del of_any_size.graph.value_info[:]
        return of_any_size.SerializeToString(deterministic=True)

    def manifest_of(self, content: bytes, **fields: Any) -> Manifest:
        """The manifest of a file made from this model: what it inherits, and `fields`."""
        inherited = ("model", "checkpoint_sha256", "probes_sha256", "lr_side", "network", "psnr_y")
        return Manifest(
            **{name: getattr(self.manifest, name) for name in inherited},
            sha256=sha256_bytes(content),
            parent_sha256=self.manifest.sha256,
            **fields,
        )

    def open(self, content: bytes, backend: str = "onnxruntime") -> Runner:
        """Open the file, or another made from it that is not written yet, in a backend."""
        return open_backend(backend, replace(self.artifact, content=content))


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
    trained = read_trained_ranges(model, artifact.manifest.checkpoint_sha256, str(path))
    model = without_ranges(model)
    if artifact.manifest.network is not None:
        model = _with_size(model, artifact.manifest.network)
    layers = find_layers(model)
    if not layers:
        raise EdgeError(f"{path}: has no convolution that could be quantized; leave it FP32")
    always_fp32 = layers_always_fp32(model)
    return SourceModel(artifact, model, layers, always_fp32, total_macs(model), trained)


def _with_size(model: ModelProto, network: Network) -> ModelProto:
    """Give the input the size of the probes, and leave that of the output to shape inference."""
    model = copy(model)
    (given,) = [value for value in model.graph.input if value.name == network.input]
    sides = given.type.tensor_type.shape.dim[2:]
    for side, size in zip(sides, (network.height, network.width), strict=True):
        side.dim_value = size
    for value in model.graph.output:
        for side in value.type.tensor_type.shape.dim[2:]:
            side.Clear()
    del model.graph.value_info[:]
    return model
