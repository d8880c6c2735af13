"""Report what to deploy on this machine, as one HTML file: `python -m benchmarks.report`.

Speed comes from docs/measured/latency.json if that was measured on this processor and on these
files, else from a short measurement; all else is measured anew: faces, fidelity in each backend,
ONNX Runtime's profile, and the sensitivity of each layer to INT8.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from runtime.errors import needs, run_command
from runtime.places import FOLDER
from runtime.progress import Steps

OUT = Path("artifacts", "report.html")
MEASURED = Path("docs", "measured", "latency.json")


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    with needs("train,export,quantize,eval,bench"):
        from benchmarks.report_page import write_report
    with Steps() as steps:
        result = write_report(
            arguments.artifacts,
            arguments.out,
            arguments.latency,
            checkpoint=arguments.checkpoint,
            progress=steps,
        )
    for note in result.notes:
        print(f"note: {note}", file=sys.stderr)
    print(json.dumps(asdict(result)) if arguments.json else f"{result.verdict}\n{result.path}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report",
        description="Report what to deploy on this machine, as one HTML file.",
    )
    add = parser.add_argument
    add(
        "--artifacts",
        type=Path,
        default=FOLDER,
        metavar="DIR",
        help=f"a model's files (default: {FOLDER})",
    )
    add(
        "--latency",
        type=Path,
        default=MEASURED,
        metavar="F.json",
        help=f"what benchmarks.latency wrote (default: {MEASURED})",
    )
    add(
        "--checkpoint",
        metavar="F",
        help="what the artifacts were made of (default: the model's committed weights)",
    )
    add("--out", type=Path, default=OUT, metavar="F.html", help=f"the report (default: {OUT})")
    add("--json", action="store_true", help="print one JSON object (default: two lines)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
