"""What enlarges faces, each behind the one interface that the quality table measures it by."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runtime.image import Pixels, to_pixels, to_tensor, upscale_bicubic
from runtime.session import open_session

BATCH = 16  # faces at a time; the figures do not depend on it

Enlarge = Callable[[Pixels], Pixels]  # (N, 16, 16, 3) -> (N, 128, 128, 3)


@dataclass(frozen=True)
class Contender:
    """Something that enlarges faces, and the name and backend that its rows go by."""

    artifact: str
    backend: str
    enlarge: Enlarge

    def enlarge_all(self, lr: Pixels) -> Pixels:
        """Any number of faces, a batch at a time."""
        starts = range(0, len(lr), BATCH)
        return np.concatenate([self.enlarge(lr[start : start + BATCH]) for start in starts])


BICUBIC = Contender("bicubic", "pillow", lambda lr: np.stack([upscale_bicubic(x) for x in lr]))


@contextmanager
def artifact_contender(artifact: str | Path | None) -> Iterator[Contender]:
    """An ONNX file, an engine or a folder of them; None: what `runtime.infer` takes by itself."""
    with open_session(artifact) as session:
        name = f"{session.manifest.model} {session.artifact.stem}"
        yield Contender(name, session.backend, lambda lr: to_pixels(session.run(to_tensor(lr))))


@contextmanager
def checkpoint_contender(path: str | Path) -> Iterator[Contender]:
    """A checkpoint in PyTorch, which only this needs."""
    import torch

    from aminet.checkpoint import load_model

    model, checkpoint = load_model(checkpoint=path)

    def enlarge(lr: Pixels) -> Pixels:
        with torch.inference_mode():
            return to_pixels(model(torch.from_numpy(to_tensor(lr))).numpy())

    stem = Path(path).stem
    name = stem if stem == checkpoint.model else f"{checkpoint.model} {stem}"
    yield Contender(name, "torch", enlarge)


@contextmanager
def bicubic_contender() -> Iterator[Contender]:
    """The baseline that every table has."""
    yield BICUBIC
