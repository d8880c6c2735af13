"""An artifact, opened in a backend and proved on the probes before the first face.

with open_session() as session:
    sr = session.upscale(face)
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runtime import selection
from runtime.artifact import Artifact, read_artifact
from runtime.backends.base import ALL_CORES, Closing, Threads, check_lr
from runtime.backends.installed import installed_backends
from runtime.backends.open import AUTO, GPU_BACKENDS, Runner, open_backend, open_optimized
from runtime.cpu import processor, usable_cores
from runtime.divided import DividedBatches
from runtime.errors import EXIT_DRIFT, EXIT_USAGE, EdgeError
from runtime.formats import ONNX, format_of
from runtime.image import Tensor, fit_face, to_pixels, to_rgb, to_tensor
from runtime.manifest import read_manifest
from runtime.places import DEFAULT_MODEL as DEFAULT_MODEL
from runtime.places import Route, find_artifacts, find_device_files, find_routes
from runtime.selection import ONE_IMAGE, Choice
from runtime.shapes import ways_to_share
from runtime.verification import Verdict, find_verdict

Say = Callable[[str], None]


class Session(Closing):
    """A model ready to upscale faces, on any number of threads; a context manager.

    `verdict` is None if the session was opened without `verify`; `choice` is None if its backend
    was named. `passed_over` says what was tried before and why it was not taken. `lr_side` is the
    side of the faces that `run` takes, in px. It is the fastest when `workers` threads call it at
    once with `batch` faces each; `threads` says what it was opened for.
    """

    def __init__(
        self,
        artifact: Artifact,
        runner: Runner,
        verdict: Verdict | None,
        passed_over: tuple[str, ...] = (),
        threads: Threads = ALL_CORES,
    ) -> None:
        self.artifact = artifact.path
        self.manifest = artifact.manifest
        self.lr_side = runner.lr_side
        self.backend = runner.name
        self.backend_version = runner.version
        self.verdict = verdict
        self.passed_over = passed_over
        self.threads = threads
        self.choice: Choice | None = None
        self._runner = runner
        self._divided: DividedBatches | None = None

    @property
    def batch(self) -> int:
        return self.choice.shape.batch if self.choice else 1

    @property
    def workers(self) -> int:
        return self.threads.callers

    def run(self, lr: Tensor) -> Tensor:
        """Upscale lr (N, 3, S, S), float32 in [0, 1], to (N, 3, 128, 128), not clipped.

        S is `lr_side`. EdgeError for anything else, and for outputs that are not finite.
        """
        if self._divided is None:
            sr = self._runner.run(lr)
        else:
            check_lr(lr, self.lr_side)
            sr = self._divided.run(lr, self._runner.run)
        if not np.isfinite(sr).all():
            raise EdgeError(
                f"{self.artifact}: gave numbers that are not finite. See python -m runtime.check"
                f" {self.artifact}",
                EXIT_DRIFT,
            )
        return sr

    def upscale_faces(self, lr: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Upscale faces (N, S, S, 3) to (N, 128, 128, 3), as many at once as is fast."""
        batches = (lr[at : at + self.batch] for at in range(0, len(lr), self.batch))
        return np.concatenate([to_pixels(self.run(to_tensor(batch))) for batch in batches])

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

    def dividing_batches(self) -> Session:
        """Itself, whose threads share a batch from now on where that is faster.

        OpenVINO's do so by themselves; and what is opened for one image (`spin` is off) would take
        longer to open a second time than its faces take.
        """
        count = self.threads.each or usable_cores()
        alone = self.threads.callers == 1 and self.threads.spin and count > 1
        if self.backend == ONNX.backends[0] and alone:
            self._divided = DividedBatches(lambda: self._open_one_threaded(count), count)
        return self

    def _open_one_threaded(self, callers: int) -> Session:
        verify = self.verdict is not None
        session = _open(self.artifact, self.backend, Threads(1, callers), verify)
        if session.manifest != self.manifest:
            session.close()
            raise EdgeError(f"{self.artifact}: was replaced after it had been opened")
        return session

    def close(self) -> None:
        self._runner.close()
        if self._divided:
            self._divided.close()


