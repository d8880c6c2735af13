"""The loss of one run, part by part, as its options have it."""

from pathlib import Path

import torch
from torch import Tensor

from aminet.checkpoint import load_model
from aminet.discriminator import Adversary
from aminet.losses import imitation_loss, pixel_loss
from aminet.model import AMINet
from aminet.options import TrainOptions


class Criterion:
    """Pixels, a teacher's faces, and AMIGAN's adversary."""

    def __init__(self, options: TrainOptions, device: torch.device) -> None:
        self.options = options
        self.teacher = None if options.teacher is None else _teacher(options.teacher, device)
        self.adversary = Adversary(options.gan, device) if options.gan else None

    def __call__(self, sr: Tensor, lr: Tensor, hr: Tensor) -> dict[str, Tensor]:
        """The loss's parts by name, to be summed; sr and hr (N, 3, 128, 128), float32."""
        kind = self.options.loss
        if self.teacher is None:
            terms = {"pixel": pixel_loss(kind, sr, hr)}
        else:
            with torch.no_grad():
                taught = self.teacher(lr).float()
            terms = {"pixel": imitation_loss(kind, sr, hr, taught, self.options.distill)}
        if self.adversary is not None:
            terms |= self.adversary.generator_terms(sr, hr)
        return terms


def _teacher(path: Path, device: torch.device) -> AMINet:
    network, _ = load_model(checkpoint=path)
    return network.requires_grad_(False).to(device)
