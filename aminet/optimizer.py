"""The optimizer: Muon for the wide convolutions, Adam for everything else."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def as_matrix(kernel: Tensor) -> Tensor:
    """A convolution's (out, in, k, k), in channels_last memory, as a view (out, k * k * in)."""
    return kernel.permute(0, 2, 3, 1).reshape(len(kernel), -1)


class ConvMuon(torch.optim.Muon):
    """torch.optim.Muon, which takes matrices only, for convolution kernels.

    Muon (Jordan et al., 2024) orthogonalizes each update; the library's `match_rms_adamw` scales
    it so that Adam's learning rate serves. The kernels must be in channels_last memory.
    """

    def __init__(self, kernels: Iterable[nn.Parameter], rate: float) -> None:
        self.kernels = list(kernels)
        self.matrices = [nn.Parameter(as_matrix(kernel.detach())) for kernel in self.kernels]
        for kernel, matrix in zip(self.kernels, self.matrices, strict=True):
            if kernel.data_ptr() != matrix.data_ptr():
                raise ValueError("ConvMuon: kernels must be in channels_last memory")
        super().__init__(self.matrices, lr=rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for kernel, matrix in zip(self.kernels, self.matrices, strict=True):
            matrix.grad = None if kernel.grad is None else as_matrix(kernel.grad)
        super().step(closure)


def is_wide(parameter: nn.Parameter, name: str) -> bool:
    """A dense convolution inside the body: many inputs, many outputs."""
    if parameter.ndim != 4 or name.startswith(("entry.", "exit.")):
        return False
    return parameter.shape[0] >= 16 and parameter.shape[1] >= 16


def build_optimizers(
    network: nn.Module, kind: str, rate: float, betas: tuple[float, float]
) -> list[torch.optim.Optimizer]:
    """`adam` for all parameters (the paper's), or `muon` for the wide convolutions and Adam."""
    named = dict(network.named_parameters())
    wide = {k: v for k, v in named.items() if kind == "muon" and is_wide(v, k)}
    rest = [v for k, v in named.items() if k not in wide]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Adam(rest, lr=rate, betas=betas, fused=True)
    ]
    return [*optimizers, ConvMuon(wide.values(), rate)] if wide else optimizers
