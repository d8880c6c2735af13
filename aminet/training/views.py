"""What a teacher makes of augmented faces, asked once: a large one costs more than its pupil."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from aminet.training.data import batches, make_pair
from aminet.training.options import Augmentation
from runtime.progress import Progress, silent

CHUNK = 250  # faces that the teacher sees at once

View = tuple[Tensor, Tensor, Tensor]  # lr, hr and taught, uint8


@dataclass(frozen=True)
class TaughtViews:
    """Views of all faces: lr (F, 3, 16, 16), hr and the teacher's image (F, 3, 128, 128), uint8."""

    views: list[View]

    @classmethod
    def make(
        cls,
        faces: Tensor,
        count: int,
        augmentation: Augmentation,
        teacher: Callable[[Tensor], Tensor],
        *,
        seed: int,
        progress: Progress = silent,
    ) -> Self:
        """So many views of uint8 faces (F, 3, 128, 128), on their device."""
        views = []
        for number in range(count):
            parts: list[View] = []
            for start in range(0, len(faces), CHUNK):
                progress(f"the teacher: view {number + 1} of {count}, face {start}")
                generator = torch.Generator().manual_seed(
                    seed * 1_000_003 + number * len(faces) + start
                )
                chosen = torch.arange(start, min(start + CHUNK, len(faces)))
                lr, hr = make_pair(faces, chosen, augmentation, generator)
                parts.append((_as_bytes(lr), _as_bytes(hr), _as_bytes(teacher(lr))))
            lr, hr, taught = (torch.cat(side) for side in zip(*parts, strict=True))
            views.append((lr, hr, taught))
        return cls(views)

    def batches(
        self, batch: int, *, seed: int, first_step: int = 0
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Endless lr, hr and taught, float32 in [0, 1]: an epoch is a view, the next one another.

        A function of the seed and the step alone.
        """
        count = len(self.views[0][0])
        epoch_steps = max(count // batch, 1)
        indices = batches(count, batch, seed=seed, first_step=first_step)
        for step, chosen in enumerate(indices, first_step):
            view = self.views[step // epoch_steps % len(self.views)]
            chosen = chosen.to(view[0].device)
            lr, hr, taught = (part[chosen].float() / 255 for part in view)
            yield lr, hr, taught


def _as_bytes(images: Tensor) -> Tensor:
    return (images * 255).round().clamp(0, 255).to(torch.uint8)