def open_session(
    artifact: str | Path | None = None,
    backend: str = AUTO,
    *,
    threads: int | None = None,
    workers: int | None = 1,
    spin: bool = True,
    once: bool = False,
    verify: bool = True,
    fallback: bool = False,
    say: Say = lambda line: None,
) -> Session:
    """Open an artifact or a folder of them: else ./artifacts/aminet-edge, else the packed model.

    `auto` takes what was fastest here of the artifacts and backends that passed their probes; the
    first time it tries them all, which `say` hears. For what is run `once`, by a command for one
    image, the start counts as well. With a named backend int8.onnx of a folder is taken if it
    passes, else fp32.onnx. `workers` threads will call `run` at once, each on one thread; None: as
    many as are the fastest here, for many faces. One worker has all cores. `threads` of the CPU for
    each call may be named instead. Without `spin` threads sleep while they wait: a face takes
    longer, and opening, which spinning slows down, is faster by more. `fallback` allows the next
    backend or artifact after any other error too, and fp32.onnx in place of a named artifact.
    `verify=False` runs no probes and tries nothing; the hashes are always compared.
    Raises EdgeError.
    """
    paths, searched = find_artifacts(artifact, backend, fallback=fallback)
    if backend == AUTO and (kind := format_of(paths[0])) is not ONNX and kind.backends:
        backend = kind.backends[0]
    ways = [replace(way, spin=spin) for way in _ways_to_share(backend, threads, workers)]

    def skips(error: EdgeError) -> bool:
        return fallback or (searched and error.status == EXIT_DRIFT)

    if backend == AUTO and verify:
        others = find_device_files(paths[0].parent, installed_backends()) if searched else []
        return _open_fastest(paths, others, ways, skips, say, once=once).dividing_batches()
    backends = [ONNX.backends[0] if backend == AUTO else backend]
    if fallback:
        backends += [name for name in installed_backends() if name not in backends]
    *routes, last = find_routes(paths, backends)
    passed_over: list[str] = []
    for path, name in routes:
        try:
            return _open(path, name, ways[0], verify, tuple(passed_over)).dividing_batches()
        except EdgeError as error:
            if not skips(error):
                raise
            passed_over.append(str(error))
    return _open(*last, ways[0], verify, tuple(passed_over)).dividing_batches()


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


def _ways_to_share(backend: str, threads: int | None, workers: int | None) -> list[Threads]:
    for name, count in (("threads", threads), ("workers", workers)):
        if count is not None and count < 1:
            raise EdgeError(f"{name} is {count}, expected 1 or more", EXIT_USAGE)
    if backend == "tensorrt" or backend in GPU_BACKENDS:
        if threads is not None:
            raise EdgeError(
                f"threads={threads}: backend {backend} computes on a GPU; leave it out", EXIT_USAGE
            )
        return [Threads(None, workers or 1)]
    return ways_to_share(threads, workers, usable_cores())


def _open_fastest(
    paths: Sequence[Path],
    others: Sequence[Route],
    ways: Sequence[Threads],
    skips: Callable[[EdgeError], bool],
    say: Say,
    *,
    once: bool,
) -> Session:
    """What was chosen at an earlier start, if it still passes; else the fastest of all."""
    installed = installed_backends() or {ONNX.backends[0]: "missing"}
    folder = paths[0].parent
    key = _choice_key([*paths, *(path for path, _ in others)], installed, ways, once)
    if key and (choice := selection.recall(key)):
        try:
            path, passed_over = folder / choice.artifact, choice.passed_over
            threads = replace(choice.threads, spin=ways[0].spin)
            session = _open(path, choice.backend, threads, True, passed_over)
        except EdgeError:
            pass  # trying all finds out what may be taken in its place
        else:
            session.choice = choice
            return session
    routes = [*find_routes(paths, list(installed)), *others]
    session, choice = selection.compete(routes, _open, ways, skips, say, once=once)
    if key:
        selection.remember(key, choice)
    session.choice, session.passed_over = choice, choice.passed_over
    return session


def _choice_key(
    paths: Sequence[Path], installed: Mapping[str, str], ways: Sequence[Threads], once: bool
) -> dict[str, str] | None:
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
        "ways": "; ".join(map(str, ways)),
        "for": ONE_IMAGE if once else "many",
    }


def _open(
    path: Path,
    backend: str,
    threads: Threads,
    verify: bool = True,
    passed_over: tuple[str, ...] = (),
) -> Session:
    artifact = read_artifact(path)
    if artifact.manifest.network is not None:
        raise EdgeError(
            f"{path}: is another network than AMINet, which upscales no faces; run it in ONNX"
            f" Runtime, check it: python -m runtime.check {path}"
        )
    if not verify:
        runner = open_backend(backend, artifact, threads)
        return Session(artifact, runner, None, passed_over, threads)
    runner, runs_sha256 = open_optimized(backend, artifact, threads)
    try:
        verdict = find_verdict(runner, artifact, runs_sha256)
    except EdgeError:
        runner.close()
        raise
    return Session(artifact, runner, verdict, passed_over, threads)
