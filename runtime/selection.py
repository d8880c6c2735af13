"""Which artifact in which backend: the quickest here that holds its drift limit.

The first start on a machine times all that passed their probes, and the choice is remembered with
its reason. These are values and rules; runtime/session.py opens what is tried.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from runtime import cache
from runtime.errors import EXIT_DRIFT, EdgeError
from runtime.formats import ONNX, format_of
from runtime.image import Tensor, to_pixels

CHOICE_VERSION = "3"  # another one when what is remembered, or how it is chosen, changes
BATCH = 8  # faces that are run at once where this is quicker
TURNS = 3  # of each, if there is more than one
WARM_UP_RUNS, TIMED_RUNS = 2, 5  # in a turn
TIMED_BATCHES = 2
SWITCH_GAIN = 1.15  # times that something else must be quicker than what is preferred
BATCH_GAIN = 1.1
MAX_BATCH_LEVELS = 1  # gray levels of 255 that a face in a batch may differ from the same alone

if TYPE_CHECKING:
    from runtime.session import Session

Run = Callable[[Tensor], Tensor]
Route = tuple[Path, str]  # an artifact and a backend


@dataclass(frozen=True)
class Trial:
    """One artifact in one backend: the median time of a face, or why it was not taken."""

    artifact: str
    backend: str
    face_ms: float | None = None
    fidelity_db: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class Choice:
    """What is opened by `auto`, and why.

    `batch` faces are run at once, which changes a pixel by at most `batch_levels` of 255;
    `passed_over` says which artifacts were not sound and why.
    """

    artifact: str
    backend: str
    reason: str
    batch: int = 1
    batch_levels: int = 0
    passed_over: tuple[str, ...] = ()
    trials: tuple[Trial, ...] = ()
    remembered: bool = False


def contest(
    routes: Sequence[Route],
    open_route: Callable[[Path, str], Session],
    searched: bool,
    fallback: bool,
    say: Callable[[str], None],
) -> tuple[Session, Choice]:
    """Open all, time them, keep the quickest open; `say` hears that there is more than one.

    An artifact that opens in no backend is passed over if it drifted and was `searched` for rather
    than named, or with `fallback`; else its error is raised. The first is in the folder that the
    others are named from. The files of devices come last; one that does not open is left out.
    """
    sessions: list[Session] = []
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
                try:
                    sessions.append(open_route(path, backend))
                except EdgeError as error:
                    errors.append(error)
                    failed.append(Trial(_name(path, folder), backend, error=str(error)))
            if len(sessions) > before or (format_of(path) is not ONNX and sessions):
                continue
            last = path == routes[-1][0] and not sessions
            if last or not (fallback or (searched and errors[0].status == EXIT_DRIFT)):
                raise errors[0]
            passed_over.append(str(errors[0]))
    except EdgeError:
        _close(sessions)
        raise
    winner, chosen = _judge(sessions, folder, failed, passed_over)
    _close([session for session in sessions if session is not winner])
    return winner, chosen


def _judge(
    sessions: Sequence[Session],
    folder: Path,
    failed: Sequence[Trial],
    passed_over: Sequence[str],
) -> tuple[Session, Choice]:
    side = sessions[0].lr_side
    faces = np.random.default_rng(0).random((BATCH, 3, side, side), np.float32)
    runs = [session.run for session in sessions]
    turns_ms = take_turns(runs, faces[:1], TURNS if len(runs) > 1 else 1)
    times_ms = [float(np.median(turns)) for turns in turns_ms]
    trials = [
        Trial(
            _name(session.artifact, folder),
            session.backend,
            ms,
            session.verdict.fidelity_db if session.verdict else None,
        )
        for session, ms in zip(sessions, times_ms, strict=True)
    ]
    taken, reason = pick([*trials, *failed])
    session = sessions[trials.index(taken)]
    batch, levels = time_batch(session.run, faces, times_ms[trials.index(taken)])
    return session, Choice(
        taken.artifact,
        taken.backend,
        reason,
        batch,
        levels,
        tuple(passed_over),
        (*trials, *failed),
    )


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _close(sessions: Sequence[Session]) -> None:
    for session in sessions:
        session.close()


def take_turns(runs: Sequence[Run], face: Tensor, turns: int) -> list[list[float]]:
    """The milliseconds that each takes for a face (1, 3, S, S): the median of each of its turns.

    All see the same load. A turn begins with runs that do not count, for the others have pushed
    these weights out of the caches, and a large model would pay more for that than a small one.
    """
    times_ms: list[list[float]] = [[] for _ in runs]
    for _ in range(turns):
        for run, taken in zip(runs, times_ms, strict=True):
            turn = [_time_ms(run, face) for _ in range(WARM_UP_RUNS + TIMED_RUNS)]
            taken.append(float(np.median(turn[WARM_UP_RUNS:])))
    return times_ms


def pick(trials: Sequence[Trial]) -> tuple[Trial, str]:
    """The first of those that are about as quick as the quickest, and the reason in words.

    They come in the order of preference: the smaller file first, and the backend that is always
    there, since another takes longer to load.
    """
    timed = [(trial.face_ms, trial) for trial in trials if trial.face_ms is not None]
    quickest_ms = min(ms for ms, _ in timed)
    taken_ms, taken = next(pair for pair in timed if pair[0] <= SWITCH_GAIN * quickest_ms)
    others = [
        f"{trial.artifact} in {trial.backend} {ms:.2f}" for ms, trial in timed if trial is not taken
    ]
    failed = [
        f"{trial.artifact} in {trial.backend} was not taken" for trial in trials if trial.error
    ]
    reason = "; ".join([f"{taken_ms:.2f} ms a face", *others, *failed])
    return taken, reason if len(trials) > 1 else f"{reason}; nothing else is here"


def time_batch(run: Run, lr: Tensor, face_ms: float) -> tuple[int, int]:
    """How many faces to run at once, and the gray levels that this moves a pixel at most.

    `lr` is BATCH faces, `face_ms` what one takes alone.
    """
    together = to_pixels(run(lr)).astype(np.int16)
    batch_ms = min(_time_ms(run, lr) for _ in range(TIMED_BATCHES))
    if batch_ms / BATCH * BATCH_GAIN > face_ms:
        return 1, 0
    alone = to_pixels(np.concatenate([run(face[None]) for face in lr]))
    levels = int(np.abs(together - alone).max())
    return (BATCH, levels) if levels <= MAX_BATCH_LEVELS else (1, 0)


def recall(key: dict[str, str]) -> Choice | None:
    """The choice that was remembered for exactly these files, backends and processor."""
    record = cache.recall(key)
    if record is None:
        return None
    trials = tuple(Trial(**trial) for trial in record["trials"])
    passed_over = tuple(record["passed_over"])
    return replace(
        Choice(**{**record, "trials": trials, "passed_over": passed_over}), remembered=True
    )


def remember(key: dict[str, str], choice: Choice) -> None:
    record = asdict(choice)
    del record["remembered"]
    cache.remember(key, record)


def _time_ms(run: Run, lr: Tensor) -> float:
    started = time.perf_counter()
    run(lr)
    return (time.perf_counter() - started) * 1e3
