"""AMIGAN's other half: a discriminator of patches, and its share of a training step."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from aminet.training.losses import discriminator_loss, generator_loss
from aminet.training.options import GanOptions
from aminet.training.perceptual import VGG, PerceptualLoss
from runtime.errors import EdgeError

BETAS = (0.5, 0.99)  # customary for a GAN's Adam: a short memory of the direction


class Discriminator(nn.Module):
    """A PatchGAN: faces (N, 3, 128, 128) in [0, 1] -> opinions (N, 1, 14, 14) on 70-px parts.

    Every convolution is spectrally normalized (Miyato et al. 2018).
    """

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        widths = (3, channels, 2 * channels, 4 * channels)
        layers: list[nn.Module] = []
        for width, out in pairwise(widths):
            layers += [_normalized(width, out, stride=2), nn.LeakyReLU(0.2)]
        layers += [_normalized(widths[-1], 8 * channels, stride=1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, _normalized(8 * channels, 1, stride=1))

    def forward(self, faces: Tensor) -> Tensor:
        return self.layers(faces * 2 - 1)


def _normalized(channels: int, out: int, stride: int) -> nn.Module:
    return spectral_norm(nn.Conv2d(channels, out, 4, stride, padding=1))


class Adversary:
    """The discriminator, its optimizer, and VGG: what AMIGAN adds to the pixel loss."""

    def __init__(self, options: GanOptions, device: torch.device) -> None:
        self.options = options
        self.perceptual = _perceptual(options, device)
        self.discriminator = Discriminator(options.channels).to(device)
        self.optimizer = torch.optim.Adam(
            self.discriminator.parameters(), lr=options.rate, betas=BETAS
        )

    def generator_terms(self, sr: Tensor, hr: Tensor, step: int) -> dict[str, Tensor]:
        """The weighted perceptual and adversarial loss of super-resolved faces, by name."""
        sr, hr = self._patches(sr, step), self._patches(hr, step)
        terms = {}
        if self.perceptual is not None:
            terms["perceptual"] = self.options.perceptual * self.perceptual(sr, hr)
        self.discriminator.requires_grad_(False)
        with torch.autocast(sr.device.type, enabled=False):  # spectral norms want float32
            opinion = self.discriminator(sr.float())
        self.discriminator.requires_grad_(True)
        terms["adversarial"] = self.options.adversarial * generator_loss(opinion)
        return terms

    def backward(self, sr: Tensor, hr: Tensor, step: int) -> Tensor:
        """Leave the discriminator's gradients; sr has none of its own. Returns its loss."""
        sr, hr = self._patches(sr, step), self._patches(hr, step)
        self.discriminator.zero_grad(set_to_none=True)
        real, fake = self.discriminator(torch.cat([hr, sr])).chunk(2)
        loss = discriminator_loss(real, fake)
        loss.backward()
        return loss.detach()

    def _patches(self, faces: Tensor, step: int) -> Tensor:
        """A random patch of each face, (N, 3, P, P): the same one of sr and hr in a step.

        Neighbouring patches teach much the same, and a quarter of a face costs a quarter.
        """
        side = self.options.patch
        if side == faces.shape[-1]:
            return faces
        generator = torch.Generator().manual_seed(step)
        corners = torch.randint(
            faces.shape[-1] - side + 1, (len(faces), 2), generator=generator
        ).tolist()
        cut = [f[:, y : y + side, x : x + side] for f, (y, x) in zip(faces, corners, strict=True)]
        return torch.stack(cut)

    def step(self, share: float) -> None:
        """Follow the gradients at this share of the learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.rate * share
        self.optimizer.step()


def _perceptual(options: GanOptions, device: torch.device) -> PerceptualLoss | None:
    if not options.perceptual:
        return None
    try:
        vgg = VGG.load(options.vgg, max(options.vgg_levels))
    except EdgeError as error:
        raise EdgeError(f"{error}; or train without it: --perceptual 0", error.status) from error
    return PerceptualLoss(vgg, options.vgg_levels, unit=options.vgg_unit).to(device)
