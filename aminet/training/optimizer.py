"""The optimizer: Muon for the wide convolutions, Adam for everything else."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

ENDS = ("entry.", "exit.")
RANGE_SCALE = 30.0  # of the learning rate, for ranges and the factors of channels
GATE_SCALE = 0.1  # of the learning rate, for SKAF's selection: see is_gate


def as_matrix(kernel: Tensor) -> Tensor:
    """A convolution's (out, in, k, k), in channels_last memory, as a view (out, k * k * in)."""
    return kernel.permute(0, 2, 3, 1).reshape(len(kernel), -1)


class ConvMuon(torch.optim.Muon):
    """torch.optim.Muon, which takes matrices only, for convolution kernels.

    Muon (Jordan et al., 2024) orthogonalizes each update; the library's `match_rms_adamw` scales
    it so that Adam's learning rate serves. The kernels must be in channels_last memory.
    """

    def __init__(self, groups: Iterable[Mapping[str, Any]], rate: float) -> None:
        """Groups of `params`, each with a `weight_decay`, as torch's optimizers take them."""
        groups = list(groups)
        self.kernels = [kernel for group in groups for kernel in group["params"]]
        self.matrices = [nn.Parameter(as_matrix(kernel.detach())) for kernel in self.kernels]
        for kernel, matrix in zip(self.kernels, self.matrices, strict=True):
            if kernel.data_ptr() != matrix.data_ptr():
                raise ValueError("ConvMuon: kernels must be in channels_last memory")
        matrices = iter(self.matrices)
        as_matrices = [{**g, "params": [next(matrices) for _ in g["params"]]} for g in groups]
        super().__init__(as_matrices, lr=rate, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for kernel, matrix in zip(self.kernels, self.matrices, strict=True):
            matrix.grad = None if kernel.grad is None else as_matrix(kernel.grad)
        super().step(closure)


def is_wide(parameter: nn.Parameter, name: str) -> bool:
    """A dense convolution with many inputs and many outputs."""
    return parameter.ndim == 4 and parameter.shape[0] >= 16 and parameter.shape[1] >= 16


def is_gate(name: str) -> bool:
    """SKAF's selection: at the full rate its sigmoids saturate at 0 within a hundred steps.

    Closed gates lower the loss of an untrained network fastest, and they have no gradient.
    """
    return ".select." in name


def is_range(name: str) -> bool:
    """Of quantization-aware training: the ends of a range, the logarithm of a channel's factor."""
    return name.startswith(("quantizers.", "channels."))


def is_end(name: str) -> bool:
    """Entry and exit: no batch norm follows, so their size counts; it is learnt, not decayed."""
    return name.startswith(ENDS)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Each group's learning rate: the rate times its own scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("scale", 1.0)


def build_optimizers(
    network: nn.Module,
    kind: str,
    rate: float,
    betas: tuple[float, float],
    weight_decay: float = 0.0,
) -> list[torch.optim.Optimizer]:
    """`adam` for all parameters (the paper's), or `muon` for the wide convolutions and Adam.

    Weight decay is for the wide convolutions: where a batch norm follows, their size does nothing
    but slow them down, since the same update turns a larger kernel less.
    """
    named = dict(network.named_parameters())
    wide = {k: v for k, v in named.items() if kind == "muon" and is_wide(v, k)}
    slow, fast = ([v for k, v in named.items() if chosen(k)] for chosen in (is_gate, is_range))
    rest = [v for k, v in named.items() if k not in wide and not is_gate(k) and not is_range(k)]
    groups = [
        {"params": rest, "scale": 1.0},
        {"params": slow, "scale": GATE_SCALE},
        {"params": fast, "scale": RANGE_SCALE},
    ]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Adam([g for g in groups if g["params"]], lr=rate, betas=betas, fused=True)
    ]
    kernels = [
        {"params": [v for k, v in wide.items() if not is_end(k)], "weight_decay": weight_decay},
        {"params": [v for k, v in wide.items() if is_end(k)], "weight_decay": 0.0},
    ]
    kernels = [group for group in kernels if group["params"]]
    return [*optimizers, ConvMuon(kernels, rate)] if kernels else optimizers
