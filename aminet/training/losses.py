"""Losses: pixel distance, distillation, and the hinge losses of a GAN."""

import torch.nn.functional as F
from torch import Tensor

PERFECT = 1e-6  # squared difference added before the logarithm: 60 dB


def pixel_loss(kind: str, sr: Tensor, hr: Tensor) -> Tensor:
    """Mean absolute ("l1") or squared ("l2") difference; "psnr": the mean over the faces of the
    logarithm of the squared one, which is what a mean PSNR sees (NAFNet's, Chen et al. 2022)."""
    if kind == "psnr":
        return _logarithm(_of_each_face(sr, hr))
    return F.l1_loss(sr, hr) if kind == "l1" else F.mse_loss(sr, hr)


def imitation_loss(kind: str, sr: Tensor, hr: Tensor, taught: Tensor, share: float) -> Tensor:
    """Distillation: the pixel loss to the original and, by `share`, to the teacher's output.

    "psnr" takes the logarithm of both squared differences together. Taken separately, the teacher's
    term would dominate as the student approaches it.
    """
    if kind == "psnr":
        errors = (1 - share) * _of_each_face(sr, hr) + share * _of_each_face(sr, taught)
        return _logarithm(errors)
    return (1 - share) * pixel_loss(kind, sr, hr) + share * pixel_loss(kind, sr, taught)


def _of_each_face(sr: Tensor, hr: Tensor) -> Tensor:
    """The mean squared difference of each face, (N,)."""
    return F.mse_loss(sr, hr, reduction="none").mean((1, 2, 3))


def _logarithm(errors: Tensor) -> Tensor:
    return (errors + PERFECT).log().mean()


def generator_loss(fake: Tensor) -> Tensor:
    """Hinge loss of the generator: raise the discriminator's scores of super-resolved faces."""
    return -fake.mean()


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of the discriminator: originals over 1, super-resolved faces under -1."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
