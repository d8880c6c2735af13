"""The model card of released weights: what they are, their quality, how they were trained."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.harness.table import markdown_table

if TYPE_CHECKING:
    from aminet.checkpoint import Checkpoint

STAGE = (
    "steps",
    "minutes",
    "trained_on",
    "loss",
    "optimizer",
    "rate",
    "weight_decay",
    "batch",
    "ema",
    "rest",
    "fresh",
    "freeze_norms",
    "teacher",
    "qat",
    "morph",
    "mean",
)
PAPER_GAIN_DB = {"aminet": 4.65, "aminet-s": 4.32}  # over bicubic on its CelebA: Tables VII and X
# Of the last stage that has it. What 16-px models have augmentation for, others have degradation.
RECIPE = ("data", "augmentation", "degradation", "gan", "precision")


def model_card(weights: "Checkpoint", table: str) -> str:
    """Markdown: what the weights are, their quality beside bicubic's, and how they were made."""
    from aminet.config import LR_SIDE, NATURAL
    from aminet.info import measure_cost
    from aminet.training.lineage import CPU, minutes_by_device

    shrunk = weights.config.lr_side == LR_SIDE
    cost = measure_cost(weights.config)
    stages = weights.training["stages"]
    minutes = minutes_by_device(stages)
    paper = PAPER_GAIN_DB.get(weights.model) if list(minutes) == [CPU] else None
    recipe = {key: value for stage in stages for key, value in stage.items() if value}
    return CARD.format(
        model=weights.model,
        what=SHRUNK[0] if shrunk else DEGRADED[0],
        style=SHARP.format(natural=NATURAL[weights.model]) if weights.model in NATURAL else "",
        taken=LATEST if weights.model in NATURAL or weights.ranges else BEST,
        conditions=SHRUNK[1] if shrunk else DEGRADED[1],
        params=cost.params / 1e6,
        macs=cost.macs / 1e9,
        sha256=weights.sha256,
        table=table,
        steps=sum(stage["steps"] for stage in stages),
        faces=sum(stage["steps"] * stage["batch"] for stage in stages),
        minutes=", ".join(f"{spent:.1f} minutes on {name}" for name, spent in minutes.items()),
        beginning=BEGINNING.format(hours=minutes[CPU] / 60, paper=paper) if paper else "",
        torch=weights.training["torch"],
        stages=stage_table(stages),
        recipe="\n".join(
            f"- {key}: {json.dumps(recipe[key])}"
            for key in RECIPE
            if key in recipe and (shrunk or key != "augmentation")
        ),
    )


def stage_table(stages: Sequence[Mapping[str, Any]]) -> str:
    """One line a stage of the training; columns that no stage has are left out."""
    columns = [name for name in STAGE if any(stage.get(name) for stage in stages)]
    cells = [[_cell(stage.get(name)) for name in columns] for stage in stages]
    lines = [(str(number), *line) for number, line in enumerate(cells, 1)]
    return markdown_table(("stage", *columns), lines)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


SHRUNK = (
    "Super-resolves a 16x16 face to 128x128.",
    "PyTorch FP32, faces shrunk by Pillow's bicubic filter, metrics on the luma of uint8 images:",
)
DEGRADED = (
    "Super-resolves a face of 10 to 64 px, resampled to 64x64, to 128x128.",
    """\
PyTorch FP32, PSNR-Y over bicubic upscaling of the same frame in dB, mean of the faces, by the size
of the frame (`benchmarks.wild`). clean: shrunk by Pillow's bicubic filter; camera: slight blur,
noise of 2 to 8 levels, JPEG; dark: two stops under, noise of 1 to 4 levels, JPEG.""",
)
# AMIGAN: the same network, trained with other losses.
SHARP = """\
The sharp version of {natural}: the same network, trained on from its weights with VGG16's feature
maps and a discriminator beside the pixel loss. More detail, and more of it invented; PSNR-Y is
lower. LPIPS is AlexNet's, which the training does not see.
"""
BEGINNING = """
**A beginning**: trained for {hours:.1f} hours on one CPU. The paper's network gains {paper:.2f} dB
over bicubic on its CelebA images; that needs a GPU. Until then aminet-edge is better, and faster.
"""
BEST = "taken where celeba-val was best"
LATEST = "taken at its end"
CARD = """\
# {model}

{what}
{style}{params:.2f} M parameters, {macs:.2f} G multiply-adds a face.
`{model}.safetensors`: FP16, sha256 `{sha256}`.

**It invents detail: not for identifying anyone.** What a small image lost is filled in with what is
usual in the training faces. Licence: research, non-commercial (derived from CelebA).
{beginning}
## Quality

{conditions}

{table}

## Training

{steps:,} steps, {faces:,} faces seen, {minutes}, torch {torch}.
`rate` is what a stage's cosine begins with; `fresh` began anew; `morph` is a change of shape;
`mean` averages the weights at the ends of so many branches of the stages before it; `rest` is how
many of the shallow levels were left out, as the identity.

{stages}

{recipe}

The weights are the exponential average (ema) of the run, {taken}; no test
set was used to choose anything.
"""
