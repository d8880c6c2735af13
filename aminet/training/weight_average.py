"""The mean of related weights, kept only if it is better than each of them.

Runs from the same start, or one run at different times, end at different places of one valley, and
between those it is deeper (stochastic weight averaging, Izmailov et al. 2018; model soups, Wortsman
et al. 2022). The mean costs nothing at inference. The mean of unrelated weights is useless, so
it is always measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aminet.checkpoint import (
    Checkpoint,
    build_model,
    load_checkpoint,
    refuse_trained_ranges,
    require_config,
    save_checkpoint,
)
from aminet.training.lineage import mean_of
from aminet.training.wild_validation import load_validation
from runtime.errors import EXIT_USAGE, EdgeError


@dataclass(frozen=True)
class Averaged:
    """PSNR-Y in dB of each checkpoint and of their mean, on the validation faces."""

    checkpoint: str
    psnr_y: float
    of: Mapping[str, float]


def mean_weights(checkpoints: Sequence[Checkpoint]) -> dict[str, Tensor]:
    """The mean of each tensor, float32; counters are the first one's.

    EdgeError where the checkpoints are not all of one config.
    """
    first, *others = checkpoints
    for other in others:
        require_config(other, first.config, f"in {first.path}")
        build_model(other)  # complains of weights that do not fit
    return {
        key: torch.stack([each.state[key] for each in checkpoints]).mean(0)
        if value.is_floating_point()
        else value
        for key, value in build_model(first).state_dict().items()
    }


def average(paths: Sequence[str | Path], val: Sequence[str | Path], out: Path) -> Averaged:
    """Measure and write. EdgeError, and nothing written, unless the mean is better than each."""
    if len(paths) < 2:
        raise EdgeError("average: give two checkpoints or more", EXIT_USAGE)
    checkpoints = [load_checkpoint(path) for path in paths]
    for checkpoint in checkpoints:
        refuse_trained_ranges(checkpoint, "a mean of weights")
    validation = load_validation(val, checkpoints[0].config.lr_side)
    state = mean_weights(checkpoints)
    each = {
        str(path): round(validation.evaluate(build_model(checkpoint))[0], 4)
        for path, checkpoint in zip(paths, checkpoints, strict=True)
    }
    first = checkpoints[0]
    network = build_model(first)
    network.load_state_dict(state)
    psnr_y = round(validation.evaluate(network)[0], 4)
    best = max(each, key=lambda path: each[path])
    if psnr_y <= each[best]:
        raise EdgeError(
            f"average: the mean has {psnr_y:.4f} dB PSNR-Y, {best} alone {each[best]:.4f};"
            " average runs from the same start, none of them much worse than the others"
        )
    save_checkpoint(
        out,
        network,
        first.config,
        name=first.model,
        metrics={"validation/psnr_y": psnr_y},
        training=_training(checkpoints),
    )
    return Averaged(str(out), psnr_y, each)


def _training(checkpoints: Sequence[Checkpoint]) -> dict[str, Any]:
    """The last one's recipe, with the stages of all."""
    stages = mean_of([checkpoint.training.get("stages", []) for checkpoint in checkpoints])
    return {**checkpoints[-1].training, "stages": stages}
