"""KID on MobileNetV2's features: the distance of a set of super-resolved faces from real ones.

The kernel inception distance (Binkowski et al. 2018) with another network, so it compares only with
itself: it is called kid_mobilenetv2, never KID alone. It is unbiased, so it can be used on small
sets, and may be slightly negative.
"""

from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from aminet.pretrained import Pretrained, read_pretrained, read_torch_state
from aminet.training.perceptual import MEAN, STD
from runtime.image import Pixels, to_tensor

MOBILENETV2 = Pretrained(
    "mobilenet_v2-b0353104.pth", "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"
)
SIDE = 224  # px, of the images that the network was trained on
BATCH = 16
STRIDES = (1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1)  # of the 17 blocks
BATCH_NORM_EPSILON = 1e-5


class MobileNetV2:
    """torchvision's MobileNetV2 without its classifier, from the state dict alone."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = state

    @classmethod
    def load(cls) -> Self:
        """Load it from the cache folder; EdgeError (status 5) if it was not fetched."""
        return cls(read_torch_state(read_pretrained(MOBILENETV2), MOBILENETV2.name))

    @torch.inference_mode()
    def __call__(self, faces: Pixels) -> NDArray[np.float64]:
        """(N, H, W, 3) -> the pooled last feature map (N, 1280)."""
        parts = [
            self.features(torch.from_numpy(to_tensor(faces[start : start + BATCH])))
            for start in range(0, len(faces), BATCH)
        ]
        return torch.cat(parts).double().numpy()

    def features(self, images: Tensor) -> Tensor:
        x = F.interpolate(images, (SIDE, SIDE), mode="bilinear")
        x = (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        x = self._conv(x, "features.0.0", "features.0.1", stride=2)
        for block, stride in enumerate(STRIDES, 1):
            x = self._block(x, f"features.{block}.conv", stride, expands=block > 1)
        return self._conv(x, "features.18.0", "features.18.1").mean((2, 3))

    def _block(self, x: Tensor, name: str, stride: int, expands: bool) -> Tensor:
        """Expand (not in the first block), convolve depthwise, project; residual if shapes fit."""
        inner, last = x, 0
        if expands:
            inner, last = self._conv(x, f"{name}.0.0", f"{name}.0.1"), 1
        inner = self._conv(inner, f"{name}.{last}.0", f"{name}.{last}.1", stride=stride)
        projected = self._conv(inner, f"{name}.{last + 1}", f"{name}.{last + 2}", relu=False)
        return x + projected if projected.shape == x.shape else projected

    def _conv(
        self, x: Tensor, name: str, norm: str, *, stride: int = 1, relu: bool = True
    ) -> Tensor:
        weight = self.state[f"{name}.weight"]
        groups = x.shape[1] // weight.shape[1]
        x = F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, groups=groups)
        mean, var, scale, bias = (
            self.state[f"{norm}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
        )
        x = F.batch_norm(x, mean, var, scale, bias, eps=BATCH_NORM_EPSILON)
        return F.relu6(x) if relu else x


def kid(real: NDArray[np.float64], fake: NDArray[np.float64]) -> float:
    """Return the unbiased squared maximum mean discrepancy of two sets of features (N, D)."""

    def kernel(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(features: NDArray[np.float64]) -> float:
        similar, n = kernel(features, features), len(features)
        return (similar.sum() - np.trace(similar)) / (n * (n - 1))

    return float(within(real) + within(fake) - 2 * kernel(real, fake).mean())
