"""Measure throughput: faces a second, by how many calls, on how many threads, share the cores.

    python -m benchmarks.studies.throughput [--artifact F] [--out docs/measured/throughput.json]

Sessions of each shape and `runtime.infer` on a folder of faces take turns, so that all see the same
load; each in a process of its own, so that no thread pool disturbs another. infer's rate is that of
its report: reading, the network, and writing PNG files.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from benchmarks.harness.machine import Machine, machine
from benchmarks.harness.table import text_table
from calib_data.generate import PROBE_STRIP, unstrip
from runtime.atomic import write_bytes
from runtime.cpu import usable_cores
from runtime.errors import EXIT_USAGE, EdgeError, run_command
from runtime.image import read_image, write_image
from runtime.progress import Progress, Steps, silent
from runtime.session import DEFAULT_MODEL

ARTIFACT = Path("artifacts", DEFAULT_MODEL, "int8.onnx")
OUT = Path("docs", "measured", "throughput.json")
FACES = 1000  # in the folder; enough that opening the model does not count
SECONDS, ROUNDS = 3.0, 5
BATCH = 8
# Runs a session's shape for some seconds and prints the faces and the processor's seconds.
CALLS = """
import json, sys, threading, time
import numpy as np
from runtime.session import open_session
artifact, threads, workers, batch, seconds = json.loads(sys.argv[1])
with open_session(artifact, "onnxruntime", threads=threads, workers=workers) as session:
    lr = np.random.default_rng(0).random((batch, 3, session.lr_side, session.lr_side), np.float32)
    session.run(lr)
    counts = [0] * workers
    started, cpu = time.perf_counter(), time.process_time()
    def call(worker):
        while time.perf_counter() - started < seconds or not counts[worker]:
            session.run(lr)
            counts[worker] += batch
    callers = [threading.Thread(target=call, args=(i,)) for i in range(workers)]
    for caller in callers: caller.start()
    for caller in callers: caller.join()
    taken_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu
