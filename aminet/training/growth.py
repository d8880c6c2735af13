"""Levels that wait: a deep U-shape is trained from its bottleneck up, each stage at its own cost.

The blocks of the shallow levels hold nearly all of a network's arithmetic. While they rest they are
the identity, and are not computed: the network with and without them gives the same output, so the
weights of one stage start the next, in which fewer levels rest. A residual branch whose last layer
is zero is a known start for deep networks (zero-initialized residuals, Goyal et al. 2017).
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from aminet.blocks import EDFF, GATE_BIAS
from aminet.config import ModelConfig
from aminet.model import AMINet
from runtime.errors import EXIT_USAGE, EdgeError

TOLERANCE = 1e-3  # weights kept as float16 are the identity, too


def rest(network: AMINet, levels: int, *, fresh: bool) -> None:
    """Leave out the blocks and fusions of the `levels` shallowest levels, from now on.

    Those of a `fresh` network are made the identity first; EdgeError (status 2) where others are
    not, since their training would be lost, and for configs that have no identity.
    """
    if not levels:
        return
    _require_identity(network.config, levels)
    for level, name, part in _resting(network, levels):
        identity = _identity(part)
        if fresh:
            part.load_state_dict({**part.state_dict(), **identity})
        elif not _holds(part.state_dict(), identity):
            raise EdgeError(
                f"train: --rest {levels}: the {name} of level {level + 1} has been trained and"
                f" would be left out; expected --rest {level} or less",
                EXIT_USAGE,
            )
        part.forward = _first  # of this module alone


def _require_identity(config: ModelConfig, levels: int) -> None:
    depth = len(config.channels) - 1
    if levels > depth:
        raise EdgeError(f"train: --rest {levels}: expected 0 to {depth}", EXIT_USAGE)
    fused = config.skaf and config.edff and config.self_attention and config.local_branch != "none"
    kernels = config.skaf_local_kernel and config.skaf_global_kernel
    if not fused or not kernels or config.block != "lgfi" or config.norm == "batch":
        raise EdgeError(
            "train: --rest: needs LGFI blocks with SKAF and EDFF, and no batch norm",
            EXIT_USAGE,
        )


def _resting(network: AMINet, levels: int) -> Iterator[tuple[int, str, Any]]:
    for level in range(levels):
        encoder, decoder = network.encoders[level], network.decoders[-1 - level]
        yield level, "encoder's block", encoder.block
        yield level, "fusion", decoder.fuse
        yield level, "decoder's block", decoder.block


def _identity(part: nn.Module) -> dict[str, Tensor]:
    """The weights with which a block, or a fusion of its first input, changes nothing."""
    state = part.state_dict()
    if not isinstance(part, EDFF):
        last = ("skaf.local.", "skaf.global_.")
        return {k: torch.zeros_like(v) for k, v in state.items() if k.startswith(last)}
    zeros = {k: torch.zeros_like(v) for k, v in state.items()}
    channels = len(state["mix.weight"])
    zeros["mix.weight"][:, :channels, 0, 0] = torch.eye(channels)
    zeros["skaf.select.bias"].fill_(GATE_BIAS)
    for name in ("skaf.local.weight", "skaf.global_.weight"):  # each gives half of the feature
        nn.init.dirac_(zeros[name])
        zeros[name] /= 2 * torch.tensor(GATE_BIAS).sigmoid()
    return zeros


def _holds(state: dict[str, Any], expected: dict[str, Tensor]) -> bool:
    return all(torch.allclose(state[k], v, rtol=0, atol=TOLERANCE) for k, v in expected.items())


def _first(x: Tensor, *_: Tensor) -> Tensor:
    return x
