"""Take each trained model the whole way on this machine: export, quantize, convert, run, compare.

    python -m benchmarks.demo [--model NAME...] [--out artifacts/demo.png]

Writes all artifacts into artifacts/, upscales one public-domain photo (NASA's portrait of the
astronaut Eileen Collins, which scikit-image ships) and synthetic faces, and prints a table.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness.table import text_table
from runtime.errors import needs, run_command
from runtime.progress import Steps

if TYPE_CHECKING:
    from benchmarks.walkthrough import DemoRow
    from export.trt.build import Engine

OUT = Path("artifacts", "demo.png")
NOT_RUN = "not run: no GPU"


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    with needs("train,export,quantize,tensorrt-rtx,eval"):
        from benchmarks.walkthrough import demo
    with Steps() as steps:
        result = demo(arguments.out, arguments.model, _log, steps)
    if arguments.json:
        print(json.dumps(asdict(result)))
    else:
        print(f"\n{table(result.rows, result.engines)}\n")
        for image in result.images:
            print(image)
    return 0


def _log(line: str) -> None:
    clear = "\r\033[K" if sys.stderr.isatty() else ""
    print(f"{clear}{line}", file=sys.stderr)


def table(rows: "Sequence[DemoRow]", engines: "Sequence[Engine]") -> str:
    """A line for each artifact; engines for GPUs that are not here have no time."""
    cells = [
        (
            row.artifact,
            row.backend,
            row.computes_in,
            f"{row.bytes / 1e6:.1f}",
            f"{row.p50_ms:.2f}",
            f"{row.fidelity_db:.1f}",
        )
        for row in rows
    ]
    cells += [
        (
            f"{engine.model}/{Path(engine.engine).name}",
            "tensorrt",
            engine.precision,
            f"{engine.bytes / 1e6:.1f}",
            "",
            NOT_RUN,
        )
        for engine in engines
    ]
    columns = ("artifact", "backend", "computes in", "MB", "ms a face", "fidelity dB")
    return text_table(columns, cells)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.demo", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "--model",
        nargs="+",
        default=(),
        metavar="NAME",
        help="models that have weights, such as aminet-s (default: the small ones)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=OUT,
        metavar="F.png",
        help=f"faces side by side (default: {OUT})",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object (default: a table)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
