"""The FP32 artifact that smaller ones are made of."""

from dataclasses import dataclass, replace
from pathlib import Path

import onnx
from onnx import ModelProto

from quantize.layers import Layer, find_layers, total_macs
from runtime import drift
from runtime.artifact import Artifact, read_artifact
from runtime.atomic import writing
from runtime.backends.open import Runner, open_backend
from runtime.drift import Probes
from runtime.errors import EdgeError
from runtime.manifest import Manifest, manifest_path, probes_path, write_manifest
from runtime.session import DEFAULT_MODEL

ARTIFACT = Path("artifacts", DEFAULT_MODEL, "fp32.onnx")


@dataclass(frozen=True)
class Subject:
    """An artifact, its graph, and the layers that can be quantized."""

    artifact: Artifact
    model: ModelProto
    layers: tuple[Layer, ...]
    macs: int

    @property
    def path(self) -> Path:
        return self.artifact.path

    @property
    def manifest(self) -> Manifest:
        return self.artifact.manifest

    @property
    def probes(self) -> Probes:
        return drift.decode_probes(self.artifact.probes, str(probes_path(self.path)))


def read_subject(path: str | Path) -> Subject:
    """Read an FP32 artifact; EdgeError if it is another, of another contract or without layers."""
    artifact = read_artifact(Path(path))
    if artifact.manifest.precision != "fp32":
        raise EdgeError(
            f"{path}: is {artifact.manifest.precision} already, expected the fp32.onnx that it was"
            " made of"
        )
    open_backend("onnxruntime", artifact).close()  # which checks the contract
    model = onnx.load_model_from_string(artifact.model)
    layers = find_layers(model)
    if not layers:
        raise EdgeError(f"{path}: has no convolution that could be quantized; leave it FP32")
    return Subject(artifact, model, layers, total_macs(model))


def open_content(subject: Subject, backend: str, content: bytes) -> Runner:
    """Open what was made of the subject, and not written yet, in a backend."""
    return open_backend(backend, replace(subject.artifact, model=content))


def write_artifact(path: Path, content: bytes, manifest: Manifest) -> None:
    """Write a file and its manifest whole, then rename the file and, last, the manifest.

    Killed in between, it leaves a manifest whose hash fits no file: nothing that would be opened.
    """
    with writing(manifest_path(path)) as new_manifest, writing(path) as new_file:
        new_file.write_bytes(content)
        write_manifest(new_manifest.with_suffix(""), manifest)  # which adds .json again
