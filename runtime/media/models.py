"""The models of a run: one for face images, one for the faces of photos and videos.

Each is opened when the first image that needs it has been read, and proved on its probes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from runtime import places
from runtime.errors import EXIT_MISSING, EXIT_PRECISION, EdgeError
from runtime.places import DEFAULT_MODEL, PREFERENCE
from runtime.session import Session, open_session

# For each style the models of faces and of photos, the best first.
NATURAL, SHARP = "natural", "sharp"
FACES = {NATURAL: (DEFAULT_MODEL, "aminet-real"), SHARP: ("amigan-edge", "amigan-real")}
PHOTOS = {NATURAL: ("aminet-real", DEFAULT_MODEL), SHARP: ("amigan-real", "amigan-edge")}


class OpeningError(EdgeError):
    """A model cannot be opened: no input can be upscaled, so the run ends."""


@dataclass(frozen=True)
class ModelOptions:
    """Which model is run: a file or folder, else the style's; and how it is opened."""

    artifact: str | None = None
    backend: str = "auto"
    style: str = NATURAL
    fallback: bool = False
    require_precision: str | None = None


class Models:
    """Opens the models of `options`, each once; a context manager.

    `workers` threads will call each; None leaves to a measurement how many calls share the cores.
    With `one_image` the start counts where a model may run in several ways, and a model for face
    images does not spin.
    """

    def __init__(
        self,
        options: ModelOptions,
        say: Callable[[str], None],
        workers: int | None = 1,
        *,
        one_image: bool = False,
    ) -> None:
        self._options = options
        self._workers = workers
        self._say = say
        self._one_image = one_image
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}

    def __enter__(self) -> Models:
        return self

    def __exit__(self, *_: object) -> None:
        for session in self.opened:
            session.close()

    @property
    def opened(self) -> list[Session]:
        """Those that were needed so far, in that order."""
        return list(self._sessions.values())

    def newest(self) -> float:
        """When the newest file that may be run was written, in seconds; older results are stale."""
        times = [0.0]
        for names in (FACES, PHOTOS):
            try:
                there = Path(self._options.artifact or self._find(names[self._options.style]))
            except EdgeError:
                continue
            files = [there / name for name in PREFERENCE] if there.is_dir() else [there]
            times += [path.stat().st_mtime for path in files if path.is_file()]
        return max(times)

    def for_faces(self) -> Session:
        return self._open(FACES, spin=not self._one_image)

    def for_photos(self) -> Session:
        return self._open(PHOTOS)

    def _open(self, names: Mapping[str, tuple[str, ...]], *, spin: bool = True) -> Session:
        with self._lock:
            try:
                artifact = self._options.artifact or self._find(names[self._options.style])
                if artifact not in self._sessions:
                    self._sessions[artifact] = self._open_one(artifact, spin)
            except EdgeError as error:
                raise OpeningError(str(error), error.status) from error
            return self._sessions[artifact]

    def _open_one(self, artifact: str, spin: bool) -> Session:
        options = self._options
        session = open_session(
            artifact or None,
            options.backend,
            workers=self._workers,
            spin=spin,
            once=self._one_image,
            fallback=options.fallback,
            say=self._say,
        )
        precision = options.require_precision
        if precision and session.manifest.computed_in != precision:
            session.close()
            raise EdgeError(
                f"{session.artifact}: runs as {session.manifest.executes_as}, --require-precision"
                f" says {precision}; give an --artifact of it",
                EXIT_PRECISION,
            )
        return session

    def _find(self, names: tuple[str, ...]) -> str:
        """The folder of the first model that is there; "" leaves it to open_session."""
        if found := places.find_model(names):
            return str(found)
        if self._options.style == NATURAL:
            return ""
        raise EdgeError(
            f"--style {self._options.style}: no {' or '.join(names)} in artifacts; export it:"
            f" python -m export.onnx --model {names[0]}",
            EXIT_MISSING,
        )
