"""What an artifact is in a backend of this machine: fidelity, effective precision, size, nodes."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from quantize.layers import Layer, find_layers, total_macs
from quantize.precision import int8_layers, optimized_graph
from runtime import drift
from runtime.artifact import Artifact, read_artifact
from runtime.backends.open import open_backend
from runtime.backends.openvino import OpenVinoSession
from runtime.drift import Fidelity
from runtime.manifest import Manifest, probes_path

BACKENDS = ("onnxruntime", "openvino")


@dataclass(frozen=True)
class Facts:
    """One artifact in one backend.

    `operators` counts the kinds of node that the backend executes, `nodes` is their sum; in
    OpenVINO they are the convolutions by precision. `int8_mac_share` is read from the backend, or
    from the manifest where the backend is only a proxy; None without the FP32 graph beside the
    file. `passed` compares with the manifest's own limit.
    """

    artifact: str
    backend: str
    backend_version: str
    checkpoint_sha256: str
    fidelity_db: float
    worst_fidelity_db: float
    extremes_fidelity_db: float
    expected_drift_db: float | None
    int8_mac_share: float | None
    nodes: int
    bytes: int
    passed: bool
    limit_db: float
    operators: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.artifact} in {self.backend}"


def backends_of(manifest: Manifest, installed: tuple[str, ...] = BACKENDS) -> list[str]:
    """The backends in which an artifact was measured when it was made; FP32: all installed."""
    measured = {one.backend for one in manifest.measured_on}
    anywhere = manifest.precision == "fp32"
    return [name for name in installed if anywhere or name in measured]


def gather(path: Path, backend: str) -> Facts:
    """Open an artifact in a backend and measure it; EdgeError if it cannot be opened."""
    artifact = read_artifact(path)
    manifest = artifact.manifest
    probes = drift.decode_probes(artifact.probes, str(probes_path(path)))
    layers, macs = _layers(path)
    with open_backend(backend, artifact) as runner:
        fidelity = drift.measure(runner.run, probes)
        version = runner.version
        if isinstance(runner, OpenVinoSession):
            operators = _convolutions(runner, artifact.model)
        else:
            operators = Counter(n.op_type for n in optimized_graph(artifact.model).graph.node)
        computed = int8_layers(runner, artifact.model, layers)
    share = sum(layer.macs for layer in layers if layer.name in computed) / macs if macs else None
    if any(one.emulated for one in manifest.measured_on if one.backend == backend):
        share = manifest.flags.get("int8_mac_share")
    limit = drift.limit(manifest, backend)
    return Facts(
        artifact=f"{manifest.model}/{path.name}",
        backend=backend,
        backend_version=version,
        checkpoint_sha256=manifest.checkpoint_sha256,
        fidelity_db=fidelity.fidelity_db,
        worst_fidelity_db=fidelity.worst_fidelity_db,
        extremes_fidelity_db=fidelity.extremes_fidelity_db,
        expected_drift_db=_expected_drift_db(artifact, fidelity),
        int8_mac_share=share,
        nodes=sum(operators.values()),
        bytes=len(artifact.model),
        passed=limit.allows(fidelity),
        limit_db=limit.fidelity_db,
        operators=dict(sorted(operators.items())),
    )


def _convolutions(session: OpenVinoSession, content: bytes) -> Counter[str]:
    """The file's convolutions by the precision that OpenVINO runs them in."""
    names = {n.name for n in onnx.load_model_from_string(content).graph.node if n.op_type == "Conv"}
    found = session.convolutions().items()
    return Counter(f"Convolution {precision}" for name, precision in found if name in names)


def _expected_drift_db(artifact: Artifact, fidelity: Fidelity) -> float | None:
    psnr_y = artifact.manifest.psnr_y
    return drift.expected_drift_db(psnr_y, fidelity.fidelity_db) if psnr_y else None


def _layers(path: Path) -> tuple[tuple[Layer, ...], int]:
    """The convolutions of the FP32 graph beside an artifact, and all its multiply-adds."""
    fp32 = path.with_name("fp32.onnx")
    if not fp32.is_file():
        return (), 0
    model = onnx.load(fp32)
    return find_layers(model), total_macs(model)
