"""An artifact, opened in a backend and proved on the probes before the first face.

with open_session() as session:
    sr = session.enlarge(face)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

import numpy as np

from runtime import cache, drift
from runtime.backends.onnxruntime import OnnxRuntimeSession
from runtime.backends.openvino import OpenVinoSession
from runtime.drift import Fidelity, Limit
from runtime.errors import EXIT_DRIFT, EXIT_MISSING, EXIT_USAGE, EdgeError
from runtime.files import read_bytes, sha256_bytes
from runtime.image import Pixels, Tensor, fit_face, to_pixels, to_tensor
from runtime.manifest import Manifest, probes_path, read_manifest
from runtime.processor import processor

DEFAULT_MODEL = "aminet-edge"
BACKENDS = ("auto", OnnxRuntimeSession.name, OpenVinoSession.name)
PLANNED_BACKEND = "tensorrt"
PREFERENCE = ("int8.onnx", "fp32.onnx")  # the quickest first
MAX_ARTIFACT_BYTES = 1 << 30
VERDICT_VERSION = "1"  # another one when what is remembered, or how it is measured, changes

Runner: TypeAlias = OnnxRuntimeSession | OpenVinoSession


@dataclass(frozen=True)
class Verdict:
    """What the probes said, on this machine or, `remembered`, at an earlier start on it."""

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


@dataclass(frozen=True)
class Artifact:
    """The bytes of an artifact and of its model's probes, both as the manifest's hashes say."""

    path: Path
    manifest: Manifest
    model: bytes
    probes: bytes


class Session:
    """A model ready to enlarge faces, on any number of threads; a context manager.

    `verdict` is None if the session was opened without `verify`; `passed_over` says which artifacts
    were tried before this one and why they were not taken.
    """

    def __init__(
        self,
        artifact: Artifact,
        runner: Runner,
        verdict: Verdict | None,
        passed_over: tuple[str, ...] = (),
    ) -> None:
        self.artifact = artifact.path
        self.manifest = artifact.manifest
        self.backend = runner.name
        self.backend_version = runner.version
        self.verdict = verdict
        self.passed_over = passed_over
        self._runner = runner

    def run(self, lr: Tensor) -> Tensor:
        """Enlarge lr (N, 3, 16, 16), float32 in [0, 1], to (N, 3, 128, 128), not clipped."""
        sr = self._runner.run(lr)
        if not np.isfinite(sr).all():
            raise EdgeError(
                f"{self.artifact}: gave numbers that are not finite; python -m runtime.check"
                f" {self.artifact}",
                EXIT_DRIFT,
            )
        return sr

    def enlarge(self, pixels: Pixels, *, reduce: bool = False) -> Pixels:
        """Enlarge a face picture (H, W, 3) to (128, 128, 3).

        16 to 32 px, about square; `reduce` shrinks a larger one first. Otherwise EdgeError.
        """
        lr = fit_face(pixels, "the picture", reduce=reduce)
        return to_pixels(self.run(to_tensor(lr[None])))[0]

    def close(self) -> None:
        self._runner.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_session(
    artifact: str | Path | None = None,
    backend: str = "auto",
    *,
    verify: bool = True,
    fallback: bool = False,
) -> Session:
    """Open an artifact or a folder of them: else ./artifacts/aminet-edge, else the packed model.

    Of a folder, int8.onnx is taken if it passes on this machine, else fp32.onnx. `fallback` allows
    the next one after any other error too, and fp32.onnx in place of a named artifact.
    `verify=False` does not run the probes; the hashes are always compared. Raises EdgeError.
    """
    candidates, searched = _candidates(artifact, fallback)
    passed_over: list[str] = []
    for candidate in candidates[:-1]:
        try:
            return _open(candidate, backend, verify, tuple(passed_over))
        except EdgeError as error:
            if not (fallback or (searched and error.status == EXIT_DRIFT)):
                raise
            passed_over.append(str(error))
    return _open(candidates[-1], backend, verify, tuple(passed_over))


def read_artifact(path: Path) -> Artifact:
    """Read an artifact, its manifest and probes.

    EdgeError if one is missing or does not fit, or if the weights are random.
    """
    if not path.is_file():
        raise EdgeError(f"{path}: is not there; make it: python -m export.onnx")
    manifest = read_manifest(path)
    model = read_bytes(path, MAX_ARTIFACT_BYTES)
    if sha256_bytes(model) != manifest.sha256:
        raise EdgeError(
            f"{path}: is not the file that its manifest describes, one of the two was damaged or"
            f" replaced; make it again: {_maker(path, manifest)}"
        )
    probes = read_bytes(probes_path(path), drift.MAX_PROBES_BYTES)
    if sha256_bytes(probes) != manifest.probes_sha256:
        raise EdgeError(
            f"{probes_path(path)}: are not the probes of {path.name}, but damaged or of another"
            f" export; make {path.name} again: {_maker(path, manifest)}"
        )
    if manifest.random_weights:
        raise EdgeError(
            f"{path}: has random weights, for tests; export trained ones: python -m export.onnx"
        )
    return Artifact(path, manifest, model, probes)


def _maker(path: Path, manifest: Manifest) -> str:
    """The command that makes this artifact: smaller ones are made of fp32.onnx, not exported."""
    if manifest.precision == "fp32":
        return "python -m export.onnx"
    return f"python -m quantize.{manifest.precision} --artifact {path.with_name('fp32.onnx')}"


def measure(runner: Runner, artifact: Artifact) -> Verdict:
    """Run the probes and judge them, whatever is remembered."""
    probes = drift.decode_probes(artifact.probes, str(probes_path(artifact.path)))
    return Verdict(drift.measure(runner.run, probes), drift.limit(artifact.manifest, runner.name))


def open_backend(name: str, artifact: Artifact) -> Runner:
    """Open the model in 'auto', 'onnxruntime' or 'openvino'; status 5 for one not here."""
    if name in ("auto", OnnxRuntimeSession.name):
        return OnnxRuntimeSession(artifact.model, str(artifact.path))
    if name == OpenVinoSession.name:
        return OpenVinoSession(artifact.model, str(artifact.path))
    if name == PLANNED_BACKEND:
        raise EdgeError(
            f"backend {name} is not in this version; use --backend {OnnxRuntimeSession.name}",
            EXIT_MISSING,
        )
    raise EdgeError(f"no backend is called {name}, expected {', '.join(BACKENDS)}", EXIT_USAGE)


def _candidates(artifact: str | Path | None, fallback: bool) -> tuple[list[Path], bool]:
    """The artifacts to try in turn, and whether they were searched for rather than named."""
    if artifact is not None and not Path(artifact).is_dir():
        named = Path(artifact)
        spare = named.with_name("fp32.onnx")
        return [named, spare] if fallback and spare != named else [named], False
    packed = Path(__file__).parent / "models" / DEFAULT_MODEL
    folders = [Path(artifact)] if artifact else [Path("artifacts", DEFAULT_MODEL), packed]
    for folder in folders:
        if found := [folder / name for name in PREFERENCE if (folder / name).is_file()]:
            return found, True
    raise EdgeError(
        f"no model in {' or '.join(map(str, folders))}, expected {' or '.join(PREFERENCE)};"
        " make one: python -m export.onnx"
    )


def _open(path: Path, backend: str, verify: bool, passed_over: tuple[str, ...]) -> Session:
    artifact = read_artifact(path)
    runner = open_backend(backend, artifact)
    verdict = _verdict(runner, artifact) if verify else None
    return Session(artifact, runner, verdict, passed_over)


def _verdict(runner: Runner, artifact: Artifact) -> Verdict:
    """The remembered verdict on exactly these files, backend and processor, else a new one."""
    key = {
        "verdict": VERDICT_VERSION,
        "artifact": artifact.manifest.sha256,
        "manifest": artifact.manifest.digest,
        "probes": artifact.manifest.probes_sha256,
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
        raise EdgeError(describe_failure(artifact.path, runner.name, verdict), EXIT_DRIFT)
    cache.remember(key, asdict(verdict.fidelity))
    return verdict


def describe_failure(path: Path, backend: str, verdict: Verdict) -> str:
    """One line on what the probes found."""
    fidelity, limit = verdict.fidelity, verdict.limit
    if not fidelity.finite:
        return f"{path}: gives numbers that are not finite in {backend}; make it again"
    return (
        f"{path}: drifts from FP32 in {backend} on this machine: fidelity"
        f" {fidelity.fidelity_db:.1f} dB on faces, {fidelity.extremes_fidelity_db:.1f} on extremes,"
        f" expected at least {limit.fidelity_db:.1f} and {limit.extremes_fidelity_db:.1f};"
        " make it again or take fp32.onnx"
    )
