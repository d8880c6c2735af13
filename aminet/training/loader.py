"""Batches of degraded faces, made in worker processes so that training does not wait for them."""

import itertools
import signal
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from aminet.training.degradation import Degradation
from runtime.errors import EdgeError
from runtime.image import Pixels

PREFETCHED = 8  # batches a worker keeps ready


class LoaderError(EdgeError):
    """A worker process was killed, or what it shares with this one was deleted."""

    def __init__(self, error: Exception) -> None:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(". ")
        super().__init__(
            f"train: the process that makes batches has ended ({reason}); give it more memory, in a"
            " container more of /dev/shm as well, and run it again"
        )


class DegradedFaces(Dataset[tuple[Tensor, Tensor]]):
    """Batches by step: lr (B, 3, lr_side, lr_side) and hr (B, 3, 128, 128), uint8.

    A function of the seed and the step alone: any number of workers, and a resumed run, give the
    same bits. Each epoch is a permutation of its own.
    """

    def __init__(
        self, faces: Pixels, degradation: Degradation, lr_side: int, batch: int, seed: int
    ) -> None:
        self.faces, self.degradation, self.lr_side = faces, degradation, lr_side
        self.batch, self.seed = batch, seed
        self._epoch: tuple[int, NDArray[np.int64]] | None = None  # its number and permutation

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        epoch, position = divmod(step, max(len(self.faces) // self.batch, 1))
        chosen = self._permutation(epoch)[position * self.batch : (position + 1) * self.batch]
        pairs = [
            self.degradation.pair(
                self.faces[face], self.lr_side, np.random.default_rng([self.seed, step, place])
            )
            for place, face in enumerate(chosen)
        ]
        lr, hr = (np.stack(side).transpose(0, 3, 1, 2) for side in zip(*pairs, strict=True))
        return torch.from_numpy(lr), torch.from_numpy(hr)

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        if self._epoch is None or self._epoch[0] != epoch:
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.faces))
            self._epoch = (epoch, order)
        return self._epoch[1]


def degraded_batches(
    faces: DegradedFaces,
    device: torch.device | str = "cpu",
    *,
    first_step: int = 0,
    workers: int = 1,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches from a step on, float32 in [0, 1]; without workers made in this process.

    They travel to the device as uint8, a quarter of the bytes. LoaderError if a worker ends.
    """
    loader = DataLoader(
        faces,
        batch_size=None,
        sampler=itertools.count(first_step),
        num_workers=workers,
        prefetch_factor=PREFETCHED if workers else None,
        worker_init_fn=_ignore_interrupts,
    )
    made = iter(loader)
    while True:
        try:
            lr, hr = next(made)
        except (OSError, EOFError) as error:
            if not workers:
                raise
            raise LoaderError(error) from error
        yield lr.to(device).float() / 255, hr.to(device).float() / 255


def _ignore_interrupts(worker: int) -> None:
    """Ctrl-C is the training process's to handle; it ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
