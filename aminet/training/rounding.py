"""Rounding to 8 bits that gradients pass through: activations with a trained range, and weights.

Straight-through estimator; the ends of a range learn by what they clip and how they round (learned
step size, Esser et al. 2020).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from runtime.activation_ranges import Numbers

LEAST_EXTENT = 1e-6  # of a range
WEIGHT_LIMIT = 127


@dataclass(frozen=True)
class Grid:
    """How a target computes activations: int8 around zero if `signed`, else uint8 with any zero
    point; `results`: pairs stand after convolutions, too."""

    signed: bool
    results: bool


CPU, OPENVINO, TENSORRT = Grid(False, True), Grid(False, False), Grid(True, False)
# What the steps of a training take in turn, None being full precision: without it the weights
# become robust at FP32's cost. OPENVINO's pairs are among CPU's.
TURNS = (CPU, TENSORRT, None)


class Rounding(torch.autograd.Function):
    """Round to the levels of a range; the gradient ignores the rounding and stops at the ends."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: Tensor, high: Tensor, signed: bool) -> Tensor:
        if signed:
            scale = torch.maximum(-low, high) / 127
            bottom, top = torch.full_like(low, -128), torch.full_like(low, 127)
        else:
            scale = (high - low) / 255
            bottom = torch.round(low / scale)
            top = 255 + bottom
        exact = x / scale
        levels = exact.round().clamp_(bottom, top)
        ctx.save_for_backward(exact, levels, low, high)
        ctx.signed = signed
        return levels * scale

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        exact, levels, low, high = ctx.saved_tensors
        rounded = levels - exact  # over half a level where x lies outside
        inside = rounded.abs() <= 0.5
        of_x = gradient * inside
        of_scale = (of_x * rounded).sum()
        outside = gradient - of_x
        above = (outside * (rounded < 0)).sum()
        below = outside.sum() - above
        if not ctx.signed:
            return of_x, below - of_scale / 255, above + of_scale / 255, None
        of_size, none = above - below + of_scale / 127, torch.zeros_like(low)
        return (of_x, none, of_size, None) if high >= -low else (of_x, -of_size, none, None)


class ActivationQuantizer(nn.Module):
    """The range of an activation; its ends are trained as multiples of what they were.

    `factors`: of its channels, where a Mul scales them before the pair; trained as logarithms.
    """

    extent: Tensor
    log_factors: nn.Parameter | None

    def __init__(self, low: float, high: float, factors: Numbers | None = None) -> None:
        super().__init__()
        self.register_buffer("extent", torch.tensor(high - low))
        self.low = nn.Parameter(torch.tensor(low / (high - low)), requires_grad=low < 0)
        self.high = nn.Parameter(torch.tensor(high / (high - low)), requires_grad=high > 0)
        log = None if factors is None else nn.Parameter(torch.tensor(factors).log())
        self.register_parameter("log_factors", log)

    def ends(self) -> tuple[Tensor, Tensor]:
        """Least and greatest value; zero is between them."""
        low, high = self.low.clamp(max=0), self.high.clamp(min=0)
        return low * self.extent, torch.maximum(high, low + LEAST_EXTENT) * self.extent

    def factors(self) -> Tensor | None:
        """Of the channels, (C,)."""
        return None if self.log_factors is None else self.log_factors.exp()

    def forward(self, x: Tensor, signed: bool) -> Tensor:
        factors = self.factors()
        if factors is not None:
            x = x * factors.view(-1, 1, 1)
        return Rounding.apply(x, *self.ends(), signed)


def round_weight(weight: Tensor) -> Tensor:
    """Round to int8 around zero, with a scale for each output channel; straight-through."""
    scale = weight.detach().abs().amax((1, 2, 3)).clamp(min=1e-10) / WEIGHT_LIMIT
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(
        weight, scale, zero, 0, -WEIGHT_LIMIT, WEIGHT_LIMIT
    )
