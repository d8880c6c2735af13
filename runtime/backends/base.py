"""What all backends share: they close at the end of a `with` block, and take the same tensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import TypeVar

import numpy as np

from runtime.errors import EdgeError
from runtime.image import LR_SIDE, Tensor

Ends = TypeVar("Ends", bound="Closing")


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


def check_lr(lr: Tensor) -> None:
    """EdgeError unless lr is float32 (N, 3, 16, 16)."""
    if lr.dtype != np.float32 or lr.shape[1:] != (3, LR_SIDE, LR_SIDE):
        raise EdgeError(f"lr is {lr.dtype} {lr.shape}, expected float32 (N, 3, 16, 16)")