print(json.dumps([sum(counts), taken_s, cpu_s]))
"""

Rate = tuple[float, float]  # faces a second, and a second of the processor's cores


@dataclass(frozen=True)
class ThroughputRow:
    """A way to upscale many faces: `threads` of each of `workers` calls at once (None: all cores).

    `case` is 'run' for calls alone and 'infer' for files. Medians of the turns; `speedup` is over
    the first row of the same case, turn by turn.
    """

    case: str
    threads: int | None
    workers: int
    batch: int | None
    faces_per_s: float
    faces_per_cpu_s: float
    speedup: float


@dataclass(frozen=True)
class Throughput:
    """All rows of one run, where it ran, and how long each was measured in a turn."""

    rows: tuple[ThroughputRow, ...]
    artifact: str
    faces: int
    seconds: float
    rounds: int
    machine: Machine


@dataclass(frozen=True)
class Way:
    """What is compared, and how a turn of it is measured."""

    case: str
    threads: int | None
    workers: int
    batch: int | None
    measure: Callable[[], Rate]


def throughput(
    artifact: str | Path = ARTIFACT,
    faces: int = FACES,
    seconds: float = SECONDS,
    rounds: int = ROUNDS,
    progress: Progress = silent,
) -> Throughput:
    """Measure all ways in turns. EdgeError if the artifact cannot be run."""
    if not (faces > 0 and seconds > 0 and rounds > 0):
        raise EdgeError("--faces, --seconds and --rounds: expected over 0", EXIT_USAGE)
    where = machine()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "faces")
        strip = unstrip(read_image(PROBE_STRIP))
        for number in range(faces):
            write_image(folder / f"{number:05}.png", strip[number % len(strip)])
        ways = list(_ways(Path(artifact).resolve(), folder, Path(place, "sr"), seconds))
        rates: list[list[Rate]] = [[] for _ in ways]
        for turn in range(rounds):
            for way, taken in zip(ways, rates, strict=True):
                progress(f"turn {turn + 1} of {rounds}: {way.case}, {way.workers} workers")
                taken.append(way.measure())
    rows = tuple(_row(way, ways, rates) for way in ways)
    return Throughput(rows, str(artifact), faces, seconds, rounds, where)


def _ways(artifact: Path, folder: Path, out: Path, seconds: float) -> list[Way]:
    cores = usable_cores()
    shapes = [(None, 1, 1), (None, 1, BATCH), (1, 1, 1)]
    if cores > 1:
        shapes += [(1, cores, 1), (1, cores, BATCH)]

    def calls(*shape: int | None) -> Callable[[], Rate]:
        return lambda: _measure_calls(artifact, shape, seconds)

    def infer(workers: int) -> Callable[[], Rate]:
        return lambda: _measure_infer(artifact, folder, out, workers)

    counts = sorted({1, cores})
    return [
        *(Way("run", *shape, calls(*shape)) for shape in shapes),
        *(Way("infer", None if n == 1 else 1, n, None, infer(n)) for n in counts),
    ]


def _measure_calls(artifact: Path, shape: tuple[int | None, ...], seconds: float) -> Rate:
    answer, _ = _run_python(["-c", CALLS, json.dumps([str(artifact), *shape, seconds])])
    count, taken_s, cpu_s = json.loads(answer)
    return count / taken_s, count / cpu_s


def _measure_infer(artifact: Path, folder: Path, out: Path, workers: int) -> Rate:
    command = ["-m", "runtime.infer", str(folder), "--artifact", str(artifact), "--out", str(out)]
    command += ["--workers", str(workers), "--backend", "onnxruntime", "--overwrite", "--json"]
    answer, cpu_s = _run_python(command)
    report = json.loads(answer)
    return report["faces_per_s"], report["faces"] / cpu_s


def _run_python(arguments: Sequence[str]) -> tuple[str, float]:
    """What it printed, and the seconds of the processor that it took."""
    before = os.times()
    ended = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    after = os.times()
    if ended.returncode:
        raise EdgeError(ended.stderr.strip().splitlines()[-1].removeprefix("error: "))
    cpu_s = after.children_user + after.children_system
    return ended.stdout, cpu_s - before.children_user - before.children_system


def _row(way: Way, ways: Sequence[Way], rates: Sequence[Sequence[Rate]]) -> ThroughputRow:
    first = next(index for index, other in enumerate(ways) if other.case == way.case)
    own, reference = rates[ways.index(way)], rates[first]
    return ThroughputRow(
        way.case,
        way.threads,
        way.workers,
        way.batch,
        faces_per_s=median(rate for rate, _ in own),
        faces_per_cpu_s=median(rate for _, rate in own),
        speedup=median(a / b for (a, _), (b, _) in zip(own, reference, strict=True)),
    )


def table(rows: Sequence[ThroughputRow]) -> str:
    """Return a table for a terminal."""
    cells = [
        (
            row.case,
            "all" if row.threads is None else str(row.threads),
            *(str(row.workers), "" if row.batch is None else str(row.batch)),
            *(f"{row.faces_per_s:.0f}", f"{row.faces_per_cpu_s:.0f}", f"{row.speedup:.2f}x"),
        )
        for row in rows
    ]
    columns = ("case", "threads", "workers", "batch", "faces/s", "faces/CPU s", "speedup")
    return text_table(columns, cells)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    with Steps() as steps:
        result = throughput(
            arguments.artifact, arguments.faces, arguments.seconds, arguments.rounds, steps
        )
    text = json.dumps(asdict(result))
    if arguments.out:
        write_bytes(arguments.out, f"{text}\n".encode())
    print(text if arguments.json else table(result.rows))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.throughput", description=__doc__.split("\n")[0]
    )
    add = parser.add_argument
    add("--artifact", default=ARTIFACT, metavar="F", help=f"what runs (default: {ARTIFACT})")
    add("--faces", type=int, default=FACES, metavar="N", help=f"in a folder (default: {FACES})")
    add(
        "--seconds",
        type=float,
        default=SECONDS,
        metavar="X",
        help=f"of calls in a turn (default: {SECONDS:g})",
    )
    add("--rounds", type=int, default=ROUNDS, metavar="N", help=f"turns (default: {ROUNDS})")
    add("--out", metavar="F.json", help=f"write the JSON, such as {OUT} (default: no)")
    add("--json", action="store_true", help="print one JSON object (default: a table)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
