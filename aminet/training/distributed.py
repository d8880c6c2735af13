"""Training on several processes: torchrun starts them, they share gradients and one clock.

torchrun --nproc-per-node 2 -m aminet.train --data FACES.tar --out runs/edge --minutes 60
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor

from runtime.errors import EXIT_USAGE, EdgeError


@dataclass(frozen=True)
class World:
    """This process among all; a single one talks to nobody."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # among those of this machine: which GPU

    @property
    def leads(self) -> bool:
        """Whether this process validates, writes and prints."""
        return self.rank == 0

    def share(self, batch: Tensor) -> Tensor:
        """This process's part of a batch that all have made alike."""
        return batch[self.rank :: self.size]

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Make each tensor its mean over the processes, in place."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        torch.distributed.all_reduce(flat)
        parts = (flat / self.size).split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view(tensor.shape))

    def agree(self, seconds: float) -> float:
        """The leader's figure, for all: clocks differ, and decisions must not."""
        if self.size == 1:
            return seconds
        told = torch.tensor([seconds], dtype=torch.float64)
        if torch.distributed.get_backend() == "nccl":
            told = told.cuda(self.local_rank)
        torch.distributed.broadcast(told, src=0)
        return float(told)


ALONE = World()


@contextmanager
def join_world(batch: int, device: str) -> Iterator[World]:
    """The processes that torchrun started, else this one alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    if batch % size:
        raise EdgeError(
            f"train: a batch of {batch} does not divide among {size} processes; give --batch"
            f" {(batch // size + 1) * size}",
            EXIT_USAGE,
        )
    world = World(int(os.environ["RANK"]), size, int(os.environ.get("LOCAL_RANK", "0")))
    on_gpus = device != "cpu" and torch.cuda.is_available()
    if on_gpus:
        torch.cuda.set_device(world.local_rank)
    torch.distributed.init_process_group("nccl" if on_gpus else "gloo")
    try:
        yield world
        torch.distributed.barrier()  # one that leaves while another still validates may abort
    finally:
        torch.distributed.destroy_process_group()
