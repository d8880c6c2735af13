"""The state of a run as one flat dict of tensors: weights, their average, optimizer moments."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def pack(
    parts: Mapping[str, Mapping[str, Tensor]], optimizers: Sequence[torch.optim.Optimizer]
) -> dict[str, Tensor]:
    """Keys are "<part>.<name>", and "optimizer.<number>.<parameter>.<moment>"."""
    tensors = {f"{part}.{k}": v for part, state in parts.items() for k, v in state.items()}
    for number, optimizer in enumerate(optimizers):
        for index, moments in optimizer.state_dict()["state"].items():
            prefix = f"optimizer.{number}.{index}"
            tensors |= {f"{prefix}.{k}": torch.as_tensor(v) for k, v in moments.items()}
    return tensors


def unpack(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The inverse of pack: by part; the moments are the part "optimizer"."""
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        part, name = key.split(".", 1)
        parts.setdefault(part, {})[name] = value
    return parts


def restore_moments(
    optimizers: Sequence[torch.optim.Optimizer], moments: Mapping[str, Tensor]
) -> None:
    """Give each optimizer its moments, keyed "<number>.<parameter>.<moment>"."""
    for number, optimizer in enumerate(optimizers):
        own: dict[int, dict[str, Tensor]] = {}
        for key, value in moments.items():
            owner, index, name = key.split(".", 2)
            if int(owner) == number:
                own.setdefault(int(index), {})[name] = value
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": own, "param_groups": groups})
        _lay_out(optimizer)


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Lay moments out in memory as their parameters are: fused Adam pairs them by address.

    A file holds them contiguous, where convolutions' kernels are in channels_last memory.
    """
    for parameter, state in optimizer.state.items():
        for name, moment in state.items():
            if isinstance(moment, Tensor) and moment.shape == parameter.shape:
                state[name] = torch.empty_like(parameter).copy_(moment).detach()
