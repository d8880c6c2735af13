"""Release trained weights: round them to FP16, measure them, write them with their model card.

    python -m benchmarks.release --checkpoint runs/edge/best.safetensors --data TAR_OR_DIR...

Writes aminet/weights/<model>.safetensors, whose metadata carries the measured quality, and
<model>.md, the model card. No figure in the card is typed by hand. 16-px models are measured on
bicubically shrunk faces, others on the degraded faces of benchmarks.wild. Weights that are not
better than the committed ones on the first data set, or worse than bicubic upscaling in any cell
of degraded faces, are refused.
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
    from benchmarks.wild import WildRow

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
# What 16-px models have augmentation for, others have degradation for.
RECIPE = ("data", "augmentation", "degradation", "precision")  # of the last stage that trained


@dataclass(frozen=True)
class Release:
    """What was written, and the quality of the weights on each data set."""

    weights: str
    card: str
    sha256: str
    rows: "tuple[QualityRow, ...] | tuple[WildRow, ...]"
    table: str  # Markdown


@dataclass(frozen=True)
class Measured:
    """Rows, and what of them goes into the weights' metadata and the card."""

    rows: "tuple[QualityRow, ...] | tuple[WildRow, ...]"
    metrics: Mapping[str, float]
    table: str
    decides: str  # the metric in which the committed weights must be beaten


def release(
    checkpoint: str | Path,
    data: Sequence[str | Path],
    *,
    faces: int | None = None,
    force: bool = False,
) -> Release:
    """Round, measure and write; `faces` limits the degraded faces of each data set.

    EdgeError if the checkpoint does not fit its model's config, or, unless `force`, if the
    committed weights are as good on the first data set, or bicubic upscaling is better somewhere.
    """
    from aminet.checkpoint import load_checkpoint, require_config, weights_path
    from aminet.config import LR_SIDE, find_config

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
        shrunk = trained.config.lr_side == LR_SIDE
        found = on_shrunk(rounded, data) if shrunk else on_degraded(rounded, data, faces)
    if not force:
        _refuse_losing(found.metrics)
        if path.is_file():
            _refuse_worse(load_checkpoint(path), found)
    kept = {} if shrunk else dict(trained.metrics)  # the run's own validation, for export
    _save(path, trained, {**kept, **found.metrics})
    released = load_checkpoint(path)
    card = path.with_suffix(".md")
    write_bytes(card, model_card(released, found.table).encode())
    return Release(str(path), str(card), released.sha256, found.rows, found.table)


def on_shrunk(weights: Path, data: Sequence[str | Path]) -> Measured:
    """Measure on bicubically shrunk faces: `celeba-val/psnr_y` and the like."""
    from benchmarks.metrics.quality import measure_quality, quality_table

    rows = measure_quality(data, checkpoints=[weights]).rows
    of_network = [row for row in rows if row.artifact != "bicubic"]
    metrics = {f"{row.data}/psnr_y": round(row.psnr_y, 4) for row in of_network}
    metrics |= {f"{row.data}/ssim_y": round(row.ssim_y, 5) for row in of_network}
    return Measured(rows, metrics, quality_table(rows), f"{rows[0].data}/psnr_y")


def on_degraded(weights: Path, data: Sequence[str | Path], faces: int | None) -> Measured:
    """Measure on degraded faces: `celeba-val/gain/dark-16`, dB over bicubic, and the mean."""
    from benchmarks.metrics.wild_upscalers import bicubic_frames, checkpoint_frames
    from benchmarks.wild import gain_table, wild

    with bicubic_frames() as bicubic, checkpoint_frames(weights) as network:
        rows = wild(data, [bicubic, network], faces=faces).rows
    of_network = [row for row in rows if row.upscaler != "bicubic"]
    metrics: dict[str, float] = {}
    for name in dict.fromkeys(row.data for row in of_network):
        here = {f"{row.kind}-{row.size}": row.gain for row in of_network if row.data == name}
        metrics[f"{name}/gain"] = round(sum(here.values()) / len(here), 4)
        metrics |= {f"{name}/gain/{cell}": round(gain, 4) for cell, gain in here.items()}
    return Measured(rows, metrics, gain_table(rows), f"{of_network[0].data}/gain")


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


