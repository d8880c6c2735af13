"""Files in a device's own format, made of ONNX artifacts: proved on the probes, then published.

A converter makes the bytes and measures them in the target's own runtime. What is here decides
whether they are close enough to FP32, and writes them with their manifest, or nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime import drift
from runtime.artifact import Artifact, write_artifact
from runtime.atomic import sha256_bytes, sha256_file, write_bytes
from runtime.drift import Fidelity, Limit
from runtime.errors import EXIT_DRIFT, EdgeError
from runtime.manifest import Manifest, Measurement, encode_manifest, probes_path

Write = Callable[[Path, Mapping[str, bytes], bytes], None]
FP16_LEAST_DB = 60.0  # where FP16 is no more than rounding


@dataclass(frozen=True)
class DeviceCandidate:
    """A file that is not published yet, and what its manifest will say of it.

    `executes_as` begins with the precision that it is computed in, as it was seen. `parts` are the
    bytes of the files that belong to it, by their names beside it. `backend`: what measured it;
    `emulated` if that stood in for the target's own runtime.
    """

    source: Artifact
    path: Path
    precision: str
    target: str
    content: bytes
    executes_as: str
    backend: str
    backend_version: str
    fidelity: Fidelity
    tools: Mapping[str, str]
    parts: Mapping[str, bytes] = field(default_factory=dict)
    flags: Mapping[str, Any] = field(default_factory=dict)
    emulated: bool = False


@dataclass(frozen=True)
class DeviceFile:
    """A published file; fidelities in dB PSNR-Y to FP32, on the probes."""

    artifact: str
    source: str
    model: str
    precision: str
    executes_as: str
    bytes: int
    sha256: str
    measured_on: str
    emulated: bool
    fidelity_db: float
    worst_fidelity_db: float
    extremes_fidelity_db: float
    limit_db: float
    flags: Mapping[str, Any]


def limit_for(source: Manifest, precision: str, backend: str) -> Limit:
    """The least fidelity of a file of this precision that is made of an artifact.

    Of the same precision it carries the same numbers, so it is held to what the artifact itself
    reached where it was measured; FP16 weights of an FP32 artifact to FP16_LEAST_DB.
    """
    if precision == "fp16":
        return Limit(FP16_LEAST_DB, FP16_LEAST_DB)
    measured = {measurement.backend for measurement in source.measured_on}
    return drift.limit(source, min(measured) if measured else backend)


def publish(candidate: DeviceCandidate, write: Write | None = None) -> DeviceFile:
    """Write a file, its parts and its manifest, all or none.

    `write` puts what is no single file in its place. EdgeError with status 3 if it drifts from FP32
    further than it may; what was there stays.
    """
    fidelity, path = candidate.fidelity, candidate.path
    limit = limit_for(candidate.source.manifest, candidate.precision, candidate.backend)
    if not limit.allows(fidelity):
        raise EdgeError(
            f"{path}: {candidate.backend} {candidate.backend_version} computes"
            f" {fidelity.fidelity_db:.1f} dB to FP32 on faces, {fidelity.extremes_fidelity_db:.1f}"
            f" on stress probes, expected {limit.fidelity_db:.1f} and"
            f" {limit.extremes_fidelity_db:.1f};"
            " nothing was written; install the versions in constraints.txt",
            EXIT_DRIFT,
        )
    manifest = _manifest(candidate)
    _bring_probes(candidate)
    if write:
        write(path, candidate.parts, encode_manifest(manifest))
    else:
        write_artifact(path, candidate.content, manifest, parts=candidate.parts)
    return DeviceFile(
        artifact=str(path),
        source=str(candidate.source.path),
        model=manifest.model,
        precision=candidate.precision,
        executes_as=candidate.executes_as,
        bytes=sum(map(len, candidate.parts.values())) + (0 if write else len(candidate.content)),
        sha256=manifest.sha256,
        measured_on=f"{candidate.backend} {candidate.backend_version}",
        emulated=candidate.emulated,
        fidelity_db=fidelity.fidelity_db,
        worst_fidelity_db=fidelity.worst_fidelity_db,
        extremes_fidelity_db=fidelity.extremes_fidelity_db,
        limit_db=limit.fidelity_db,
        flags=candidate.flags,
    )


def describe(made: DeviceFile) -> str:
    """Two lines on a published file."""
    emulated = " (emulated)" if made.emulated else ""
    return (
        f"{made.artifact}: {made.bytes / 2**20:.1f} MiB of {made.source}, runs as"
        f" {made.executes_as}\n  in {made.measured_on}{emulated}: {made.fidelity_db:.1f} dB to FP32"
        f" on the probes, at least {made.limit_db:.1f}; worst face {made.worst_fidelity_db:.1f},"
        f" stress probes {made.extremes_fidelity_db:.1f}"
    )


def _manifest(candidate: DeviceCandidate) -> Manifest:
    parent = candidate.source.manifest
    measurement = Measurement.of(
        candidate.fidelity,
        candidate.backend,
        candidate.backend_version,
        emulated=candidate.emulated,
    )
    parts = {name: sha256_bytes(content) for name, content in candidate.parts.items()}
    return Manifest(
        model=parent.model,
        precision=candidate.precision,
        target=candidate.target,
        sha256=sha256_bytes(candidate.content),
        checkpoint_sha256=parent.checkpoint_sha256,
        probes_sha256=parent.probes_sha256,
        executes_as=candidate.executes_as,
        parent_sha256=parent.sha256,
        calibration_sha256=parent.calibration_sha256,
        lr_side=parent.lr_side,
        psnr_y=parent.psnr_y,
        max_drop_db=parent.max_drop_db,
        tools=candidate.tools,
        flags={**candidate.flags, **({"parts": parts} if parts else {})},
        measured_on=(measurement,),
    )


def _bring_probes(candidate: DeviceCandidate) -> None:
    """Put the model's probes beside a file that is written elsewhere than in its folder."""
    here = probes_path(candidate.path)
    if not here.is_file() or sha256_file(here) != candidate.source.manifest.probes_sha256:
        write_bytes(candidate.path.with_name("probes.npz"), candidate.source.probes)
