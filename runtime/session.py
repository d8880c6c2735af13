"""An artifact, opened in a backend and proved on the probes before the first face.

with open_session() as session:
    sr = session.enlarge(face)
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias, overload

import numpy as np
from PIL import Image

from runtime import cache, choice, drift
from runtime.backends.base import Closing
from runtime.backends.onnxruntime import OnnxRuntimeGpuSession, OnnxRuntimeSession, optimize
from runtime.backends.openvino import OpenVinoSession
from runtime.backends.tensorrt import TensorRtSession
from runtime.choice import Choice
from runtime.drift import Fidelity, Limit
from runtime.engines import find_engines
from runtime.errors import EXIT_DRIFT, EXIT_MISSING, EXIT_USAGE, EdgeError
from runtime.files import read_bytes, sha256_bytes
from runtime.image import Pixels, Tensor, fit_face, from_image, to_pixels, to_tensor
from runtime.installed import installed_backends
from runtime.manifest import ENGINE, Manifest, probes_path, read_manifest
from runtime.processor import processor, usable_cores

DEFAULT_MODEL = "aminet-edge"
AUTO = "auto"
BACKENDS = (AUTO, OnnxRuntimeSession.name, OpenVinoSession.name, TensorRtSession.name)
PROVIDERS = ("cpu", "cuda", "tensorrt")
GPU_BACKENDS = {f"{OnnxRuntimeSession.name}-{provider}": provider for provider in PROVIDERS[1:]}
PREFERENCE = ("int8.onnx", "int8-openvino.onnx", "fp32.onnx")  # the quickest first
MADE_FOR = {"int8-openvino.onnx": OpenVinoSession.name}  # other files suit any backend
MAX_ARTIFACT_BYTES = 1 << 30
VERDICT_VERSION = "2"  # another one when what is remembered, or how it is measured, changes

Runner: TypeAlias = OnnxRuntimeSession | OpenVinoSession | TensorRtSession
Say = Callable[[str], None]


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


class Session(Closing):
    """A model ready to enlarge faces, on any number of threads; a context manager.

    `verdict` is None if the session was opened without `verify`; `choice` is None if its backend
    was named. `passed_over` says what was tried before and why it was not taken. At least `batch`
    faces at once are run the quickest.
    """

    def __init__(
        self,
        artifact: Artifact,
        runner: Runner,
        verdict: Verdict | None,
        passed_over: tuple[str, ...] = (),
        choice: Choice | None = None,
    ) -> None:
        self.artifact = artifact.path
        self.manifest = artifact.manifest
        self.backend = runner.name
        self.backend_version = runner.version
        self.verdict = verdict
        self.passed_over = passed_over
        self.choice = choice
        self._runner = runner

    @property
    def batch(self) -> int:
        return self.choice.batch if self.choice else 1

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

    @overload
    def enlarge(self, image: Pixels, *, reduce: bool = False) -> Pixels: ...
    @overload
    def enlarge(self, image: Image.Image, *, reduce: bool = False) -> Image.Image: ...

    def enlarge(self, image: Pixels | Image.Image, *, reduce: bool = False) -> Pixels | Image.Image:
        """Enlarge a face picture, uint8 (H, W, 3) or a Pillow image, to 128x128 of its kind.

        16 to 32 px, about square; `reduce` shrinks a larger one first. Otherwise EdgeError.
        """
        if isinstance(image, Image.Image):
            return Image.fromarray(self.enlarge(from_image(image), reduce=reduce))
        lr = fit_face(image, "the picture", reduce=reduce)
        return to_pixels(self.run(to_tensor(lr[None])))[0]

    def close(self) -> None:
        self._runner.close()


def open_session(
    artifact: str | Path | None = None,
    backend: str = AUTO,
    *,
    verify: bool = True,
    fallback: bool = False,
    say: Say = lambda line: None,
) -> Session:
    """Open an artifact or a folder of them: else ./artifacts/aminet-edge, else the packed model.

    `auto` takes what was quickest here of the artifacts and backends that passed their probes; the
    first time it tries them all, which `say` hears. With a named backend int8.onnx of a folder is
    taken if it passes, else fp32.onnx. `fallback` allows the next backend or artifact after any
    other error too, and fp32.onnx in place of a named artifact. `verify=False` runs no probes and
    tries nothing; the hashes are always compared. Raises EdgeError.
    """
    paths, searched = _candidates(artifact, fallback)
    if backend == AUTO and paths[0].suffix == ENGINE:
        backend = TensorRtSession.name
    if backend == AUTO and verify:
        return _open_quickest(paths, searched, fallback, say)
    backends = [OnnxRuntimeSession.name if backend == AUTO else backend]
    if fallback:
        backends += [name for name in installed_backends() if name not in backends]
    *routes, last = _routes(paths, backends)
    passed_over: list[str] = []
    for path, name in routes:
        try:
            return _open(path, name, verify, tuple(passed_over))
        except EdgeError as error:
            if not (fallback or (searched and error.status == EXIT_DRIFT)):
                raise
            passed_over.append(str(error))
    return _open(*last, verify, tuple(passed_over))


@overload
def enlarge(image: Pixels, *, reduce: bool = False) -> Pixels: ...
@overload
def enlarge(image: Image.Image, *, reduce: bool = False) -> Image.Image: ...


def enlarge(image: Pixels | Image.Image, *, reduce: bool = False) -> Pixels | Image.Image:
    """Session.enlarge with a session that is opened at the first call and kept."""
    with _OPENING:
        session = _kept_session()
    return session.enlarge(image, reduce=reduce)


_OPENING = threading.Lock()


@functools.cache
def _kept_session() -> Session:
    return open_session()


def _open_quickest(paths: Sequence[Path], searched: bool, fallback: bool, say: Say) -> Session:
    """What was chosen at an earlier start, if it still passes; else the winner of a contest."""
    installed = installed_backends() or {OnnxRuntimeSession.name: "missing"}
    folder = paths[0].parent
    engines = find_engines(folder) if searched else []
    key = _choice_key([*paths, *engines], installed)
    if key and (chosen := choice.recall(key)):
        try:
            artifact = folder / chosen.artifact
            return _open(artifact, chosen.backend, True, chosen.passed_over, chosen)
        except EdgeError:
            pass  # the contest finds out what may be taken in its place
    routes = _routes(paths, list(installed))
    routes += [(engine, TensorRtSession.name) for engine in engines]
    session, chosen = choice.contest(routes, _open, searched, fallback, say)
    if key:
        choice.remember(key, chosen)
    session.choice, session.passed_over = chosen, chosen.passed_over
    return session


def _routes(paths: Sequence[Path], backends: Sequence[str]) -> list[tuple[Path, str]]:
    """Each artifact in each backend; all of them if that leaves none."""
    everything = [(path, backend) for path in paths for backend in backends]
    made_for = [
        (path, backend)
        for path, backend in everything
        if (path.suffix == ENGINE) == (backend == TensorRtSession.name)
        and (len(paths) == 1 or MADE_FOR.get(path.name, backend) == backend)
    ]
    return made_for or everything


def _choice_key(paths: Sequence[Path], installed: Mapping[str, str]) -> dict[str, str] | None:
    """All that a choice depends on; None if a manifest cannot be read."""
    try:
        folder = paths[0].parent
        digests = [f"{path.relative_to(folder)} {read_manifest(path).digest}" for path in paths]
    except EdgeError:
        return None
    return {
        "choice": choice.CHOICE_VERSION,
        "artifacts": ", ".join(digests),
        "backends": ", ".join(" ".join(pair) for pair in installed.items()),
        "processor": f"{processor()}, {usable_cores()} cores",
    }


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
    if path.suffix == ENGINE:
        source = probes_path(path).with_name(f"{path.stem}.onnx")
        return f"python -m export.tensorrt --artifact {source}"
    if manifest.precision == "fp32":
        return "python -m export.onnx"
    return f"python -m quantize.{manifest.precision} --artifact {path.with_name('fp32.onnx')}"


def measure(runner: Runner, artifact: Artifact) -> Verdict:
    """Run the probes and judge them, whatever is remembered."""
    probes = drift.decode_probes(artifact.probes, str(probes_path(artifact.path)))
    return Verdict(drift.measure(runner.run, probes), drift.limit(artifact.manifest, runner.name))


def open_backend(name: str, artifact: Artifact) -> Runner:
    """Open the model in one of BACKENDS or GPU_BACKENDS; status 5 for one that is not here.

    'auto' runs an engine in TensorRT, anything else in ONNX Runtime.
    """
    if artifact.path.suffix == ENGINE or name == TensorRtSession.name:
        return _open_engine(name, artifact)
    if name in GPU_BACKENDS:
        return OnnxRuntimeGpuSession(artifact.model, str(artifact.path), GPU_BACKENDS[name])
    if name in (AUTO, OnnxRuntimeSession.name):
        return OnnxRuntimeSession(artifact.model, str(artifact.path))
    if name == OpenVinoSession.name:
        return OpenVinoSession(artifact.model, str(artifact.path))
    raise EdgeError(f"no backend is called {name}, expected {', '.join(BACKENDS)}", EXIT_USAGE)


def with_provider(backend: str, provider: str | None) -> str:
    """The name of a backend whose work --provider does; EdgeError with status 2 if it has none."""
    if provider in (None, "cpu"):
        return backend
    if backend not in (AUTO, OnnxRuntimeSession.name):
        raise EdgeError(
            f"--provider {provider} is ONNX Runtime's; give --backend onnxruntime", EXIT_USAGE
        )
    return f"{OnnxRuntimeSession.name}-{provider}"


def _open_engine(name: str, artifact: Artifact) -> Runner:
    """An engine in TensorRT; EdgeError if either is something else."""
    path = artifact.path
    if path.suffix != ENGINE:
        raise EdgeError(
            f"{path}: is no engine, which --backend tensorrt needs; build one on this device:"
            f" python -m export.tensorrt --artifact {path}",
            EXIT_MISSING,
        )
    if name not in (AUTO, TensorRtSession.name):
        raise EdgeError(
            f"{path}: is an engine, which --backend {name} does not run; use --backend tensorrt",
            EXIT_USAGE,
        )
    return TensorRtSession(artifact.model, artifact.manifest, str(path))


def _candidates(artifact: str | Path | None, fallback: bool) -> tuple[list[Path], bool]:
    """The artifacts to try in turn, and whether they were searched for rather than named."""
    if artifact is not None and not Path(artifact).is_dir():
        named = Path(artifact)
        spare = probes_path(named).with_name("fp32.onnx")
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


def _open(
    path: Path,
    backend: str,
    verify: bool = True,
    passed_over: tuple[str, ...] = (),
    chosen: Choice | None = None,
) -> Session:
    artifact = read_artifact(path)
    if not verify:
        return Session(artifact, open_backend(backend, artifact), None, passed_over, chosen)
    runner, runs_sha256 = _open_optimized(backend, artifact)
    try:
        verdict = _verdict(runner, artifact, runs_sha256)
    except EdgeError:
        runner.close()
        raise
    return Session(artifact, runner, verdict, passed_over, chosen)


def _open_optimized(backend: str, artifact: Artifact) -> tuple[Runner, str]:
    """The backend with the model, and the SHA-256 of the bytes that it runs.

    ONNX Runtime is given the graph as it optimized it at an earlier start, if it was kept.
    """
    optimizable = backend == OnnxRuntimeSession.name and artifact.path.suffix != ENGINE
    if not optimizable or not cache.is_writable():
        return open_backend(backend, artifact), artifact.manifest.sha256
    key = {
        "optimized": artifact.manifest.sha256,
        "onnxruntime": installed_backends().get(backend, ""),
        "processor": processor(),
    }
    kept = cache.recall_file(key, MAX_ARTIFACT_BYTES)
    if kept is None:
        kept = optimize(artifact.model, str(artifact.path))
        if not cache.remember_file(key, kept):
            return open_backend(backend, artifact), artifact.manifest.sha256
    return OnnxRuntimeSession(kept, str(artifact.path), optimized=True), sha256_bytes(kept)


def _verdict(runner: Runner, artifact: Artifact, runs_sha256: str) -> Verdict:
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
