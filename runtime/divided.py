"""A batch divided among the threads of a call, of which each computes its faces alone.

The threads of ONNX Runtime wait for each other at each of 240 operators, and read what another
core has written. Divided, eight faces on two threads take 0.93 of the time of INT8, and 0.64 where
the two cores share no cache (dev/LOG.md).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np

from runtime.backends.base import Closing
from runtime.errors import EdgeError
from runtime.image import Tensor

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

Run = Callable[[Tensor], Tensor]


class OneThreaded(Protocol):
    """The same model, which computes a call on the thread that calls; any number may call."""

    def run(self, lr: Tensor) -> Tensor:
        """Upscale lr (N, 3, S, S)."""

    def close(self) -> None:
        """Give back what is held."""


class DividedBatches(Closing):
    """Shares batches of at least `count` faces between `count` threads.

    The model is opened a second time, for calls on one thread each, when the first such batch
    comes: single faces need no second one. If it cannot be, as its file is gone, batches are run
    like single faces. Any number of threads may call `run`.
    """

    def __init__(self, open_one_threaded: Callable[[], OneThreaded], count: int) -> None:
        self._open = open_one_threaded
        self._count = count
        self._opening = threading.Lock()
        self._tried = False
        self._opened: tuple[OneThreaded, ThreadPoolExecutor] | None = None

    def run(self, lr: Tensor, run: Run) -> Tensor:
        """Upscale lr (N, 3, S, S): by `run` if there are fewer faces than threads."""
        opened = self._open_once() if len(lr) >= self._count else None
        if opened is None:
            return run(lr)
        session, pool = opened
        return np.concatenate(list(pool.map(session.run, np.array_split(lr, self._count))))

    def _open_once(self) -> tuple[OneThreaded, ThreadPoolExecutor] | None:
        with self._opening:
            if not self._tried:
                from concurrent.futures import ThreadPoolExecutor  # single faces do without

                self._tried = True
                try:
                    session = self._open()
                except EdgeError:
                    return None
                self._opened = session, ThreadPoolExecutor(self._count)
            return self._opened

    def close(self) -> None:
        """Close the second one, if it was opened."""
        with self._opening:
            self._tried, opened, self._opened = True, self._opened, None
        if opened:
            session, pool = opened
            pool.shutdown()
            session.close()
