"""Depthwise convolution whose weights' gradient does not hold up training on a CPU."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

SLOW_KERNEL = 5  # from this size on oneDNN's gradient of the kernel is the slower way


class DepthwiseConv2d(nn.Conv2d):
    """A convolution of each channel (N, C, H, W) on its own; keeps the side.

    On a CPU the gradient of a 5x5 or 7x7 kernel takes oneDNN, in bfloat16, some 15 times as long
    as the rest of the layer. That gradient is a depthwise convolution, too: the input's, with the
    output's gradient as the kernel. Computed as one it is 6 to 17 times faster, and a training
    step of aminet-edge 1.2 times.
    """

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__(channels, channels, kernel, padding=kernel // 2, groups=channels)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        slow = input.device.type == "cpu" and self.kernel_size[0] >= SLOW_KERNEL
        if not (slow and self.training and torch.is_grad_enabled()):
            return super()._conv_forward(input, weight, bias)
        assert bias is not None
        return _Depthwise.apply(input, weight, bias)


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        channels, _, side, _ = weight.shape
        out = F.conv2d(x, weight, bias, padding=side // 2, groups=channels)
        ctx.save_for_backward(x.to(out.dtype), weight)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        channels, _, side, _ = weight.shape
        of_x = None
        if ctx.needs_input_grad[0]:
            same = weight.to(gradient.dtype)
            of_x = conv2d_input(x.shape, same, gradient, padding=side // 2, groups=channels)
        of_weight = kernel_gradient(x, gradient, side).to(weight.dtype)
        return of_x, of_weight, gradient.sum((0, 2, 3), dtype=weight.dtype)


def kernel_gradient(x: Tensor, gradient: Tensor, side: int) -> Tensor:
    """x and the output's gradient (N, C, H, W) -> the kernel's (C, 1, side, side), float32 or more.

    Each face's channels are convolved with their gradient, and added up over the faces.
    """
    faces, channels, height, width = x.shape
    each = faces * channels
    planes = x.contiguous().view(1, each, height, width)
    kernels = gradient.contiguous().view(each, 1, height, width)
    of_each = F.conv2d(planes, kernels, padding=side // 2, groups=each)
    precise = torch.promote_types(x.dtype, torch.float32)
    return of_each.view(faces, channels, side, side).sum(0, dtype=precise)[:, None]
