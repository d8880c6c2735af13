"""How a model is called: how many calls at once, of how many faces, on how many threads each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from runtime.backends.base import Threads
from runtime.image import Tensor, to_pixels
from runtime.timing import TIMED_RUNS, WARM_UP_RUNS, take_turns
from runtime.verification import Verdict

BATCH = 8  # faces that are run at once where this is faster
SHAPE_GAIN = 1.1  # times that another shape must be faster than what is preferred
TURNS = 2  # of each, if there is more than one
BATCH_RUNS = (1, 2)  # in a turn: to warm up, and timed
MAX_BATCH_LEVELS = 1  # gray levels of 255 that a face in a batch may differ from the same alone


class ShapeCandidate(Protocol):
    """What is compared: a session, of which these are asked."""

    artifact: Path
    backend: str
    lr_side: int
    threads: Threads
    verdict: Verdict | None

    def run(self, lr: Tensor) -> Tensor:
        """Upscale lr (N, 3, S, S)."""

    def close(self) -> None:
        """Give back what is held."""


S = TypeVar("S", bound=ShapeCandidate)


@dataclass(frozen=True)
class Shape:
    """`workers` calls at once of `batch` faces each, on `threads` threads a call.

    `threads` is None for the backend's own choice. `face_ms` is the median time of a face; a batch
    changes a pixel by at most `batch_levels` of 255.
    """

    threads: int | None
    workers: int
    batch: int
    face_ms: float
    batch_levels: int = 0


def ways_to_share(threads: int | None, workers: int | None, cores: int) -> list[Threads]:
    """The ways to share the cores that are compared, the preferred first.

    One caller has them all. Several, on one thread each, need no thread pool whose threads wait for
    each other; without `workers` their number is to be found out.
    """
    if workers is None and threads is None:
        counts = [cores, cores // 2] if cores > 3 else [cores]
        return [*(Threads(1, count) for count in counts if count > 1), Threads()]
    if workers is None:
        return [Threads(threads, max(1, cores // (threads or 1)))]
    return [Threads(threads if threads or workers == 1 else 1, workers)]


def find_shape(sessions: Sequence[S]) -> tuple[S, Shape]:
    """The fastest way to call a model that is open in several sessions, one for each `threads`.

    The first that is about as fast as the fastest: single faces, and the first session, come first.
    """
    faces = random_faces(sessions[0], BATCH)
    turns = TURNS if len(sessions) > 1 else 1
    shapes = [
        (session, _time(session, lr, turns)) for session in sessions for lr in (faces[:1], faces)
    ]
    while True:
        fastest_ms = min(shape.face_ms for _, shape in shapes)
        taken = next(each for each in shapes if each[1].face_ms <= SHAPE_GAIN * fastest_ms)
        session, shape = taken
        levels = _batch_levels(session.run, faces) if shape.batch > 1 else 0
        if levels <= MAX_BATCH_LEVELS:
            return session, Shape(shape.threads, shape.workers, shape.batch, shape.face_ms, levels)
        shapes.remove(taken)


def random_faces(session: ShapeCandidate, count: int) -> Tensor:
    """Noise (count, 3, S, S) that takes as long as faces."""
    side = session.lr_side
    return np.random.default_rng(0).random((count, 3, side, side), np.float32)


def _time(session: ShapeCandidate, lr: Tensor, turns: int) -> Shape:
    threads = session.threads
    runs = (WARM_UP_RUNS, TIMED_RUNS) if len(lr) == 1 else BATCH_RUNS
    (turns_ms,) = take_turns([session.run], lr, turns, threads.callers, runs)
    return Shape(threads.each, threads.callers, len(lr), min(turns_ms) / len(lr))


def _batch_levels(run: Callable[[Tensor], Tensor], faces: Tensor) -> int:
    """The gray levels by which a pixel differs most, faces run at once and one by one."""
    together = to_pixels(run(faces)).astype(np.int16)
    alone = to_pixels(np.concatenate([run(face[None]) for face in faces]))
    return int(np.abs(together - alone).max())
