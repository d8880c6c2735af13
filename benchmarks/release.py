"""Release trained weights: round them to FP16, measure them, write them with their model card.

    python -m benchmarks.release --checkpoint runs/edge/best.safetensors --data TAR_OR_DIR...

Writes aminet/weights/<model>.safetensors, whose metadata carries the measured quality, and
<model>.md, the model card. No figure in the card is typed by hand. Weights that are not better
than the committed ones on the first data set are refused.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness.table import markdown_table
from runtime.atomic import write_bytes
from runtime.errors import EdgeError, needs, run_command

if TYPE_CHECKING:
    from aminet.checkpoint import Checkpoint
    from benchmarks.metrics.quality import QualityRow

STAGE = (
    "steps",
    "minutes",
    "loss",
    "optimizer",
    "rate",
    "weight_decay",
    "batch",
    "ema",
    "fresh",
    "freeze_norms",
    "teacher",
    "morph",
    "mean",
)
RECIPE = ("data", "augmentation", "precision")  # of the last stage


@dataclass(frozen=True)
class Release:
    """What was written, and the quality of the weights on each data set."""

    weights: str
    card: str
    sha256: str
    rows: "tuple[QualityRow, ...]"


def release(checkpoint: str | Path, data: Sequence[str | Path], *, force: bool = False) -> Release:
    """Round, measure and write. EdgeError if the checkpoint does not fit its model's config, or,
    unless `force`, if the committed weights are as good on the first data set."""
    from aminet.checkpoint import load_checkpoint, require_config, weights_path
    from aminet.config import find_config
    from benchmarks.metrics.quality import measure_quality

    trained = load_checkpoint(checkpoint)
    require_config(trained, find_config(trained.model), trained.model)
    if not trained.training.get("stages"):
        raise EdgeError(
            f"{checkpoint}: has no training record. Take a checkpoint that aminet.train wrote"
        )
    path = weights_path(trained.model)
    with tempfile.TemporaryDirectory() as folder:
        rounded = Path(folder) / path.name
        _save(rounded, trained, trained.metrics)
        rows = measure_quality(data, checkpoints=[rounded]).rows
    metrics = quality_metadata(rows)
    if path.is_file() and not force:
        _refuse_worse(load_checkpoint(path), metrics, rows[0].data)
    _save(path, trained, metrics)
    released = load_checkpoint(path)
    card = path.with_suffix(".md")
    write_bytes(card, model_card(released, rows).encode())
    return Release(str(path), str(card), released.sha256, rows)


def quality_metadata(rows: "Sequence[QualityRow]") -> dict[str, float]:
    """`celeba-val/psnr_y` and the like, of the network's rows."""
    measured = [row for row in rows if row.artifact != "bicubic"]
    figures = {f"{row.data}/psnr_y": round(row.psnr_y, 4) for row in measured}
    return figures | {f"{row.data}/ssim_y": round(row.ssim_y, 5) for row in measured}


def _save(path: Path, trained: "Checkpoint", metrics: Mapping[str, float]) -> None:
    import torch

    from aminet.checkpoint import save_checkpoint

    save_checkpoint(
        path,
        trained.state,
        trained.config,
        name=trained.model,
        metrics=metrics,
        training=trained.training,
        dtype=torch.float16,
    )


def _refuse_worse(committed: "Checkpoint", metrics: Mapping[str, float], data: str) -> None:
    before, after = (each.get(f"{data}/psnr_y", 0.0) for each in (committed.metrics, metrics))
    if after <= before:
        raise EdgeError(
            f"{committed.path}: has {before:.2f} dB PSNR-Y on {data}, the new weights {after:.2f};"
            " each copy stays in the history: train on, or --force"
        )


def model_card(weights: "Checkpoint", rows: "Sequence[QualityRow]") -> str:
    """Markdown: what the weights are, their quality beside bicubic's, and how they were made."""
    from aminet.info import measure_cost
    from benchmarks.metrics.quality import quality_table

    cost = measure_cost(weights.config)
    stages = weights.training["stages"]
    return CARD.format(
        model=weights.model,
        side=weights.config.lr_side,
        params=cost.params / 1e6,
        macs=cost.macs / 1e9,
        sha256=weights.sha256,
        table=quality_table(rows),
        steps=sum(stage["steps"] for stage in stages),
        faces=sum(stage["steps"] * stage["batch"] for stage in stages),
        minutes=sum(stage["minutes"] for stage in stages),
        device=weights.training["device_used"],
        torch=weights.training["torch"],
        stages=stage_table(stages),
        recipe="\n".join(f"- {key}: {json.dumps(stages[-1].get(key))}" for key in RECIPE),
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


CARD = """\
# {model}

Super-resolves a {side}x{side} face to 128x128. {params:.2f} M parameters, {macs:.2f} G
multiply-adds a face. `{model}.safetensors`: FP16, sha256 `{sha256}`.

**It invents detail: not for identifying anyone.** What a small image lost is filled in with what is
usual in the training faces. Licence: research, non-commercial (derived from CelebA).

## Quality

PyTorch FP32, faces shrunk by Pillow's bicubic filter, metrics on the luma of uint8 images:

{table}

## Training

{steps:,} steps, {faces:,} faces seen, {minutes:.1f} minutes on {device}, torch {torch}.
`rate` is what a stage's cosine begins with; `fresh` began anew; `morph` is a change of shape;
`mean` averages the weights at the ends of so many branches of the stages before it.

{stages}

{recipe}

The weights are the exponential average (ema) of the run, taken where celeba-val was best; no test
set was used to choose anything.
"""


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    with needs("train,eval"):
        from benchmarks.metrics.quality import quality_table

        result = release(arguments.checkpoint, arguments.data, force=arguments.force)
    if arguments.json:
        print(json.dumps(asdict(result)))
    else:
        print(f"{result.weights}\n{result.card}\n\n{quality_table(result.rows)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.release", description=__doc__.split("\n")[0]
    )
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="F", help="what aminet.train wrote (required)")
    add("--data", nargs="+", required=True, metavar="TAR_OR_DIR", help="128x128 faces (required)")
    add("--force", action="store_true", help="replace better weights too (default: refuse)")
    add("--json", action="store_true", help="print one JSON object (default: a table)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
