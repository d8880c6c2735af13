"""What training makes small: the distance to the original, a teacher, VGG's features, a critic."""

import torch.nn.functional as F
from torch import Tensor

PERFECT = 1e-6  # squared difference that the logarithm no longer tells from none: 60 dB


def pixel_loss(kind: str, sr: Tensor, hr: Tensor) -> Tensor:
    """Mean absolute ("l1") or squared ("l2") difference; "psnr": the mean over the faces of the
    logarithm of the squared one, which is what a mean PSNR sees (NAFNet's, Chen et al. 2022)."""
    if kind == "psnr":
        return _logarithm(_of_each_face(sr, hr))
    return F.l1_loss(sr, hr) if kind == "l1" else F.mse_loss(sr, hr)


def imitation_loss(kind: str, sr: Tensor, hr: Tensor, taught: Tensor, share: float) -> Tensor:
    """The pixel loss against the original and, for its share, against the teacher's face.

    "psnr" takes the logarithm of both squared differences together: of its own, the teacher's would
    outweigh the original's more and more, the nearer the pupil comes.
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
    """Hinge loss: raise the discriminator's opinion of the enlarged faces."""
    return -fake.mean()


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss: originals over 1, enlarged faces under -1."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
