"""Find where an artifact leaves FP32: `python -m export.compare fp32.onnx int8.onnx --layers`."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.atomic import writing
from runtime.errors import EXIT_USAGE, EdgeError, needs, run_command

if TYPE_CHECKING:
    from export.comparison import Comparison

WORST = 10  # layers shown


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.plot and not arguments.layers:
        raise EdgeError("--plot: needs --layers", EXIT_USAGE)
    with needs("compare"):
        from export.comparison import compare
    result = compare(arguments.a, arguments.b, arguments.data, layers=arguments.layers)
    if arguments.plot:
        _plot(result, Path(arguments.plot))
    if arguments.json:
        print(
            json.dumps({**asdict(result), "worst_layers": [r.layer for r in result.worst_layers]})
        )
    else:
        print("\n".join(_describe(result)))
    return 0


def _describe(result: "Comparison") -> list[str]:
    lines = [
        f"{result.b} against {result.a}, {result.images} images: fidelity"
        f" {result.fidelity_db:.1f} dB, worst {result.worst_fidelity_db:.1f}"
        f" ({result.worst_image}), largest difference {result.max_abs_diff:.2e}"
    ]
    if not result.layers:
        return lines
    name = max(len(row.layer) for row in result.worst_layers[:WORST])
    lines += ["", f"{'layer':<{name}}  operator    SNR dB  error added         range"]
    for row in result.worst_layers[:WORST]:
        lines.append(
            f"{row.layer:<{name}}  {row.operator:<10} {row.snr_db:>7.1f}  {row.added:>11.2e}"
            f"  {row.least:>7.2f} {row.most:>7.2f}"
        )
    hidden = len(result.layers) - WORST
    if hidden > 0:
        lines.append(f"and {hidden} layers that add less; --json lists all")
    return lines


def _plot(result: "Comparison", path: Path) -> None:
    """SNR along the graph, and the layers that add most, as an image of any matplotlib format."""
    with needs("compare"):
        from matplotlib.figure import Figure
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([row.snr_db for row in result.layers], color="tab:blue", linewidth=1)
    for rank, row in enumerate(result.worst_layers[:5], 1):
        place = (result.layers.index(row), row.snr_db)
        axes.plot(*place, "o", color="tab:red", markersize=4, label=f"{rank}  {row.layer}")
        axes.annotate(str(rank), place, textcoords="offset points", xytext=(4, -9), fontsize=8)
    axes.set(
        title=f"{result.b} against {result.a}",
        xlabel="layers in graph order",
        ylabel="signal-to-noise ratio, dB",
    )
    axes.grid(alpha=0.3)
    axes.legend(title="layers that add most error", fontsize=8, handlelength=0, markerscale=0)
    with writing(path) as temporary:
        try:
            figure.savefig(temporary, dpi=150)
        except ValueError as error:  # a format that matplotlib does not write
            raise EdgeError(f"{path}: cannot be plotted: {error}; name a .png or .svg") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export.compare",
        description="Compare two ONNX files on the same images: final outputs and, with --layers,"
        " every activation, to find the layers where an artifact leaves FP32.",
    )
    parser.add_argument("a", metavar="A.onnx", help="the reference, such as fp32.onnx")
    parser.add_argument("b", metavar="B.onnx", help="the file to examine, such as int8.onnx")
    parser.add_argument(
        "--data",
        nargs="+",
        default=(),
        metavar="TAR_OR_DIR",
        help="128x128 faces to run on (default: the probes beside A or B)",
    )
    parser.add_argument("--layers", action="store_true", help="compare every activation")
    parser.add_argument("--plot", metavar="F", help="plot the layers into an image (.png, .svg)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
