"""What the probes show of an artifact in a backend, remembered for exactly these bytes."""

from dataclasses import asdict, dataclass

from runtime import cache, drift
from runtime.artifact import Artifact, make_command
from runtime.backends.open import Runner
from runtime.cpu import processor
from runtime.drift import Fidelity, Limit
from runtime.errors import EXIT_DRIFT, EdgeError
from runtime.manifest import probes_path

VERDICT_VERSION = "2"  # another one when what is remembered, or how it is measured, changes


@dataclass(frozen=True)
class Verdict:
    """What the probes showed, on this machine or, `remembered`, at an earlier start on it."""

    fidelity: Fidelity
    limit: Limit
    remembered: bool = False

    @property
    def passed(self) -> bool:
        return self.limit.allows(self.fidelity)

    @property
    def fidelity_db(self) -> float:
        return self.fidelity.fidelity_db

    @property
    def limit_db(self) -> float:
        return self.limit.fidelity_db


def find_verdict(runner: Runner, artifact: Artifact, runs_sha256: str) -> Verdict:
    """The remembered verdict on exactly these files, backend and processor, else a new one."""
    key = {
        "verdict": VERDICT_VERSION,
        "artifact": artifact.manifest.sha256,
        "manifest": artifact.manifest.digest,
        "probes": artifact.manifest.probes_sha256,
        "runs": runs_sha256,
        "backend": f"{runner.name} {runner.version}",
        "options": runner.options,
        "processor": processor(),
    }
    if record := cache.recall(key):
        limit = drift.limit(artifact.manifest, runner.name)
        verdict = Verdict(Fidelity(**record), limit, remembered=True)
        if verdict.passed:
            return verdict
    verdict = measure(runner, artifact)
    if not verdict.passed:
        raise EdgeError(describe_failure(artifact, runner.name, verdict), EXIT_DRIFT)
    cache.remember(key, asdict(verdict.fidelity))
    return verdict


def measure(runner: Runner, artifact: Artifact) -> Verdict:
    """Run the probes and evaluate them, whatever is remembered."""
    name = str(probes_path(artifact.path))
    probes = drift.decode_probes(artifact.probes, name, artifact.manifest.network)
    network = artifact.manifest.network
    if network is None and probes.lr_side != artifact.manifest.lr_side:
        raise EdgeError(
            f"{name}: has faces of {probes.lr_side} px, expected {artifact.manifest.lr_side} px as"
            f" {artifact.path.name} reads them. Create both again with: python -m export.onnx"
        )
    return Verdict(drift.measure(runner.run, probes), drift.limit(artifact.manifest, runner.name))


def describe_failure(artifact: Artifact, backend: str, verdict: Verdict) -> str:
    """One line on what the probes found, and the fix."""
    path, manifest = artifact.path, artifact.manifest
    fidelity, limit = verdict.fidelity, verdict.limit
    fix = f"Create it again with: {make_command(path, manifest.model, manifest.precision)}"
    if not fidelity.finite:
        return f"{path}: gives numbers that are not finite in {backend}. {fix}"
    return (
        f"{path}: drifts from FP32 in {backend} on this machine: fidelity"
        f" {fidelity.fidelity_db:.1f} dB on faces, {fidelity.extremes_fidelity_db:.1f} on stress"
        f" probes, expected at least {limit.fidelity_db:.1f} and {limit.extremes_fidelity_db:.1f}."
        f" {fix}"
    )
