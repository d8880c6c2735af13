"""A network from weights of another shape.

The output is kept: FRM grows deeper by identity convolutions (Net2DeeperNet, Chen et al. 2016);
bottleneck blocks are left out; a lowest level without blocks is linear, so it is cut to its
strongest directions (truncated singular value decomposition). Training fixes the rest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aminet.blocks import FRM
from aminet.checkpoint import (
    Checkpoint,
    build_model,
    load_checkpoint,
    require_config,
    save_checkpoint,
)
from aminet.config import ModelConfig, find_config
from aminet.model import AMINet
from aminet.training.data import load, shrink
from aminet.training.lineage import change
from runtime.errors import EdgeError

FACES = 256  # whose features the new batch norms start from
KERNEL_SCALE = 4.0  # of a new identity kernel: as a trained one's, so that it moves as slowly


def morph(checkpoint: Checkpoint, config: ModelConfig, lr: Tensor) -> AMINet:
    """The network of `config` with the checkpoint's weights, float32, in eval mode.

    lr (N, 3, 16, 16) in [0, 1] are faces to measure features on. EdgeError where the two configs
    differ in more than deeper FRMs, a larger lr, fewer bottleneck blocks and, without any, a
    narrower lowest level.
    """
    _require_reachable(checkpoint, config)
    old, new = build_model(checkpoint), AMINet(config).eval()
    before, after = _refined(old), _refined(new)
    deepened = [name for name, count in after.items() if count > before[name]]
    if deepened and (config.norm, config.activation) != ("batch", "relu"):
        raise EdgeError(f"{checkpoint.path}: morph: only batch norm and ReLU can change nothing")
    state = _taken_over(old, new)
    if config.lr_side != old.config.lr_side:
        state |= _unshuffled(old, new)
    if config.channels != old.config.channels:
        state |= _narrowed(old, config.channels[-1])
    for name in deepened:
        state |= _identities(old, new, name, lr)
    new.load_state_dict({**new.state_dict(), **state})
    return new


def difference(old: ModelConfig, new: ModelConfig) -> str:
    """`refine_convs 4, 2 -> 6, 0; bottleneck 2 -> 0`, for the model card."""
    before, after = old.to_dict(), new.to_dict()
    changed = [key for key in after if before[key] != after[key]]
    return "; ".join(f"{key} {_listed(before[key])} -> {_listed(after[key])}" for key in changed)


def _listed(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _require_reachable(checkpoint: Checkpoint, config: ModelConfig) -> None:
    old = checkpoint.config
    reachable = replace(
        old,
        refine_convs=config.refine_convs,
        bottleneck=config.bottleneck,
        lr_side=config.lr_side,
    )
    if config.bottleneck == 0:
        lowest = {"channels": config.channels[-1:], "heads": config.heads[-1:]}
        reachable = replace(
            reachable, **{key: getattr(old, key)[:-1] + last for key, last in lowest.items()}
        )
    require_config(replace(checkpoint, config=reachable), config, "of what morph can make of it")
    if config.lr_side != old.lr_side and not old.lr_side == old.side < config.lr_side:
        raise EdgeError(f"{checkpoint.path}: morph: lr_side only grows over the body's own side")
    if config.bottleneck > old.bottleneck or config.channels[-1] > old.channels[-1]:
        raise EdgeError(f"{checkpoint.path}: morph: the lowest level only ever gets smaller")
    levels = len(config.channels) - (config.bottleneck == 0)
    for before, after in zip(old.refine_convs[:levels], config.refine_convs, strict=False):
        if after < before or (after > before and before == 0):
            raise EdgeError(f"{checkpoint.path}: morph: FRM cannot go from {before} to {after}")


def _refined(network: AMINet) -> dict[str, int]:
    """Each FRM's name, and how many convolutions it has before the hourglass."""
    return {
        name: sum(isinstance(part, nn.Sequential) for part in frm.refine)
        for name, frm in network.named_modules()
        if isinstance(frm, FRM)
    }


