"""Which artifact in which backend, and how it is called: the fastest here within its drift limit.

The first start on a machine times all that passed their probes, and the choice is remembered with
its reason. These are values and rules; runtime/session.py opens what is tried.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np

from runtime import cache
from runtime.backends.base import Threads
from runtime.errors import EdgeError
from runtime.formats import ONNX, format_of
from runtime.places import Route
from runtime.shapes import S, Shape, ShapeCandidate, find_shape, random_faces
from runtime.timing import take_turns

CHOICE_VERSION = "5"  # another one when what is remembered, or how it is chosen, changes
ONE_IMAGE = "one image"  # what a choice is for whose start counts as well
TURNS = 3  # of each, if there is more than one
SWITCH_GAIN = 1.15  # times that something else must be faster than what is preferred
SWITCH_GAIN_MS = 100  # and so much sooner for one image: less is not noticed

Open = Callable[[Path, str, Threads], S]


@dataclass(frozen=True)
class Trial:
    """One artifact in one backend: the median time of a face, or why it was not taken.

    `open_ms` it took to open and prove it; the first in a backend loaded its library as well.
    """

    artifact: str
    backend: str
    face_ms: float | None = None
    fidelity_db: float | None = None
    error: str | None = None
    open_ms: float | None = None


@dataclass(frozen=True)
class Choice:
    """What is opened by `auto`, and why.

    It is the fastest when it is called in this `shape`; `passed_over` says which artifacts were not
    sound and why.
    """

    artifact: str
    backend: str
    reason: str
    shape: Shape
    passed_over: tuple[str, ...] = ()
    trials: tuple[Trial, ...] = ()
    remembered: bool = False

    @property
    def threads(self) -> Threads:
        return Threads(self.shape.threads, self.shape.workers)


def compete(
    routes: Sequence[Route],
    open_route: Open[S],
    ways: Sequence[Threads],
    skips: Callable[[EdgeError], bool],
    say: Callable[[str], None],
    *,
    once: bool = False,
) -> tuple[S, Choice]:
    """Open all, time them, keep the fastest open; `say` hears that there is more than one.

    They share the cores in the first of the `ways`, and the fastest is tried in the others too. An
    artifact that opens in no backend is passed over if `skips` says so of its error, else that is
    raised. The first is in the folder that the others are named from. The files of devices come
    last; one that does not open is left out. For what is run `once` the start counts as well.
    """
    sessions, opened_ms, failed, passed_over = _open_all(routes, open_route, ways[0], skips, say)
    try:
        trials = [*_time(sessions, opened_ms, routes[0][0].parent), *failed]
        taken, reason = pick(trials, once=once)
        fastest = sessions[trials.index(taken)]
        others = _open_others(fastest, open_route, ways[1:])
        sessions += others
        winner, shape = find_shape([fastest, *others])
    except BaseException:
        _close(sessions)
        raise
    _close([session for session in sessions if session is not winner])
    return winner, Choice(
        taken.artifact, taken.backend, reason, shape, tuple(passed_over), tuple(trials)
    )


def _open_all(
    routes: Sequence[Route],
    open_route: Open[S],
    threads: Threads,
    skips: Callable[[EdgeError], bool],
    say: Callable[[str], None],
) -> tuple[list[S], list[float], list[Trial], list[str]]:
    """The sessions of all routes that open, the milliseconds that took, what failed and why."""
    sessions: list[S] = []
    opened_ms: list[float] = []
    failed: list[Trial] = []
    passed_over: list[str] = []
    told = False
    folder = routes[0][0].parent
    try:
        for path, alternatives in groupby(routes, key=lambda route: route[0]):
            errors = []
            before = len(sessions)
            for _, backend in alternatives:
                if sessions and not told:
                    told = True
                    say(f"first start: trying {len(routes)} ways to run {folder} on the probes")
                clock = time.perf_counter()
                try:
                    sessions.append(open_route(path, backend, threads))
                    opened_ms.append((time.perf_counter() - clock) * 1e3)
                except EdgeError as error:
                    errors.append(error)
                    failed.append(Trial(_name(path, folder), backend, error=str(error)))
            if len(sessions) > before or (format_of(path) is not ONNX and sessions):
                continue
            last = path == routes[-1][0] and not sessions
            if last or not skips(errors[0]):
                raise errors[0]
            passed_over.append(str(errors[0]))
    except BaseException:
        _close(sessions)
        raise
    return sessions, opened_ms, failed, passed_over


def _time(
    sessions: Sequence[ShapeCandidate], opened_ms: Sequence[float], folder: Path
) -> list[Trial]:
    """Single faces in all sessions, in turns."""
    runs, turns = [session.run for session in sessions], TURNS if len(sessions) > 1 else 1
    face, callers = random_faces(sessions[0], 1), sessions[0].threads.callers
    turns_ms = take_turns(runs, face, turns, callers)
    return [
        Trial(
            _name(session.artifact, folder),
            session.backend,
            float(np.median(taken_ms)),
            session.verdict.fidelity_db if session.verdict else None,
            open_ms=open_ms,
        )
        for session, taken_ms, open_ms in zip(sessions, turns_ms, opened_ms, strict=True)
    ]


def _open_others(fastest: S, open_route: Open[S], ways: Sequence[Threads]) -> list[S]:
    """The same with its cores shared in other ways; one that does not open is left out."""
    opened = []
    for threads in ways:
        with contextlib.suppress(EdgeError):
            opened.append(open_route(fastest.artifact, fastest.backend, threads))
    return opened


def pick(trials: Sequence[Trial], *, once: bool = False) -> tuple[Trial, str]:
    """The first of those that are about as fast as the fastest, and the reason in words.

    They come in the order of preference: the smaller file first, and the backend that is always
    there, since another takes longer to load. For what is run `once` that counts in full, as the
    longest of a backend: the first that was opened loaded its library.
    """
    starts_ms = _starts_ms(trials) if once else {}
    timed = [
        (trial.face_ms + starts_ms.get(trial.backend, 0.0), trial)
        for trial in trials
        if trial.face_ms is not None
    ]
    fastest_ms = min(ms for ms, _ in timed)
    enough_ms = max(SWITCH_GAIN * fastest_ms, fastest_ms + SWITCH_GAIN_MS if once else 0)
    taken_ms, taken = next(each for each in timed if each[0] <= enough_ms)
    others = [
        f"{trial.artifact} in {trial.backend} {ms:.2f}" for ms, trial in timed if trial is not taken
    ]
    failed = [
        f"{trial.artifact} in {trial.backend} was not taken" for trial in trials if trial.error
    ]
    unit = "ms for the start and a face" if once else "ms a face"
    reason = "; ".join([f"{taken_ms:.2f} {unit}", *others, *failed])
    return taken, reason if len(trials) > 1 else f"{reason}; nothing else is here"


def _starts_ms(trials: Sequence[Trial]) -> dict[str, float]:
    """The longest that opening took in each backend."""
    starts_ms: dict[str, float] = {}
    for trial in trials:
        starts_ms[trial.backend] = max(starts_ms.get(trial.backend, 0.0), trial.open_ms or 0.0)
    return starts_ms


def recall(key: dict[str, str]) -> Choice | None:
    """The choice that was remembered for exactly these files, backends and processor."""
    record = cache.recall(key)
    if record is None:
        return None
    parts = {
        "shape": Shape(**record["shape"]),
        "trials": tuple(Trial(**trial) for trial in record["trials"]),
        "passed_over": tuple(record["passed_over"]),
    }
    return replace(Choice(**{**record, **parts}), remembered=True)


def remember(key: dict[str, str], choice: Choice) -> None:
    record = asdict(choice)
    del record["remembered"]
    cache.remember(key, record)


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _close(sessions: Sequence[ShapeCandidate]) -> None:
    for session in sessions:
        session.close()
