"""Train and compare the paper's ablations (Tables I to VI) with one command.

    python -m benchmarks.ablations --data TAR... --val TAR... --minutes 60 --out runs/ablations

Each ablation is trained for the same time (or --steps) with the same seed, in a folder of its own,
and measured on --val. Stopped, the same command goes on where it was; ablations that are finished
are not trained again. ablations.json and the tables grow as ablations end. --rehearse trains narrow
networks instead, to try the command on a CPU; their figures mean nothing.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from aminet.config import ABLATION, ABLATIONS, ModelConfig, find_config
from aminet.training.options import TrainOptions
from runtime.atomic import write_bytes
from runtime.errors import EXIT_USAGE, EdgeError, needs, run_command
from runtime.progress import Progress, Steps, silent

TABLES = {
    "I: LGFI": ("base", "without-sa", "without-rdfe", "without-skaf"),
    "II: LGFI or Transformer block": ("base", "transformer"),
    "III: RDFE or feed-forward network": ("base", "ffn"),
    "IV: RDFE": ("base", "single-3x3", "single-5x5", "single-7x7", "without-au", "without-frm"),
    "V: SKAF": ("base", "skaf-3x3-only", "skaf-5x5-only", "skaf-mean-only", "skaf-max-only"),
    "VI: EDFF": ("base", "without-edff"),
}
RESULT = "ablations.json"


@dataclass(frozen=True)
class AblationRow:
    """One trained ablation; PSNR-Y in dB on the validation faces."""

    ablation: str
    params: int
    macs: int
    psnr_y: float
    gain: float  # over bicubic
    steps: int
    minutes: float


@dataclass(frozen=True)
class Ablations:
    """All rows so far, and whether the networks were narrowed for a rehearsal."""

    rehearsal: bool
    bicubic_psnr_y: float
    rows: tuple[AblationRow, ...]


def ablations(
    options: TrainOptions,
    names: Sequence[str] = tuple(ABLATIONS),
    *,
    rehearse: bool = False,
    progress: Progress = silent,
) -> Ablations:
    """Train and measure each; `options.out` holds a folder for each, and the result so far."""
    if not options.val:
        raise EdgeError("ablations: --val: needs faces to measure on", EXIT_USAGE)
    result = None
    for result in _grow(options, names, rehearse, progress):
        content = f"{json.dumps(asdict(result), indent=1)}\n"
        write_bytes(options.out / RESULT, content.encode())
    if result is None:
        raise EdgeError("ablations: none were named", EXIT_USAGE)
    return result


def _grow(
    options: TrainOptions, names: Sequence[str], rehearse: bool, progress: Progress
) -> Iterator[Ablations]:
    from aminet.training.validation import Validation

    bicubic = Validation.load(options.val).bicubic_psnr_y
    rows: list[AblationRow] = []
    for name in names:
        config = find_config(f"{ABLATION}{name}")
        rows.append(_train(options, name, narrowed(config) if rehearse else config, progress))
        rows[-1] = replace(rows[-1], gain=round(rows[-1].psnr_y - bicubic, 4))
        yield Ablations(rehearse, round(bicubic, 4), tuple(rows))


def _train(
    options: TrainOptions, name: str, config: ModelConfig, progress: Progress
) -> AblationRow:
    from aminet.info import measure_cost
    from aminet.train import train

    one = replace(options, model=f"{ABLATION}{name}", out=options.out / name, resume=True)
    result = train(one, config, lambda step: progress(f"{name}: {step}"))
    assert result.best_psnr_y is not None  # there are validation faces
    cost = measure_cost(config)
    minutes = round(result.seconds / 60, 2)
    psnr_y = round(result.best_psnr_y, 4)
    return AblationRow(name, cost.params, cost.macs, psnr_y, 0.0, result.steps, minutes)


def narrowed(config: ModelConfig) -> ModelConfig:
    """The same ablation on two narrow levels, which trains in seconds."""
    return replace(
        config, side=16, channels=(8, 16), heads=(1, 2), refine_convs=(1, 0), hourglass=(1, 0)
    )


def table(result: Ablations) -> str:
    """Markdown: the paper's tables, each with the ablations that were trained."""
    found = {row.ablation: row for row in result.rows}
    title = " (rehearsal: narrow networks, the figures mean nothing)" if result.rehearsal else ""
    parts = []
    for name, ablations in TABLES.items():
        rows = [found[ablation] for ablation in ablations if ablation in found]
        if [row.ablation for row in rows] in ([], ["base"]):
            continue
        lines = [f"Table {name}{title}", ""]
        lines += ["| ablation | parameters | MACs | PSNR-Y | over bicubic | steps | minutes |"]
        lines += ["| --- |" + " ---: |" * 6]
        lines += [
            f"| {row.ablation} | {row.params / 1e6:.2f} M | {row.macs / 1e9:.2f} G"
            f" | {row.psnr_y:.2f} | {row.gain:+.2f} | {row.steps} | {row.minutes:.0f} |"
            for row in rows
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(given: argparse.Namespace) -> int:
    options = TrainOptions(
        data=tuple(given.data),
        val=tuple(given.val),
        out=given.out,
        minutes=given.minutes,
        steps=given.steps,
        batch=given.batch,
        device=given.device,
        compile=given.compile,
        seed=given.seed,
    )
    with needs("train"), Steps() as progress:
        result = ablations(options, given.only, rehearse=given.rehearse, progress=progress)
    print(json.dumps(asdict(result)) if given.json else table(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ablations",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--data", nargs="+", required=True, metavar="TAR_OR_DIR", help="128x128 training faces")
    add("--val", nargs="+", required=True, metavar="TAR_OR_DIR", help="faces to measure on")
    add("--out", type=Path, required=True, metavar="DIR", help="a folder for each ablation")
    add("--minutes", type=float, help="train each so long")
    add("--steps", type=int, help="or so many steps")
    add("--only", nargs="+", default=tuple(ABLATIONS), choices=tuple(ABLATIONS), metavar="NAME")
    add("--batch", type=int, default=TrainOptions.batch)
    add("--seed", type=int, default=0)
    add("--device", default=TrainOptions.device)
    add("--compile", action="store_true", help="torch.compile; needs a C++ compiler")
    add("--rehearse", action="store_true", help="narrow networks, to try the command")
    add("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
