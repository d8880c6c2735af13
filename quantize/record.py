"""What an INT8 file is and how it did: for people, for programs, and in its manifest."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from quantize.budget import Candidate
from quantize.calibration import CONTRAST, CalibrationSet
from quantize.source import Subject
from quantize.targets import Target
from runtime.atomic import sha256_bytes
from runtime.cpu import processor
from runtime.drift import expected_drift_db
from runtime.manifest import Manifest, Measurement

TOOLS = ("onnx", "onnxruntime", "numpy")


@dataclass(frozen=True)
class Int8Artifact:
    """A file that holds its budget, and what faces that did not calibrate show of it.

    `int8_mac_share` is what the backend was seen to compute in INT8, of all multiply-adds; if it is
    `emulated`, what the file says. `reverted` are the layers that were given back to FP32.
    """

    artifact: str
    target: str
    measured_on: str
    emulated: bool
    bytes: int
    fidelity_db: float
    worst_fidelity_db: float
    expected_drift_db: float | None
    drift_db: float | None
    worst_drift_db: float | None
    int8_mac_share: float
    reverted: tuple[str, ...]


def record(subject: Subject, target: Target, path: Path, attempt: Candidate) -> Int8Artifact:
    """What is said of an attempt that is, or will be, the file at `path`."""
    seen, psnr_y = attempt.seen, subject.manifest.psnr_y
    computed = sum(layer.macs for layer in attempt.layers if layer.name in attempt.computed)
    kept = {layer.name for layer in attempt.layers}
    return Int8Artifact(
        artifact=str(path),
        target=target.name,
        measured_on=f"{target.backend} {attempt.backend_version}",
        emulated=target.emulated,
        bytes=len(attempt.content),
        fidelity_db=seen.fidelity_db,
        worst_fidelity_db=seen.worst_fidelity_db,
        expected_drift_db=expected_drift_db(psnr_y, seen.fidelity_db) if psnr_y else None,
        drift_db=seen.drift_db,
        worst_drift_db=seen.worst_drift_db,
        int8_mac_share=computed / subject.macs,
        reverted=tuple(layer.name for layer in subject.layers if layer.name not in kept),
    )


def describe(made: Int8Artifact) -> str:
    """Two lines on an artifact."""
    emulated = " (emulated)" if made.emulated else ""
    drift_db = made.expected_drift_db if made.drift_db is None else made.drift_db
    kind = "expected" if made.drift_db is None else "measured"
    lost = "" if drift_db is None else f", {kind} drift {drift_db:.3f} dB"
    worst = "" if made.worst_drift_db is None else f", worst face {made.worst_drift_db:.3f}"
    return (
        f"{made.artifact}: for {made.target}, {made.bytes / 2**20:.1f} MiB,"
        f" {made.int8_mac_share:.1%} of the multiply-adds in INT8,"
        f" {len(made.reverted)} layers given back\n"
        f"  in {made.measured_on}{emulated}: fidelity {made.fidelity_db:.1f} dB,"
        f" worst face {made.worst_fidelity_db:.1f}{lost}{worst}"
    )


def make_manifest(
    subject: Subject,
    target: Target,
    attempt: Candidate,
    made: Int8Artifact,
    faces: CalibrationSet,
    max_drop_db: float,
) -> Manifest:
    fp32 = subject.manifest
    said = "as the file says" if target.emulated else "seen in the backend"
    return Manifest(
        model=fp32.model,
        precision="int8",
        target=target.name,
        sha256=sha256_bytes(attempt.content),
        checkpoint_sha256=fp32.checkpoint_sha256,
        probes_sha256=fp32.probes_sha256,
        executes_as=f"int8, {made.int8_mac_share:.1%} of the multiply-adds, {said}",
        parent_sha256=fp32.sha256,
        calibration_sha256=faces.sha256,
        psnr_y=fp32.psnr_y,
        max_drop_db=max_drop_db,
        tools={tool: version(tool) for tool in TOOLS},
        flags={
            "weight_limit": target.weight_limit,
            "calibration_faces": len(faces.faces),
            "calibration_contrast": CONTRAST,
            "int8_mac_share": made.int8_mac_share,
            "reverted": list(made.reverted),
            "fidelity_db": made.fidelity_db,
            "drift_db": made.drift_db,
            "worst_drift_db": made.worst_drift_db,
        },
        measured_on=(measurement(target, attempt),),
    )


def measurement(target: Target, attempt: Candidate) -> Measurement:
    """How the attempt did on the probes."""
    return Measurement(
        backend=target.backend,
        backend_version=attempt.backend_version,
        processor=processor(),
        fidelity_db=attempt.probed.fidelity_db,
        worst_fidelity_db=attempt.probed.worst_fidelity_db,
        extremes_fidelity_db=attempt.probed.extremes_fidelity_db,
        emulated=target.emulated,
    )
