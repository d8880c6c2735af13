"""An artifact, opened in a backend and proved on the probes before the first face.

with open_session() as session:
    sr = session.upscale(face)
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runtime import selection
from runtime.artifact import Artifact, read_artifact
from runtime.backends.base import Closing
from runtime.backends.engine_files import find_engines
from runtime.backends.installed import installed_backends
from runtime.backends.onnxruntime import OnnxRuntimeSession
from runtime.backends.open import AUTO, Runner, open_backend, open_optimized
from runtime.backends.openvino import OpenVinoSession
from runtime.backends.tensorrt import TensorRtSession
from runtime.cpu import processor, usable_cores
from runtime.errors import EXIT_DRIFT, EXIT_ERROR, EXIT_MISSING, EdgeError
from runtime.formats import ONNX, format_for, format_of
from runtime.image import Tensor, fit_face, to_pixels, to_rgb, to_tensor
from runtime.manifest import probes_path, read_manifest
from runtime.selection import Choice
from runtime.verification import Verdict, find_verdict

DEFAULT_MODEL = "aminet-edge"
PREFERENCE = ("int8.onnx", "int8-openvino.onnx", "fp32.onnx")  # the quickest first
MADE_FOR = {"int8-openvino.onnx": OpenVinoSession.name}  # other files suit any backend
DEVICE_FILES = {  # of each backend, the fastest first
    "litert": ("litert/int8.tflite", "litert/fp32.tflite"),
    "ncnn": ("ncnn/int8.param", "ncnn/fp32.param"),
}

Say = Callable[[str], None]


class Session(Closing):
    """A model ready to upscale faces, on any number of threads; a context manager.

    `verdict` is None if the session was opened without `verify`; `choice` is None if its backend
    was named. `passed_over` says what was tried before and why it was not taken. `lr_side` is the
    side of the faces that `run` takes, in px; at least `batch` of them at once are the fastest.
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
        self.lr_side = runner.lr_side
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
        """Upscale lr (N, 3, S, S), float32 in [0, 1], to (N, 3, 128, 128), not clipped.

        S is `lr_side`. EdgeError for anything else, and for outputs that are not finite.
        """
        sr = self._runner.run(lr)
        if not np.isfinite(sr).all():
            raise EdgeError(
                f"{self.artifact}: gave numbers that are not finite; python -m runtime.check"
                f" {self.artifact}",
                EXIT_DRIFT,
            )
        return sr

    @overload
    def upscale(self, image: Image.Image, *, reduce: bool = False) -> Image.Image: ...
    @overload
    def upscale(self, image: NDArray[Any], *, reduce: bool = False) -> NDArray[Any]: ...

    def upscale(
        self, image: NDArray[Any] | Image.Image, *, reduce: bool = False
    ) -> NDArray[Any] | Image.Image:
        """Upscale a face, about square, to 128x128: an RGB Pillow image, or an array (128, 128, 3).

        Arrays are (H, W) or (H, W, C) with gray, RGB or RGBA channels, of uint8 or, in [0, 1], of
        floats; the result is of the same kind. `reduce` shrinks a face that is larger than the
        model's first. Raises EdgeError for any other image.
        """
        pixels = to_rgb(image)
        lr = fit_face(pixels, "the image", side=self.lr_side, reduce=reduce, option="reduce=True")
        sr = to_pixels(self.run(to_tensor(lr[None])))[0]
        if isinstance(image, Image.Image):
            return Image.fromarray(sr)
        return sr if image.dtype == np.uint8 else (sr / 255).astype(image.dtype)

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
    paths, searched = _candidates(artifact, backend, fallback)
    if backend == AUTO and (kind := format_of(paths[0])) is not ONNX:
        backend = kind.backends[0]
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
def upscale(image: Image.Image, *, reduce: bool = False) -> Image.Image: ...
@overload
def upscale(image: NDArray[Any], *, reduce: bool = False) -> NDArray[Any]: ...


def upscale(
    image: NDArray[Any] | Image.Image, *, reduce: bool = False
) -> NDArray[Any] | Image.Image:
    """Session.upscale with a session that is opened at the first call and kept."""
    with _OPENING:
        session = _kept_session()
    return session.upscale(image, reduce=reduce)


_OPENING = threading.Lock()


@functools.cache
def _kept_session() -> Session:
    return open_session()


def _open_quickest(paths: Sequence[Path], searched: bool, fallback: bool, say: Say) -> Session:
    """What was chosen at an earlier start, if it still passes; else the winner of a contest."""
    installed = installed_backends() or {OnnxRuntimeSession.name: "missing"}
    folder = paths[0].parent
    others = _device_files(folder, installed) if searched else []
    key = _choice_key([*paths, *(path for path, _ in others)], installed)
    if key and (chosen := selection.recall(key)):
        try:
            artifact = folder / chosen.artifact
            return _open(artifact, chosen.backend, True, chosen.passed_over, chosen)
        except EdgeError:
            pass  # the contest finds out what may be taken in its place
    routes = [*_routes(paths, list(installed)), *others]
    session, chosen = selection.contest(routes, _open, searched, fallback, say)
    if key:
        selection.remember(key, chosen)
    session.choice, session.passed_over = chosen, chosen.passed_over
    return session


def _device_files(folder: Path, installed: Mapping[str, str]) -> list[tuple[Path, str]]:
    """The files for other backends that lie below a model's folder, the quickest of each."""
    routes = [(engine, TensorRtSession.name) for engine in find_engines(folder)]
    for backend, names in DEVICE_FILES.items():
        found = [folder / name for name in names if (folder / name).is_file()]
        if found and backend in installed:
            routes.append((found[0], backend))
    return routes


def _routes(paths: Sequence[Path], backends: Sequence[str]) -> list[tuple[Path, str]]:
    """Each artifact in each backend; all of them if that leaves none."""
    everything = [(path, backend) for path in paths for backend in backends]
    made_for = [
        (path, backend)
        for path, backend in everything
        if format_of(path) is format_for(backend)
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
        "choice": selection.CHOICE_VERSION,
        "artifacts": ", ".join(digests),
        "backends": ", ".join(" ".join(pair) for pair in installed.items()),
        "processor": f"{processor()}, {usable_cores()} cores",
    }


def _candidates(
    artifact: str | Path | None, backend: str, fallback: bool
) -> tuple[list[Path], bool]:
    """The artifacts to try in turn, and whether they were searched for rather than named."""
    if artifact is not None and not Path(artifact).is_dir():
        named = Path(artifact)
        spare = probes_path(named).with_name("fp32.onnx")
        return [named, spare] if fallback and spare != named else [named], False
    packed = Path(__file__).parent / "models" / DEFAULT_MODEL
    folders = [Path(artifact)] if artifact else [Path("artifacts", DEFAULT_MODEL), packed]
    names: tuple[str, ...] = DEVICE_FILES.get(backend, PREFERENCE)
    names += PREFERENCE if fallback and names is not PREFERENCE else ()
    for folder in folders:
        if found := [folder / name for name in names if (folder / name).is_file()]:
            return found, True
    raise EdgeError(
        f"no model in {' or '.join(map(str, folders))}, expected {' or '.join(names)};"
        f" make one: {format_for(backend).make}",
        EXIT_MISSING if backend in DEVICE_FILES else EXIT_ERROR,
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
    runner, runs_sha256 = open_optimized(backend, artifact)
    try:
        verdict = find_verdict(runner, artifact, runs_sha256)
    except EdgeError:
        runner.close()
        raise
    return Session(artifact, runner, verdict, passed_over, chosen)
