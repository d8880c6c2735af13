"""Upscalers behind one interface: bicubic, artifacts in the runtime, checkpoints in PyTorch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runtime.image import LR_SIDE, Pixels, to_pixels, to_tensor, upscale_bicubic
from runtime.session import open_session

BATCH = 16  # faces at a time; the scores do not depend on it

Upscale = Callable[[Pixels], Pixels]  # (N, lr_side, lr_side, 3) -> (N, 128, 128, 3)


@dataclass(frozen=True)
class Upscaler:
    """A function that upscales faces, and the name and backend of its rows."""

    artifact: str
    backend: str
    upscale: Upscale
    lr_side: int = LR_SIDE

    def upscale_all(self, lr: Pixels) -> Pixels:
        """Upscale any number of faces, a batch at a time."""
        starts = range(0, len(lr), BATCH)
        return np.concatenate([self.upscale(lr[start : start + BATCH]) for start in starts])


BICUBIC = Upscaler("bicubic", "pillow", lambda lr: np.stack([upscale_bicubic(x) for x in lr]))


@contextmanager
def artifact_upscaler(artifact: str | Path | None, backend: str = "auto") -> Iterator[Upscaler]:
    """Open an artifact or a folder of them; None: the one that `runtime.infer` chooses."""
    with open_session(artifact, backend) as session:
        name = f"{session.manifest.model} {session.artifact.stem}"
        yield Upscaler(
            name,
            session.backend,
            lambda lr: to_pixels(session.run(to_tensor(lr))),
            session.lr_side,
        )


@contextmanager
def checkpoint_upscaler(path: str | Path) -> Iterator[Upscaler]:
    """Open a checkpoint in PyTorch, which only this upscaler needs."""
    import torch

    from aminet.checkpoint import load_model

    model, checkpoint = load_model(checkpoint=path)

    def upscale(lr: Pixels) -> Pixels:
        with torch.inference_mode():
            return to_pixels(model(torch.from_numpy(to_tensor(lr))).numpy())

    stem = Path(path).stem
    name = stem if stem == checkpoint.model else f"{checkpoint.model} {stem}"
    yield Upscaler(name, "torch", upscale, checkpoint.config.lr_side)


@contextmanager
def bicubic_upscaler() -> Iterator[Upscaler]:
    """The baseline of every table."""
    yield BICUBIC
