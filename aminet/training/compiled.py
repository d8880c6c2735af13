"""torch.compile, checked: its gradients on the first batch against eager mode's.

Some compiled kernels are wrong on some processors: with BF16 on an AVX-512 Intel Xeon nearly all
gradients of aminet-edge were NaN, where eager mode's and those of 256-bit vectors were finite.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TOLERANCE = 0.25  # of the gradients' length; BF16 rounding alone makes up to a tenth
VECTOR_BITS = (None, 256)  # what inductor chooses, then the narrower one

Forward = Callable[[Tensor], Tensor]
Autocast = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Compiled:
    """The function to call for training, and a line for the user."""

    forward: Forward
    notice: str | None = None


def compile_checked(network: nn.Module, lr: Tensor, hr: Tensor, autocast: Autocast) -> Compiled:
    """Compile the network if its gradients on (lr, hr) are eager mode's, else do not."""
    import torch._inductor.config as inductor  # takes a second

    expected = _gradients(network, network, lr, hr, autocast)
    fault = ""
    for bits in VECTOR_BITS:
        inductor.cpp.simdlen = bits
        torch._dynamo.reset()
        forward = torch.compile(network)
        found = _fault(_gradients(forward, network, lr, hr, autocast), expected)
        if not found:
            return Compiled(forward, fault and f"{fault}; with {bits}-bit vectors they are right")
        fault = f"torch.compile: {found} on this processor"
        if lr.device.type != "cpu":
            break
    return Compiled(network, f"{fault}; training goes on in eager mode, without --compile")


def _gradients(
    forward: Forward, network: nn.Module, lr: Tensor, hr: Tensor, autocast: Autocast
) -> list[Tensor]:
    """Of an L1 loss, float32; the network's running statistics stay as they are."""
    kept = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network.zero_grad(set_to_none=True)
    with autocast():
        sr = forward(lr)
    F.l1_loss(sr.float(), hr).backward()
    found = [p.grad.float().clone() for p in network.parameters() if p.grad is not None]
    network.zero_grad(set_to_none=True)
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            buffer.copy_(kept[name])
    return found


def _fault(found: list[Tensor], expected: list[Tensor]) -> str:
    """What is wrong with the compiled gradients; "" where nothing is.

    Where eager mode's are not finite either, it is not torch.compile's fault.
    """
    sound = [bool(gradient.isfinite().all()) for gradient in expected]
    lost = sum(not bool(a.isfinite().all()) for a, fine in zip(found, sound, strict=True) if fine)
    if lost:
        return f"{lost} of {len(found)} gradients are not finite"
    pairs = [(a, b) for a, b, fine in zip(found, expected, sound, strict=True) if fine]
    difference = sum(float((a - b).square().sum()) for a, b in pairs) ** 0.5
    length = sum(float(b.square().sum()) for _, b in pairs) ** 0.5
    if difference > TOLERANCE * length:
        return f"gradients differ from eager mode's by {difference / length:.0%}"
    return ""
