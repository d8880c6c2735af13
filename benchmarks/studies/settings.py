"""ONNX Runtime's settings: `python -m benchmarks.studies.settings --out F`.

An artifact, a face at a time, with the defaults on each number of threads, and on all cores with
one setting changed: memory, order of execution, graph optimizations, spinning. All take turns, each
in a process of its own. `times_default` is the speed to the defaults on all cores; over 1 is
faster. `cpu_ms` is what a face takes of all cores together, `peak_mib` and `cold_start_ms` are the
process's. The runtime takes the defaults, and keeps the graph that they optimize in its cache.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness.machine import QUIET_SHARE, Machine, cores, machine
from benchmarks.harness.race import TURNS, Contender, Timing, Worker, race
from benchmarks.harness.table import write_measured
from benchmarks.harness.worker import ORT_SETTINGS
from runtime.artifact import read_artifact
from runtime.errors import EXIT_USAGE, EdgeError, run_command
from runtime.manifest import probes_path
from runtime.session import DEFAULT_MODEL

ARTIFACT = Path("artifacts", DEFAULT_MODEL, "int8.onnx")
DEFAULTS = "defaults"
SECONDS = 3.0
COLUMNS = (
    *("setting", "threads", "p50 ms", "p95 ms", "times default"),
    *("processor ms", "peak MiB", "cold start s", "fidelity dB"),
)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """One setting on that many threads; see the file's docstring."""

    setting: str
    threads: int
    p50_ms: float
    p95_ms: float
    times_default: float
    cpu_ms: float
    peak_mib: float
    cold_start_ms: float
    fidelity_db: float


@dataclass(frozen=True)
class Settings:
    artifact: str
    rows: tuple[Row, ...]
    machine: Machine
    others_share: float


def measure_settings(
    artifact: str | Path = ARTIFACT,
    names: Sequence[str] = tuple(ORT_SETTINGS),
    seconds: float = SECONDS,
    turns: int = TURNS,
    say: Say = lambda line: None,
) -> Settings:
    """Time an artifact with the named settings, the defaults among them or not.

    `seconds` a row. EdgeError if the artifact or ONNX Runtime cannot be opened.
    """
    path, here = Path(artifact), machine()
    manifest = read_artifact(path).manifest
    settings = [DEFAULTS, *(name for name in names if name != DEFAULTS)]
    fewer = [(DEFAULTS, threads) for threads in range(1, cores())]
    runs = [(settings[0], cores()), *fewer, *((name, cores()) for name in settings[1:])]
    with ExitStack() as stack:
        workers = []
        for name, threads in runs:
            say(f"opening {path} with {name} on {threads} threads")
            opener, computed_in = f"onnxruntime, {name}", manifest.computed_in
            contender = Contender(name, manifest.model, "onnxruntime", computed_in, opener, path)
            workers.append(stack.enter_context(Worker(contender, threads)))
        say("timing them")
        timings = race(workers, 1, seconds, turns)
        rows = [make_row(*pair, default=timings[0]) for pair in zip(workers, timings, strict=True)]
    others = statistics.fmean(timing.others_share for timing in timings)
    return Settings(f"{manifest.model}/{path.name}", tuple(rows), here, others)


def make_row(worker: Worker, timing: Timing, default: Timing) -> Row:
    pairs = zip(default.turns_ms, timing.turns_ms, strict=True)
    return Row(
        setting=worker.contender.name,
        threads=worker.threads,
        p50_ms=timing.p50_ms,
        p95_ms=timing.percentile_ms(95),
        times_default=statistics.median(theirs / ours for theirs, ours in pairs),
        cpu_ms=timing.cpu_ms,
        peak_mib=timing.peak_mib,
        cold_start_ms=worker.cold_start_ms,
        fidelity_db=worker.fidelity(probes_path(worker.contender.file)).fidelity_db,
    )


def markdown(measured: Mapping[str, Any]) -> str:
    """A page with the table, from the JSON."""
    where = measured["machine"]
    busy = ""
    if measured["others_share"] > QUIET_SHARE:
        busy = f" **Others took {measured['others_share']:.0%} of the machine: measure again.**"
    lines = [COLUMNS, ("---",) * len(COLUMNS), *map(_cells, measured["rows"])]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return (
        f"# ONNX Runtime's settings\n\nWritten by `python -m benchmarks.studies.settings`:"
        f" {measured['artifact']}, a face at a time, in turns. {where['processor']},"
        f" {where['cores']} cores, {where['date']}, commit {where['commit']}, onnxruntime"
        f" {where['versions']['onnxruntime']}.{busy}\n\n{body}\n"
    )


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        row["setting"],
        str(row["threads"]),
        f"{row['p50_ms']:.2f}",
        f"{row['p95_ms']:.2f}",
        f"{row['times_default']:.2f}x",
        f"{row['cpu_ms']:.1f}",
        f"{row['peak_mib']:.0f}",
        f"{row['cold_start_ms'] / 1e3:.2f}",
        f"{row['fidelity_db']:.1f}",
    )


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    return run_command(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    if min(arguments.seconds, arguments.turns) <= 0:
        raise EdgeError("--seconds, --turns: expected over 0", EXIT_USAGE)
    result = measure_settings(
        arguments.artifact,
        arguments.setting,
        arguments.seconds,
        arguments.turns,
        say=lambda line: print(line, file=sys.stderr),
    )
    content = asdict(result)
    if arguments.out:
        write_measured(arguments.out, content, markdown(content))
    print(json.dumps(content) if arguments.json else markdown(content))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.settings",
        description="What ONNX Runtime's threads, memory and graph settings do to one artifact.",
    )
    add = parser.add_argument
    add("--artifact", type=Path, default=ARTIFACT, metavar="F", help=f"default: {ARTIFACT}")
    add("--setting", nargs="+", default=list(ORT_SETTINGS), choices=ORT_SETTINGS)
    add("--seconds", type=float, default=SECONDS, metavar="X", help=f"a row (default: {SECONDS:g})")
    add("--turns", type=int, default=TURNS, metavar="N", help=f"default: {TURNS}")
    add("--out", type=Path, metavar="F.json", help="write JSON, and F.md beside it")
    add("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