def _taken_over(old: AMINet, new: AMINet) -> dict[str, Tensor]:
    """The weights that fit as they are; behind new convolutions the hourglass has moved back."""
    before, after, fitting = _refined(old), _refined(new), new.state_dict()
    taken = {}
    for key, value in old.state_dict().items():
        for name, count in before.items():
            hourglass = f"{name}.refine.{count + 1}."
            if key.startswith(hourglass) and name in after:
                rest = key.removeprefix(hourglass)
                key = f"{name}.refine.{after[name] + 1}.{rest}"
                break
        if key in fitting and fitting[key].shape == value.shape:
            taken[key] = value
    return taken


def _unshuffled(old: AMINet, new: AMINet) -> dict[str, Tensor]:
    """An entry that sees what it saw: the mean of each block of pixels, and no detail yet."""
    kernel = torch.zeros_like(new.entry.conv.weight)
    kernel[:, :3] = old.entry.conv.weight.detach()
    return {"entry.conv.weight": kernel}


def _narrowed(old: AMINet, channels: int) -> dict[str, Tensor]:
    """The way down and up again, one linear map, cut to its strongest `channels` directions."""
    level = len(old.encoders) - 1
    down, up = f"encoders.{level}.down", "decoders.0.up"
    state = old.state_dict()
    inward, outward = state[f"{down}.weight"], state[f"{up}.weight"][:, :, 0, 0]
    both = (outward @ inward.flatten(1)).double()
    left, values, right = torch.linalg.svd(both, full_matrices=False)
    root = values[:channels].sqrt()
    narrow = (root[:, None] * right[:channels]).float()
    return {
        f"{down}.weight": narrow.reshape(channels, *inward.shape[1:]),
        f"{down}.bias": torch.zeros(channels),
        f"{up}.weight": (left[:, :channels] * root).float()[:, :, None, None],
        f"{up}.bias": state[f"{up}.bias"] + outward @ state[f"{down}.bias"],
    }


def _identities(old: AMINet, new: AMINet, name: str, lr: Tensor) -> dict[str, Tensor]:
    """An FRM's new convolutions: identity kernels, and batch norms that undo themselves.

    What reaches them has passed a ReLU, so theirs changes nothing.
    """
    before, after = _refined(old)[name], _refined(new)[name]
    mean, variance = _features(old, f"{name}.refine.{before}", lr)
    state = {}
    for position in range(before + 1, after + 1):
        part = f"{name}.refine.{position}.0"
        size = new.get_parameter(f"{part}.0.weight").shape
        norm = new.get_submodule(f"{part}.1")
        assert isinstance(norm, nn.BatchNorm2d)
        state[f"{part}.0.weight"] = nn.init.dirac_(torch.empty(size)) * KERNEL_SCALE
        state[f"{part}.0.bias"] = torch.zeros(size[0])
        state[f"{part}.1.running_mean"] = mean * KERNEL_SCALE
        state[f"{part}.1.running_var"] = variance * KERNEL_SCALE**2
        state[f"{part}.1.weight"] = (variance + norm.eps / KERNEL_SCALE**2).sqrt()
        state[f"{part}.1.bias"] = mean
    return state


@torch.no_grad()
def _features(network: AMINet, part: str, lr: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel of a part's output."""
    found: list[Tensor] = []
    hook = network.get_submodule(part).register_forward_hook(lambda *call: found.append(call[-1]))
    network(lr)
    hook.remove()
    return found[0].mean((0, 2, 3)), found[0].var((0, 2, 3), unbiased=False)


def with_stage(training: Mapping[str, Any], done: str) -> dict[str, Any]:
    """The training so far, and the morph as a stage of its own."""
    return {**training, "stages": [*training.get("stages", []), change("morph", done)]}


def morph_file(path: str | Path, model: str, faces: Sequence[str], out: Path) -> str:
    """Write to `out` what becomes of a checkpoint as `model`; returns what changed."""
    checkpoint, config = load_checkpoint(path), find_config(model)
    lr = shrink(load(faces)[:FACES]).float() / 255
    network = morph(checkpoint, config, lr)
    done = difference(checkpoint.config, config)
    save_checkpoint(
        out, network, config, name=model, training=with_stage(checkpoint.training, done)
    )
    return done if checkpoint.ranges is None else f"{done}; its activation ranges are left behind"
