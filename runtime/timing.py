"""How long runs take: candidates in turns, so that all see the same load; with callers at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from runtime.image import Tensor

WARM_UP_RUNS, TIMED_RUNS = 2, 5  # in a turn

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

Run = Callable[[Tensor], object]


def take_turns(
    runs: Sequence[Run],
    lr: Tensor,
    turns: int,
    callers: int = 1,
    warm_up_and_timed: tuple[int, int] = (WARM_UP_RUNS, TIMED_RUNS),
) -> list[list[float]]:
    """The milliseconds that each candidate takes for a batch `lr`: the median of each of its turns.

    With several callers at once, the time in which all are done over their number. A turn begins
    with runs that do not count, for the others have pushed these weights out of the caches, and a
    large model would pay more for that than a small one.
    """
    from concurrent.futures import ThreadPoolExecutor  # a remembered choice does without

    times_ms: list[list[float]] = [[] for _ in runs]
    warm_up, timed = warm_up_and_timed
    with ThreadPoolExecutor(callers) as pool:
        for _ in range(turns):
            for run, taken in zip(runs, times_ms, strict=True):
                turn = [_time_ms(run, lr, pool, callers) for _ in range(warm_up + timed)]
                taken.append(float(np.median(turn[warm_up:])))
    return times_ms


def _time_ms(run: Run, lr: Tensor, pool: ThreadPoolExecutor, callers: int) -> float:
    started = time.perf_counter()
    if callers == 1:
        run(lr)
    else:
        list(pool.map(run, [lr] * callers))
    return (time.perf_counter() - started) * 1e3 / callers
