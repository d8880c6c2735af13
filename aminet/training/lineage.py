"""Training stages behind weights, each with its recipe, steps and minutes.

A run that starts from weights goes on with their stages; one that is resumed with other options
begins a stage of its own. Plain JSON types, for a checkpoint's metadata and the model card.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aminet.config import LR_SIDE, find_config
from aminet.training.degradation import WILD
from aminet.training.options import TrainOptions

Stage = Mapping[str, Any]  # a recipe, and "steps" and "minutes"
CPU = "cpu"
NO_RECIPE = ("init", "minutes", "steps", "val_every_s", "device", "compile", "val", "workers")


def describe(options: TrainOptions) -> dict[str, Any]:
    """All options, with the names of files instead of their paths."""
    options_by_name = dataclasses.asdict(options)
    for name in ("out", "resume", "overwrite", "tensorboard"):
        options_by_name.pop(name)
    for path in ("init", "teacher", "ranges"):
        options_by_name[path] = _name(options_by_name[path])
    if not options.qat:  # as it was before there was one: the recipe of a run to be resumed
        options_by_name.pop("qat")
        options_by_name.pop("ranges")
    for late in ("rest", "views"):
        if not options_by_name[late]:
            options_by_name.pop(late)
    if options.gan is not None:
        options_by_name["gan"] |= {
            "vgg": _name(options.gan.vgg),
            "vgg_levels": list(options.gan.vgg_levels),
        }
    for sources in ("data", "val"):
        options_by_name[sources] = [Path(source).name for source in options_by_name[sources]]
    for several in ("betas", "fresh"):
        options_by_name[several] = list(options_by_name[several])
    if find_config(options.model).lr_side != LR_SIDE:  # degradations instead of augmentation
        options_by_name.pop("augmentation")
        options_by_name["degradation"] = json.loads(json.dumps(dataclasses.asdict(WILD)))
    return options_by_name


def begin(
    before: Sequence[Stage], options: TrainOptions, device: str = CPU
) -> list[dict[str, Any]]:
    """The stages before, and one for these options: the last of them if it had the same recipe."""
    recipe = {key: value for key, value in describe(options).items() if key not in NO_RECIPE}
    if device != CPU:  # the recipe of a run to be resumed is as it was before there was another
        recipe["trained_on"] = device
    stages = [dict(stage) for stage in before]
    if stages and all(stages[-1].get(key) == value for key, value in recipe.items()):
        return stages
    return [*stages, {**recipe, "steps": 0, "minutes": 0.0}]


def advance(stages: Sequence[Stage], steps: int, seconds: float) -> list[dict[str, Any]]:
    """The same after so much more of the last one."""
    *before, last = (dict(stage) for stage in stages)
    minutes = round(last["minutes"] + seconds / 60, 1)
    return [*before, {**last, "steps": last["steps"] + steps, "minutes": minutes}]


def minutes_by_device(stages: Sequence[Stage]) -> dict[str, float]:
    """How long the stages took on each kind of device, the CPU first."""
    minutes = {CPU: 0.0}
    for stage in stages:
        device = stage.get("trained_on", CPU)
        minutes[device] = minutes.get(device, 0.0) + stage["minutes"]
    return {device: spent for device, spent in minutes.items() if spent}


def change(name: str, done: str) -> dict[str, Any]:
    """A stage that trained nothing: a morph, a mean."""
    return {name: done, "steps": 0, "minutes": 0.0, "batch": 0}


def mean_of(lineages: Sequence[Sequence[Stage]]) -> list[dict[str, Any]]:
    """The stages of weights that were averaged, each once, and the mean as a stage of its own."""
    return [*_united(lineages), change("mean", f"of {len(lineages)}")]


def _united(lineages: Sequence[Sequence[Stage]]) -> list[dict[str, Any]]:
    """What they have in common, then each branch's own. One recipe in the same place is one run,
    of which the longer counts: its seed is part of the recipe."""
    left = [lineage for lineage in lineages if lineage]
    if not left:
        return []
    recipe = _recipe(left[0][0])
    alike = [lineage for lineage in left if _recipe(lineage[0]) == recipe]
    others = [lineage for lineage in left if _recipe(lineage[0]) != recipe]
    longest = max((lineage[0] for lineage in alike), key=lambda stage: stage["steps"])
    return [dict(longest), *_united([lineage[1:] for lineage in alike]), *_united(others)]


def _recipe(stage: Stage) -> dict[str, Any]:
    return {key: value for key, value in stage.items() if key not in ("steps", "minutes")}


def _name(path: Path | None) -> str | None:
    return None if path is None else path.name
