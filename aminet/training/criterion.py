"""The loss of one run, part by part, as its options have it."""

import torch
from torch import Tensor

from aminet.checkpoint import load_model
from aminet.training.discriminator import Adversary
from aminet.training.losses import imitation_loss, pixel_loss
from aminet.training.options import TrainOptions


class Criterion:
    """Pixels, a teacher's faces, and AMIGAN's adversary."""

    def __init__(self, options: TrainOptions, device: torch.device) -> None:
        self.options = options
        self.teacher = None if options.teacher is None else Teacher(options, device)
        self.adversary = Adversary(options.gan, device) if options.gan else None

    def __call__(self, sr: Tensor, lr: Tensor, hr: Tensor) -> dict[str, Tensor]:
        """The loss's parts by name, to be summed; sr and hr (N, 3, 128, 128), float32."""
        kind = self.options.loss
        if self.teacher is None:
            terms = {"pixel": pixel_loss(kind, sr, hr)}
        else:
            taught = self.teacher(lr)
            terms = {"pixel": imitation_loss(kind, sr, hr, taught, self.options.distill)}
        if self.adversary is not None:
            terms |= self.adversary.generator_terms(sr, hr)
        return terms


class Teacher:
    """A trained network whose faces are imitated, every other one through the mirror.

    What a network makes of a face and of its mirror image differs a little, and the mean of both
    is nearer to the original (geometric self-ensemble: EDSR, Lim et al. 2017). A pupil that is
    shown either learns the mean, at one pass a face.
    """

    def __init__(self, options: TrainOptions, device: torch.device) -> None:
        network, _ = load_model(checkpoint=options.teacher)
        network.requires_grad_(False).to(device)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.forward = torch.compile(self.network) if options.compile else self.network

    @torch.no_grad()
    def __call__(self, lr: Tensor) -> Tensor:
        """What it makes of lr (N, 3, 16, 16): (N, 3, 128, 128), float32."""
        seen = _mirror_every_other(lr).contiguous(memory_format=torch.channels_last)
        return _mirror_every_other(self.forward(seen).float())


def _mirror_every_other(faces: Tensor) -> Tensor:
    mirrored = faces.clone()
    mirrored[::2] = faces[::2].flip(-1)
    return mirrored
