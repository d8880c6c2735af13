"""What all backends share: they close at the end of a `with` block, and take the same tensors."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

import numpy as np

from runtime.errors import EdgeError
from runtime.image import Tensor
from runtime.manifest import LR_SIDES

HALF_LEVEL = 0.5 / 255  # what rounding somewhere else may be over [0, 1]

Ends = TypeVar("Ends", bound="Closing")


@dataclass(frozen=True)
class Threads:
    """How the cores are shared: `callers` calls at once, each computed on `each` threads.

    `each` is None where the backend decides, as if one call had all cores for itself. Threads that
    `spin` while they wait are there sooner, and slow down what else runs meanwhile.
    """

    each: int | None = None
    callers: int = 1
    spin: bool = True

    def __str__(self) -> str:
        each = "1 thread" if self.each == 1 else f"{self.each or 'default'} threads"
        return each if self.callers == 1 else f"{each} a call, {self.callers} calls at once"


ALL_CORES = Threads()


class Closing(ABC):
    """Something with a `close` that a `with` block calls at its end."""

    @abstractmethod
    def close(self) -> None:
        """Give back what is held; nothing may be asked afterwards."""

    def __enter__(self: Ends) -> Ends:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def check_lr(lr: Tensor, side: int) -> None:
    """EdgeError unless lr is a NumPy array, float32 (N, 3, side, side) in [0, 1], N > 0."""
    expected = f"expected float32 (N, 3, {side}, {side}) in [0, 1], a NumPy array"
    if not isinstance(lr, np.ndarray):
        raise EdgeError(f"lr is a {type(lr).__module__}.{type(lr).__name__}, {expected}")
    if lr.dtype != np.float32 or lr.shape[1:] != (3, side, side):
        raise EdgeError(f"lr is {lr.dtype} {lr.shape}, {expected}")
    if not len(lr):
        raise EdgeError(f"lr is an empty batch {lr.shape}, {expected}")
    least, most = float(lr.min()), float(lr.max())  # NaN if there is one
    if not (least >= -HALF_LEVEL and most <= 1 + HALF_LEVEL):
        raise EdgeError(
            f"lr has values from {least:g} to {most:g}, {expected}; runtime.image.to_tensor makes"
            " it of uint8 images"
        )


def contract_side(shape: Sequence[int | str | None]) -> int:
    """S of an input (batch, 3, S, S) if it is one of LR_SIDES, else the paper's."""
    side = shape[-1] if shape else None
    return side if isinstance(side, int) and side in LR_SIDES else LR_SIDES[0]


_SILENCING = threading.Lock()


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Without what libraries in C++ print on stderr as they start; errors come by other ways."""
    with _SILENCING, open(os.devnull, "wb") as nowhere:
        sys.stderr.flush()
        try:
            kept = os.dup(2)
        except OSError:  # there is no stderr
            yield
            return
        try:
            os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
