"""Write docs/results.md: the paper's tables with our figures beside its own.

    python -m benchmarks.accuracy --data TAR... --json > docs/measured/quality.json
    python -m benchmarks.demo --json > docs/measured/demo.json
    python -m benchmarks.studies.real_faces --data TAR --calib TAR --out docs/measured/drift.json
    python -m benchmarks.studies.ratios --out docs/measured/ratios.json
    python -m benchmarks.studies.quantizers --data celeba-val.tar --out docs/measured/engines.json
    python -m benchmarks.results

Reads every docs/measured/*.json, which the commands above wrote, and counts parameters and
multiply-adds itself. What was not measured has no row; no figure of ours is typed by hand. The
comparison of engines goes into docs/quantization.md, between its marks.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.errors import EdgeError, needs, run_command

with needs("train,quantize,eval", __name__):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from aminet.blocks import EDFF
    from aminet.config import MODELS
    from aminet.info import Cost, measure_cost
    from benchmarks.accuracy import Row, over_bicubic
    from benchmarks.studies import quantizers

from runtime.atomic import write_bytes

MEASURED, OUT = Path("docs", "measured"), Path("docs", "results.md")
QUALITY = {  # a column's title and format
    "psnr_y": ("PSNR-Y", "{:.2f}"),
    "ssim_y": ("SSIM-Y", "{:.4f}"),
    "vif": ("VIF", "{:.4f}"),
    "lpips": ("LPIPS", "{:.4f}"),
    "kid_mobilenetv2": ("KID (MobileNetV2)", "{:.4f}"),
    "identity": ("identity", "{:.3f}"),
}
# The paper's Table VII and IX; its pictures are framed and split otherwise than ours.
PAPER_QUALITY: dict[str, dict[str, tuple[float, ...]]] = {
    "CelebA": {
        "bicubic": (23.61, 0.6779, 0.1821, 0.4899),
        "SPARNet": (27.73, 0.7949, 0.4505, 0.1995),
        "SFMNet": (27.96, 0.7996, 0.4644, 0.1937),
        "AMINet": (28.26, 0.8091, 0.4893, 0.1755),
    },
    "Helen": {
        "bicubic": (22.95, 0.6762, 0.1745, 0.4912),
        "SPARNet": (26.43, 0.7839, 0.4262, 0.2674),
        "SFMNet": (26.86, 0.7987, 0.4573, 0.2322),
        "AMINet": (27.01, 0.8042, 0.4694, 0.2067),
    },
}
TIMED = ("", "its own set")  # benchmarks.studies.ratios times the files as they are, no other ones
PAPER_COST = {"aminet": (15.6, 15.6), "aminet-s": (8.2, 9.4)}  # M parameters, G multiply-adds
DATA = {"celeba-test": "CelebA", "helen-test": "Helen"}
SIDES = (128, 64, 32)  # where a U-shape's decoder meets its encoder
U_SHAPES = {  # channels at those sides, from the authors' code
    "SPARNet": (32, 64, 128),
    "SFMNet, spatial branch": (64, 64, 64),
}


@dataclass(frozen=True)
class Table:
    """A heading, a sentence about it, and its rows as Markdown cells."""

    heading: str
    about: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        return f"## {self.heading}\n\n{self.about}\n\n{self.body}\n"

    @property
    def body(self) -> str:
        lines = [self.columns, ("---",) * len(self.columns), *self.rows]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def results(measured: Path = MEASURED) -> str:
    """All tables that have a row of ours, as one Markdown page."""
    found = [read(path) for path in sorted(measured.glob("*.json"))]
    quality = quality_rows(found, measured)
    speed = [
        row
        for each in found
        for row in each.get("rows", [])
        if {"p50_ms", "artifact"} <= row.keys()
    ]
    tables = [quality_table(data, quality) for data in ordered(row.data for row in quality)]
    drift = [row for each in found for row in each.get("rows", []) if "calibrated_with" in row]
    tables += [small_table(drift, speed)] if drift else []
    tables += [cost_table(speed), edff_table()]
    return HEAD + "\n".join(table.markdown() for table in tables)


def read(path: Path) -> dict[str, Any]:
    """A command's JSON object; anything else raises EdgeError."""
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise EdgeError(f"{path}: is not JSON ({error}); write it again with --json") from error
    if not isinstance(found, dict):
        raise EdgeError(f"{path}: is no JSON object, expected what a command's --json prints")
    return found


def quality_rows(found: Sequence[dict[str, Any]], measured: Path) -> list[Row]:
    """What benchmarks.accuracy wrote among them; EdgeError if another version did."""
    try:
        return [Row(**row) for each in found for row in each.get("rows", []) if "ssim_y" in row]
    except TypeError as error:
        raise EdgeError(
            f"{measured}: has a row of quality that is not what benchmarks.accuracy writes; write"
            " it again with --json"
        ) from error


