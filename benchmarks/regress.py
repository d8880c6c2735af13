"""Compare artifacts with the stored baseline: exit 3 if one became worse, 4 if it became slower.

    python -m benchmarks.regress [--artifact F...] [--accuracy-only]
    python -m benchmarks.regress --accept "new weights"     # stores what is there as the baseline

Worse: fidelity, expected drift, the share of INT8, the nodes that the backend executes, the size.
Slower: the time of a face against torch eager's in the same interleaved run. On a busy machine a
speed is reported as not comparable and the exit status is 1. Baselines (benchmarks/baselines/) hold
for an instruction-set level and a version of ONNX Runtime; where there is none, only the manifests'
own limits count, which is noted, and the exit status is 0.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from runtime.errors import EXIT_USAGE, EdgeError, needs, run_command
from runtime.progress import Steps
from runtime.session import DEFAULT_MODEL


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.accept is not None and not arguments.accept.strip():
        raise EdgeError("--accept: expected a reason", EXIT_USAGE)
    with needs("train,export,quantize,bench"):
        from benchmarks import regression
    given = (arguments.artifact, arguments.checkpoint)
    with Steps() as steps:
        if arguments.accept is not None:
            path = regression.accept(
                arguments.accept,
                *given,
                folder=arguments.baselines or regression.BASELINES,
                repeats=regression.REPEATS,
                progress=steps,
            )
            print(path)
            return 0
        report = regression.find_regressions(
            *given,
            folder=arguments.baselines or regression.BASELINES,
            speed=not arguments.accuracy_only,
            wide=arguments.wide,
            progress=steps,
        )
    if arguments.json:
        print(json.dumps(asdict(report)))
    else:
        print(f"{len(report.compared)} compared with {report.key}")
    lines = [f"note: {note}" for note in report.notes]
    lines += [f"{regression.kind}: {regression.line}" for regression in report.regressions]
    if report.not_comparable:
        lines += report.not_comparable
        lines.append("error: the machine is busy; run it again when it is idle, or --accuracy-only")
    for line in lines:
        print(line, file=sys.stderr)
    return report.status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.regress", description=__doc__.split("\n")[0]
    )
    add = parser.add_argument
    add(
        "--artifact",
        nargs="+",
        default=[],
        metavar="F",
        help=f"(default: all of artifacts/{DEFAULT_MODEL})",
    )
    add(
        "--checkpoint",
        metavar="F",
        help="what they were made of (default: the model's committed weights)",
    )
    add(
        "--baselines",
        type=Path,
        metavar="DIR",
        help="stored baselines (default: benchmarks/baselines)",
    )
    add("--accuracy-only", action="store_true", help="measure no speed (default: do)")
    add(
        "--wide",
        action="store_true",
        help="slower is only what takes twice as long (default: what exceeds the tolerance)",
    )
    add("--accept", metavar="REASON", help="store the artifacts as the baseline (default: compare)")
    add("--json", action="store_true", help="print one JSON object (default: a line)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
