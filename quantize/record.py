"""What an INT8 file is and how it did: for people, for programs, and in its manifest."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from quantize.activations import CONTRAST
from quantize.budget import Int8Candidate
from quantize.calibration import CalibrationSet
from quantize.engines.native import NativeEngine
from quantize.source import SourceModel
from quantize.targets import Target
from runtime.drift import expected_drift_db
from runtime.image import psnr_of_mse
from runtime.manifest import Manifest, Measurement

TOOLS = ("onnx", "onnxruntime", "numpy")
NAMED = 6  # layers in a line; --json has all


@dataclass(frozen=True)
class Fp32Layer:
    """A convolution that is not quantized, and why."""

    name: str
    macs: int
    reason: str


@dataclass(frozen=True)
class Int8Artifact:
    """A file that meets its budget, and how held-out and probe faces show it.

    The fidelities are the lower ones of the two. `int8_mac_share` is what the backend was seen to
    compute in INT8, of all multiply-adds; if it is `emulated`, what the file says. `reverted` are
    the layers kept in FP32 for the budget, `fp32_layers` these with their reasons; `always_fp32`
    counts the convolutions that are never quantized. `choice`: why this engine's file was kept.
    `drift_faces` real faces showed the drift, when it was recorded or in this run; None: none did.
    """

    artifact: str
    target: str
    precision: str
    engine: str
    engine_version: str
    measured_on: str
    emulated: bool
    bytes: int
    fidelity_db: float
    worst_fidelity_db: float
    expected_drift_db: float | None
    drift_db: float | None
    worst_drift_db: float | None
    drift_faces: int | None
    drift_recorded: bool
    int8_mac_share: float
    reverted: tuple[str, ...]
    fp32_layers: tuple[Fp32Layer, ...]
    always_fp32: Mapping[str, str]
    choice: str | None


def record(
    source: SourceModel,
    target: Target,
    path: Path,
    candidate: Int8Candidate,
    errors: Mapping[str, float],
) -> Int8Artifact:
    """Describe a candidate that is, or will be, the file at `path`.

    `errors`: the squared error of each layer that was measured alone in INT8.
    """
    psnr_y = source.manifest.psnr_y
    worst_db = min(candidate.held_out.worst_fidelity_db, candidate.probes.worst_fidelity_db)
    computed = sum(layer.macs for layer in candidate.layers if layer.name in candidate.computed)
    int8 = {layer.name for layer in candidate.layers}
    reverted = tuple(
        Fp32Layer(layer.name, layer.macs, _why(errors.get(layer.name), target.grid.upper()))
        for layer in source.layers
        if layer.name not in int8
    )
    return Int8Artifact(
        artifact=str(path),
        target=target.name,
        precision=target.grid,
        engine=candidate.engine,
        engine_version=candidate.engine_version,
        measured_on=f"{target.backend} {candidate.backend_version}",
        emulated=target.emulated,
        bytes=len(candidate.content),
        fidelity_db=candidate.fidelity_db,
        worst_fidelity_db=worst_db,
        expected_drift_db=expected_drift_db(psnr_y, candidate.fidelity_db) if psnr_y else None,
        drift_db=candidate.real.drift_db if candidate.real else None,
        worst_drift_db=candidate.real.worst_drift_db if candidate.real else None,
        drift_faces=candidate.real.faces if candidate.real else None,
        drift_recorded=candidate.recorded,
        int8_mac_share=computed / source.macs,
        reverted=tuple(layer.name for layer in reverted),
        fp32_layers=reverted,
        always_fp32=source.always_fp32,
        choice=candidate.choice,
    )


def _why(error: float | None, grid: str) -> str:
    if error is None:
        return f"over the budget in {grid}"
    return f"sensitive: {psnr_of_mse(error):.1f} dB when it alone is {grid}"


def describe(made: Int8Artifact) -> str:
    """A few lines on an artifact."""
    proxy = " as a proxy" if made.emulated else ""
    drift_db = made.expected_drift_db if made.drift_db is None else made.drift_db
    kind = "recorded" if made.drift_recorded else "measured"
    kind = "expected" if made.drift_db is None else kind
    lost = "" if drift_db is None else f", {kind} drift {drift_db:.3f} dB"
    worst = "" if made.worst_drift_db is None else f", worst face {made.worst_drift_db:.3f}"
    lines = [
        f"{made.artifact}: for {made.target}, {made.bytes / 2**20:.1f} MiB,"
        f" {made.int8_mac_share:.1%} of the multiply-adds in {made.precision.upper()},"
        f" engine {made.engine}",
        f"  in {made.measured_on}{proxy}: fidelity {made.fidelity_db:.1f} dB,"
        f" worst face {made.worst_fidelity_db:.1f}{lost}{worst}",
    ]
    if made.fp32_layers:
        lines.append(f"  kept in FP32 for the budget: {_listed(made.fp32_layers)}")
    if made.choice:
        lines.append(f"  {made.choice}")
    return "\n".join(lines)


def _listed(layers: tuple[Fp32Layer, ...]) -> str:
    named = [f"{layer.name} ({layer.reason})" for layer in layers[:NAMED]]
    rest = len(layers) - len(named)
    count = "1 layer" if len(layers) == 1 else f"{len(layers)} layers"
    return f"{count}: {', '.join(named)}{f' and {rest} more' if rest else ''}"


def make_manifest(
    source: SourceModel,
    target: Target,
    candidate: Int8Candidate,
    made: Int8Artifact,
    calibration: CalibrationSet,
    max_drop_db: float,
) -> Manifest:
    seen = "as the file says" if target.emulated else "seen in the backend"
    trained = source.trained is not None and candidate.engine == NativeEngine.name
    tools = (*TOOLS, *(["nncf"] if candidate.engine == "nncf" else []))
    return source.manifest_of(
        candidate.content,
        precision=target.grid,
        target=target.name,
        executes_as=f"{target.grid}, {made.int8_mac_share:.1%} of the multiply-adds, {seen}",
        calibration_sha256=calibration.sha256,
        max_drop_db=max_drop_db,
        tools={tool: version(tool) for tool in tools},
        flags={
            "engine": candidate.engine,
            "engine_version": candidate.engine_version,
            "ranges": "trained" if trained else "calibrated",
            "weight_limit": target.weight_limit,
            "calibration_faces": len(calibration.faces),
            "calibration_contrast": CONTRAST,
            "int8_mac_share": made.int8_mac_share,
            "reverted": list(made.reverted),
            "fidelity_db": made.fidelity_db,
            "drift_db": made.drift_db,
            "worst_drift_db": made.worst_drift_db,
            "drift_faces": made.drift_faces,
            "drift_recorded": made.drift_recorded,
        },
        measured_on=(measurement_of(candidate, target),),
    )


def measurement_of(candidate: Int8Candidate, target: Target) -> Measurement:
    """How the candidate did on the probes."""
    return Measurement.of(
        candidate.probes, target.backend, candidate.backend_version, emulated=target.emulated
    )