def quality_table(data: str, rows: Sequence[Row]) -> Table:
    """Tables VII and IX on one data set: ours, then the paper's where it has that set."""
    ours = {(row.artifact, row.backend): row for row in rows if row.data == data}
    names = [
        name for name in QUALITY if any(getattr(row, name) is not None for row in ours.values())
    ]
    lines = [
        (
            f"{row.artifact} ({row.backend})",
            over_bicubic(row),
            *(cell(name, getattr(row, name)) for name in names),
        )
        for row in ours.values()
    ]
    paper = PAPER_QUALITY.get(DATA.get(data, ""), {})
    for network, figures in paper.items():
        given = dict(zip(("psnr_y", "ssim_y", "vif", "lpips"), figures, strict=True))
        gain = f"{figures[0] - paper['bicubic'][0]:+.2f}"
        lines.append((f"*the paper's {network}*", gain, *(cell(n, given.get(n)) for n in names)))
    faces = next(iter(ours.values())).n
    return Table(
        f"Quality on {data} (Tables VII and IX)",
        f"{faces} faces; PSNR in dB, over bicubic with the mean's 95 % interval. The paper's rows"
        " are its own, on its own pictures.",
        ("network", "over bicubic", *(QUALITY[name][0] for name in names)),
        tuple(lines),
    )


def cell(name: str, value: float | None) -> str:
    return "" if value is None else QUALITY[name][1].format(value)


def small_table(drift: Sequence[dict[str, Any]], speed: Sequence[dict[str, Any]]) -> Table:
    """What FP16 and INT8 lose on real faces, and what they gain."""
    ratios = {(row["artifact"], row["backend"]): row for row in speed if "of_fp32" in row}
    lines = []
    for row in drift:
        timed = row["calibrated_with"] in TIMED and not row["emulated"]
        ratio = ratios.get((row["artifact"], row["backend"])) if timed else None
        share = row["int8_mac_share"]
        lines.append(
            (
                row["artifact"],
                row["backend"] + (", emulating TensorRT" if row["emulated"] else ""),
                row["calibrated_with"],
                f"{row['drift_db']:.3f}",
                f"{row['worst_drift_db']:.3f}",
                "" if share is None else f"{share:.1%}",
                f"{row['share_of_bytes']:.2f}x",
                "" if ratio is None else f"{ratio['of_fp32']:.2f}x",
                "" if ratio is None else f"{ratio['of_best_fp32']:.2f}x",
            )
        )
    return Table(
        "INT8 and FP16",
        f"PSNR-Y lost against FP32 on {drift[0]['faces']} real faces, in dB, in the mean and on the"
        " worst; the multiply-adds that the backend computes in INT8; size and speed to FP32.",
        (
            *("file", "backend", "calibrated with", "drift", "worst face", "in INT8", "size"),
            *("speed to FP32 there", "to the best FP32"),
        ),
        tuple(lines),
    )


def cost_table(speed: Sequence[dict[str, Any]]) -> Table:
    """Table X: what each model costs; milliseconds a face where they were measured."""
    lines = []
    for model, config in MODELS.items():
        cost = measure_cost(config)
        paper = PAPER_COST.get(model)
        theirs = f"{paper[0]} M, {paper[1]} G" if paper else ""
        times = {
            (row["artifact"].split("/")[-1], row["backend"]): row["p50_ms"]
            for row in speed
            if row["artifact"].split("/")[0] == model
        }
        timed = ", ".join(f"{ms:.1f} ({file}, {backend})" for (file, backend), ms in times.items())
        lines.append((model, *cost_cells(cost), theirs, timed))
    return Table(
        "Cost (Table X)",
        "Multiply-adds of one face; the median time of one face on the machine that measured it.",
        ("model", "parameters", "multiply-adds", "*the paper's*", "ms a face"),
        tuple(lines),
    )


def edff_table() -> Table:
    """Table VI: what EDFF adds to other U-shapes, where their decoder meets their encoder."""
    rows = [(shape, *cost_cells(edff_cost(widths))) for shape, widths in U_SHAPES.items()]
    return Table(
        "EDFF alone (Table VI)",
        "What three EDFF add at 128x128, 64x64 and 32x32, at those networks' widths.",
        ("U-shape", "parameters", "multiply-adds"),
        tuple(rows),
    )


def edff_cost(widths: Sequence[int]) -> Cost:
    """Counted with torch's own counter, on tensors without data."""
    params = macs = 0
    for channels, side in zip(widths, SIDES, strict=True):
        with torch.device("meta"):
            fusion = EDFF(MODELS["aminet"], channels)
            feature = torch.empty(1, channels, side, side)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            fusion(feature, feature)
        params += sum(parameter.numel() for parameter in fusion.parameters())
        macs += counter.get_total_flops() // 2
    return Cost(params, macs)


def cost_cells(cost: Cost) -> tuple[str, str]:
    return f"{cost.params / 1e6:.2f} M", f"{cost.macs / 1e9:.2f} G"


def ordered(names: Iterable[str]) -> list[str]:
    """Each name once, the paper's data sets first."""
    once = list(dict.fromkeys(names))
    return sorted(once, key=lambda name: list(DATA).index(name) if name in DATA else len(DATA))


HEAD = """\
# Results

Written by `python -m benchmarks.results` from docs/measured/*.json, which the commands wrote. What
was not measured has no row.

"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.results", description=__doc__.split("\n")[0])
    parser.add_argument("--measured", type=Path, default=MEASURED, help=f"default {MEASURED}")
    parser.add_argument("--out", type=Path, default=OUT, help=f"default {OUT}")
    parser.add_argument(
        "--doc", type=Path, default=quantizers.DOC, help=f"default {quantizers.DOC}"
    )
    options = parser.parse_args(argv)
    write_bytes(options.out, results(options.measured).encode())
    print(options.out)
    if (compared := options.measured / "engines.json").is_file():
        quantizers.write_table(options.doc, quantizers.table(read(compared)))
        print(options.doc)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
