"""The perceptual loss: how far VGG's features of the upscaled face are from the original's."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aminet.pretrained import (
    VGG16,
    flax_convolutions,
    read_pretrained,
    read_state,
    unpickle_arrays,
)
from runtime.errors import EdgeError

PLANS = {13: (2, 2, 3, 3, 3), 16: (2, 2, 4, 4, 4)}  # convolutions between poolings: VGG16, VGG19
EPSILON = 1e-8  # squared length under which features are nothing
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB


class VGG(nn.Module):
    """Images (N, 3, H, W) in [0, 1] -> the feature before each pooling, after its ReLU.

    Only the first `levels` of the five, each of which costs as much as the one before.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, convolutions: Sequence[tuple[Tensor, Tensor]], levels: int = 5) -> None:
        super().__init__()
        if len(convolutions) not in PLANS:
            raise ValueError(f"{len(convolutions)} convolutions, expected 13 (VGG16) or 16 (VGG19)")
        self.name = f"VGG{len(convolutions) + 3}"
        self.plan = PLANS[len(convolutions)][:levels]
        used = convolutions[: sum(self.plan)]
        self.convolutions = nn.ModuleList(_frozen(*convolution) for convolution in used)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))

    @classmethod
    def load(cls, path: Path | None = None, levels: int = 5) -> Self:
        """VGG16 from the cache folder, or a user's VGG16 or VGG19."""
        if path is None:
            arrays = unpickle_arrays(read_pretrained(VGG16), VGG16.name)
            return cls(flax_convolutions(arrays["VGG16_0"]), levels)
        state = read_state(path)
        weights = [
            key for key, value in state.items() if key.endswith("weight") and value.ndim == 4
        ]
        weights.sort(key=lambda key: [int(digits) for digits in re.findall(r"\d+", key)])
        try:
            pairs = [(state[key], state[key[: -len("weight")] + "bias"]) for key in weights]
            return cls(pairs, levels)
        except (KeyError, ValueError, RuntimeError) as error:
            raise EdgeError(
                f"{path}: is no VGG16 or VGG19 ({error}); save torchvision's vgg19().state_dict()"
            ) from error

    def forward(self, images: Tensor) -> list[Tensor]:
        x = (images - self.mean) / self.std
        layers = iter(self.convolutions)
        features: list[Tensor] = []
        for count in self.plan:
            if features:
                x = F.max_pool2d(x, 2)
            for _ in range(count):
                x = next(layers)(x).relu()
            features.append(x)
        return features


class PerceptualLoss(nn.Module):
    """Mean distance of VGG's features at some levels, of images (N, 3, H, W) in [0, 1].

    L1, or, of `unit` features, whose channels have length 1 at each pixel, the squared distance.
    That is LPIPS (Zhang et al. 2018) without its learned weights.
    """

    def __init__(
        self, vgg: VGG, levels: Sequence[int] = (1, 2, 3, 4, 5), *, unit: bool = False
    ) -> None:
        super().__init__()
        self.vgg = vgg.eval().requires_grad_(False)
        self.levels = tuple(levels)
        self.distance = unit_distance if unit else F.l1_loss

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self.vgg(hr)
        found = self.vgg(sr)
        distances = [
            self.distance(found[level - 1].float(), wanted[level - 1].float())
            for level in self.levels
        ]
        return torch.stack(distances).mean()


def unit_distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared distance of features (N, C, H, W) whose channels are scaled to length 1."""
    a, b = (x / (x.square().sum(1, keepdim=True) + EPSILON).sqrt() for x in (a, b))
    return (a - b).square().sum(1).mean()


def _frozen(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    out, channels, kernel, _ = weight.shape
    convolution = nn.Conv2d(channels, out, kernel, padding=kernel // 2)
    convolution.load_state_dict({"weight": weight, "bias": bias})
    return convolution.requires_grad_(False)
