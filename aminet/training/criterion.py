"""The training loss of a run: pixel, distillation and adversarial terms."""

import torch
from torch import Tensor

from aminet.checkpoint import load_model
from aminet.training.discriminator import Adversary
from aminet.training.losses import imitation_loss, pixel_loss
from aminet.training.options import TrainOptions


class Criterion:
    """Sums up the terms that the options ask for."""

    def __init__(self, options: TrainOptions, device: torch.device) -> None:
        self.options = options
        self.teacher = None if options.teacher is None else Teacher(options, device)
        self.adversary = Adversary(options.gan, device) if options.gan else None

    def __call__(
        self, sr: Tensor, lr: Tensor, hr: Tensor, step: int, taught: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The loss's parts by name, to be summed; sr and hr (N, 3, 128, 128), float32.

        `taught` is what the teacher makes of lr, if it has been asked already.
        """
        kind = self.options.loss
        if self.teacher is None:
            terms = {"pixel": pixel_loss(kind, sr, hr)}
        else:
            taught = self.teacher(lr) if taught is None else taught
            terms = {"pixel": imitation_loss(kind, sr, hr, taught, self.options.distill)}
        if self.adversary is not None:
            terms |= self.adversary.generator_terms(sr, hr, step)
        return terms


class Teacher:
    """Distillation from a flip-ensembled teacher: every other face is flipped before it and back.

    The mean of a network's outputs for a face and for the flipped face is closer to the original
    than either (geometric self-ensemble: EDSR, Lim et al. 2017). A student that sees either learns
    the mean, at one pass a face. Quantization-aware training imitates the network itself: nothing
    is flipped.
    """

    def __init__(self, options: TrainOptions, device: torch.device) -> None:
        network, _ = load_model(checkpoint=options.teacher)
        network.requires_grad_(False).to(device)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.flips = not options.qat
        self.forward = torch.compile(self.network) if options.compile else self.network

    @torch.no_grad()
    def __call__(self, lr: Tensor) -> Tensor:
        """Super-resolve lr (N, 3, S, S) to (N, 3, 128, 128), float32."""
        seen = _flip_every_other(lr) if self.flips else lr
        sr = self.forward(seen.contiguous(memory_format=torch.channels_last)).float()
        return _flip_every_other(sr) if self.flips else sr


def _flip_every_other(faces: Tensor) -> Tensor:
    flipped = faces.clone()
    flipped[::2] = faces[::2].flip(-1)
    return flipped