def _refuse_losing(metrics: Mapping[str, float]) -> None:
    losing = {key: gain for key, gain in metrics.items() if "/gain/" in key and gain <= 0}
    if losing:
        worst = min(losing, key=lambda key: losing[key])
        raise EdgeError(
            f"release: bicubic upscaling is better in {len(losing)} cells, most at {worst}"
            f" ({losing[worst]:+.2f} dB); train on, or --force"
        )


def _refuse_worse(committed: "Checkpoint", found: Measured) -> None:
    before, after = (each.get(found.decides, 0.0) for each in (committed.metrics, found.metrics))
    if after <= before:
        raise EdgeError(
            f"{committed.path}: {found.decides} is {before:.2f} dB, the new weights' {after:.2f};"
            " each copy stays in the history: train on, or --force"
        )


def model_card(weights: "Checkpoint", table: str) -> str:
    """Markdown: what the weights are, their quality beside bicubic's, and how they were made."""
    from aminet.config import LR_SIDE
    from aminet.info import measure_cost

    shrunk = weights.config.lr_side == LR_SIDE
    cost = measure_cost(weights.config)
    stages = weights.training["stages"]
    trained = next((stage for stage in reversed(stages) if stage["steps"]), stages[-1])
    return CARD.format(
        model=weights.model,
        what=SHRUNK[0] if shrunk else DEGRADED[0],
        conditions=SHRUNK[1] if shrunk else DEGRADED[1],
        params=cost.params / 1e6,
        macs=cost.macs / 1e9,
        sha256=weights.sha256,
        table=table,
        steps=sum(stage["steps"] for stage in stages),
        faces=sum(stage["steps"] * stage["batch"] for stage in stages),
        minutes=sum(stage["minutes"] for stage in stages),
        device=weights.training["device_used"],
        torch=weights.training["torch"],
        stages=stage_table(stages),
        recipe="\n".join(
            f"- {key}: {json.dumps(trained[key])}"
            for key in RECIPE
            if trained.get(key) and (shrunk or key != "augmentation")
        ),
    )


def write_curve(run: Path, out: Path) -> None:
    """Write the validations in a run's log: minutes, steps, faces, and each cell's gain, dB."""
    from aminet.checkpoint import load_checkpoint
    from aminet.training.logbook import read

    last = load_checkpoint(run / "best.safetensors").training["stages"][-1]
    points = [
        {
            "minutes": round(line["seconds"] / 60, 1),
            "step": line["step"],
            "faces": line["step"] * last["batch"],
            **{key: v for key, v in line.items() if key not in ("step", "seconds", "rate")},
        }
        for line in read(run / "log.jsonl")
        if "psnr_y" in line
    ]
    write_bytes(out, f"{json.dumps({'points': points}, indent=1)}\n".encode())


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
CARD = """\
# {model}

{what}
{params:.2f} M parameters, {macs:.2f} G multiply-adds a face. `{model}.safetensors`: FP16, sha256
`{sha256}`.

**It invents detail: not for identifying anyone.** What a small image lost is filled in with what is
usual in the training faces. Licence: research, non-commercial (derived from CelebA).

## Quality

{conditions}

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
        result = release(
            arguments.checkpoint, arguments.data, faces=arguments.faces, force=arguments.force
        )
    if arguments.curve:
        write_curve(Path(arguments.checkpoint).parent, arguments.curve)
    if arguments.json:
        print(json.dumps(asdict(result)))
    else:
        print(f"{result.weights}\n{result.card}\n\n{result.table}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.release", description=__doc__.split("\n")[0]
    )
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="F", help="what aminet.train wrote (required)")
    add("--data", nargs="+", required=True, metavar="TAR_OR_DIR", help="128x128 faces (required)")
    add("--curve", type=Path, metavar="F.json", help="write the run's learning curve (default: no)")
    add("--faces", type=int, help="degraded faces of each data set at most (default: all)")
    add("--force", action="store_true", help="replace better weights too (default: refuse)")
    add("--json", action="store_true", help="print one JSON object (default: a table)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
