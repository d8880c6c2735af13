"""Measure how long a face takes: our artifacts and off-the-shelf baselines of the same network.

    python -m benchmarks.latency [--artifact F...] [--out docs/measured/latency.json]

Each candidate runs in a process of its own (benchmarks.harness.worker), interleaved with the
others, so that all see the same background load. benchmarks.harness.rows explains the columns; a
busy machine is reported. `python -m benchmarks.publish` renders the JSON.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.harness.plan import BACKENDS, ON_A_GPU, LatencyPlan
from runtime.atomic import write_bytes
from runtime.errors import EXIT_USAGE, EdgeError, needs, run_command
from runtime.progress import Steps

OUT = Path("docs", "measured", "latency.json")
DEFAULTS = LatencyPlan()


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    counts = [*arguments.batch, *arguments.threads, arguments.rounds, arguments.cold_starts]
    if min([*counts, arguments.seconds]) <= 0:
        raise EdgeError("--batch, --threads, --seconds, ...: expected over 0", EXIT_USAGE)
    with needs("train,export,quantize,bench"):
        from benchmarks.harness.baselines import NAMES
        from benchmarks.harness.measure import measure_latency
        from benchmarks.results import latency_text
    baselines = NAMES if arguments.baselines is None else arguments.baselines
    if unknown := sorted(set(baselines) - set(NAMES)):
        raise EdgeError(
            f"--baselines: {unknown[0]!r} is unknown, expected some of {', '.join(NAMES)}",
            EXIT_USAGE,
        )
    plan = LatencyPlan(
        batches=tuple(arguments.batch),
        threads=tuple(arguments.threads),
        seconds=arguments.seconds,
        rounds=arguments.rounds,
        cold_starts=arguments.cold_starts,
    )
    with Steps() as steps:
        result = measure_latency(
            arguments.artifact, arguments.backend, baselines, plan, arguments.checkpoint, steps
        )
    content = asdict(result)
    if arguments.out:
        write_bytes(arguments.out, f"{json.dumps(content, indent=1)}\n".encode())
    for note in result.notes:
        print(f"note: {note}", file=sys.stderr)
    print(json.dumps(content) if arguments.json else latency_text(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.latency", description=__doc__.split("\n")[0]
    )
    add = parser.add_argument
    add(
        "--artifact",
        nargs="+",
        default=[],
        metavar="F",
        help="artifacts to time (default: the ONNX files of artifacts/, of small natural models)",
    )
    add(
        "--backend",
        nargs="+",
        default=BACKENDS,
        choices=(*BACKENDS, *ON_A_GPU),
        help=f"backends to time them in (default: {' '.join(BACKENDS)})",
    )
    add(
        "--baselines",
        nargs="*",
        metavar="NAME",
        help="off-the-shelf baselines beside them, none for none (default: all eight)",
    )
    add(
        "--checkpoint",
        metavar="F",
        help="what the artifacts were made of (default: the model's committed weights)",
    )
    add(
        "--batch",
        nargs="+",
        type=int,
        default=DEFAULTS.batches,
        metavar="N",
        help=f"faces in a call (default: {' '.join(map(str, DEFAULTS.batches))})",
    )
    add(
        "--threads",
        nargs="+",
        type=int,
        default=[],
        metavar="N",
        help="numbers of threads (default: 1, and all cores)",
    )
    add(
        "--seconds",
        type=float,
        default=DEFAULTS.seconds,
        metavar="X",
        help=f"a row (default: {DEFAULTS.seconds:g})",
    )
    add(
        "--cold-starts",
        type=int,
        default=DEFAULTS.cold_starts,
        metavar="N",
        help=f"starts of each candidate (default: {DEFAULTS.cold_starts})",
    )
    add(
        "--rounds",
        type=int,
        default=DEFAULTS.rounds,
        metavar="N",
        help=f"rounds in which the seconds are spent (default: {DEFAULTS.rounds})",
    )
    add("--out", type=Path, metavar="F.json", help=f"write the JSON, such as {OUT} (default: no)")
    add("--json", action="store_true", help="print one JSON object (default: tables)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
