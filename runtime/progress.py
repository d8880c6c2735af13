"""Progress of long work on stderr: in place on a terminal, a line every 30 s elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

Progress = Callable[[str], None]
EVERY_S = 30.0  # between two lines where no terminal shows the steps in place


class Steps:
    """Show the step that long work is at; a callable, `steps("tracing")`, and a context manager.

    On a terminal the line is replaced by the next and cleared in the end. In a pipe or a log it
    prints a line at most every EVERY_S seconds, so that short work prints none.
    """

    def __init__(self) -> None:
        self._started = self._printed = time.monotonic()
        self._shown = False

    def __enter__(self) -> Steps:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()

    def __call__(self, step: str) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\033[K{step} ...")
            sys.stderr.flush()
            self._shown = True
        elif time.monotonic() - self._printed >= EVERY_S:
            self._printed = time.monotonic()
            sys.stderr.write(f"{step} ({self._printed - self._started:.0f} s)\n")
            sys.stderr.flush()


def silent(step: str) -> None:
    """Show no progress."""
