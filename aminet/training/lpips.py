"""LPIPS (Zhang et al. 2018): perceptual distance of two images by AlexNet; 0 for equal ones."""

from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from aminet.pretrained import (
    ALEXNET,
    as_oihw,
    flax_convolutions,
    read_pretrained,
    unpickle_arrays,
)
from runtime.image import Pixels, to_tensor

STRIDES, PADDINGS = (4, 1, 1, 1, 1), (2, 2, 1, 1, 1)
POOLED_BEFORE = (1, 2)  # the convolutions that a 3x3 maximum of stride 2 precedes
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of images in [-1, 1]
EPSILON = 1e-10
BATCH = 32


class LPIPS:
    """AlexNet's five convolutions, and a weight for each channel's difference."""

    def __init__(self, convolutions: list[tuple[Tensor, Tensor]], heads: list[Tensor]) -> None:
        self.convolutions = convolutions
        self.heads = heads

    @classmethod
    def load(cls) -> Self:
        """Load it from the cache folder; EdgeError (status 5) if it was not fetched."""
        arrays = unpickle_arrays(read_pretrained(ALEXNET), ALEXNET.name)
        kernels = [arrays[f"NetLinLayer_{index}"]["Conv_0"]["kernel"] for index in range(5)]
        return cls(flax_convolutions(arrays["AlexNet_0"]), [as_oihw(k) for k in kernels])

    @torch.inference_mode()
    def __call__(self, a: Pixels, b: Pixels) -> NDArray[np.float64]:
        """Two stacks (N, H, W, 3) -> the distance of each pair (N,)."""
        parts = []
        for start in range(0, len(a), BATCH):
            first, second = (
                self.features(torch.from_numpy(to_tensor(x[start : start + BATCH]))) for x in (a, b)
            )
            distances = [
                F.conv2d((_unit(x) - _unit(y)) ** 2, head).mean((1, 2, 3))
                for x, y, head in zip(first, second, self.heads, strict=True)
            ]
            parts.append(torch.stack(distances).sum(0))
        return torch.cat(parts).double().numpy()

    def features(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) in [0, 1] -> the five feature maps, each after its ReLU."""
        x = (images * 2 - 1 - torch.tensor(SHIFT).view(3, 1, 1)) / torch.tensor(SCALE).view(3, 1, 1)
        found = []
        for index, (weight, bias) in enumerate(self.convolutions):
            if index in POOLED_BEFORE:
                x = F.max_pool2d(x, 3, 2)
            x = F.conv2d(x, weight, bias, STRIDES[index], PADDINGS[index]).relu()
            found.append(x)
        return found


def _unit(features: Tensor) -> Tensor:
    """Normalize each pixel's channels to length 1."""
    return features / (features.square().sum(1, keepdim=True).sqrt() + EPSILON)
