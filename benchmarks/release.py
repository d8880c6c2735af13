"""Release trained weights: round them to FP16, measure them, write them with their model card.

    python -m benchmarks.release --checkpoint runs/edge/best.safetensors --data TAR_OR_DIR...

Writes aminet/weights/<model>.safetensors, whose metadata carries the measured quality, and
<model>.md, the model card. No figure in the card is typed by hand. 16-px models are measured on
bicubically shrunk faces, others on the degraded faces of benchmarks.wild. Weights that are not
better than the committed ones on the first data set (0.02 dB or 0.002 LPIPS worse after
quantization-aware training), or worse than bicubic upscaling in any cell of degraded faces, are
refused. Sharp ones (amigan-*) are compared by LPIPS: it must be 25 % below the natural model's, and
PSNR-Y at most 1.2 dB below.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.model_card import model_card
from runtime.atomic import write_bytes
from runtime.errors import EdgeError, needs, run_command

if TYPE_CHECKING:
    from aminet.checkpoint import Checkpoint
    from benchmarks.metrics.quality import QualityRow
    from benchmarks.release_quality import Measured
    from benchmarks.wild import WildRow

# In FP32, for what quantization-aware training gains in INT8; sharp weights are judged by LPIPS.
MAY_LOSE_DB, MAY_LOSE_LPIPS = 0.02, 0.002


@dataclass(frozen=True)
class Release:
    """What was written, and the quality of the weights on each data set."""

    weights: str
    card: str
    sha256: str
    rows: "tuple[QualityRow, ...] | tuple[WildRow, ...]"
    table: str  # Markdown


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
    from benchmarks.release_quality import measure_weights

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
        found = measure_weights(rounded, trained, data, faces)
    if not force:
        _refuse_blunt(found) if found.natural else _refuse_losing(found.metrics)
        if path.is_file():
            _refuse_worse(load_checkpoint(path), found, trained)
    shrunk = trained.config.lr_side == LR_SIDE
    kept = {} if shrunk else dict(trained.metrics)  # the run's own validation, for export
    beside = {f"natural/{k}": v for k, v in found.natural.items() if k.count("/") == 1}
    _save(path, trained, {**kept, **found.metrics, **beside})
    released = load_checkpoint(path)
    card = path.with_suffix(".md")
    write_bytes(card, model_card(released, found.table).encode())
    return Release(str(path), str(card), released.sha256, found.rows, found.table)


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
        ranges=trained.ranges,
    )


def _refuse_losing(metrics: Mapping[str, float]) -> None:
    losing = {key: gain for key, gain in metrics.items() if "/gain/" in key and gain <= 0}
    if losing:
        worst = min(losing, key=lambda key: losing[key])
        raise EdgeError(
            f"release: bicubic upscaling is better in {len(losing)} cells, most at {worst}"
            f" ({losing[worst]:+.2f} dB); train on, or --force"
        )


def _refuse_blunt(found: "Measured") -> None:
    """Sharp weights that are hardly sharper than the natural ones, or too far from the truth."""
    from benchmarks.release_quality import LPIPS_SHARE, MAX_DROP_DB

    share = found.metrics[found.decides] / found.natural[found.decides]
    lost_db = found.natural[found.fidelity] - found.metrics[found.fidelity]
    if share > LPIPS_SHARE or lost_db > MAX_DROP_DB:
        raise EdgeError(
            f"release: {found.decides} is {share:.0%} of the natural model's, expected"
            f" {LPIPS_SHARE:.0%} at most; PSNR-Y is {lost_db:.2f} dB below, expected"
            f" {MAX_DROP_DB} at most; train on, or --force"
        )


def _refuse_worse(committed: "Checkpoint", found: "Measured", trained: "Checkpoint") -> None:
    before, after = committed.metrics.get(found.decides), found.metrics[found.decides]
    may_lose = MAY_LOSE_LPIPS if found.natural else MAY_LOSE_DB
    if before is None:
        return
    lost = after - before if found.natural else before - after
    if lost < (may_lose if trained.ranges else 0.0):
        return
    raise EdgeError(
        f"{committed.path}: {found.decides} is {before:.3f}, the new weights' {after:.3f};"
        " each copy stays in the history: train on, or --force"
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
