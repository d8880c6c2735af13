"""Measure throughput: faces a second, by how many calls, on how many threads, share the cores.

    python -m benchmarks.studies.throughput [--artifact F] [--out docs/measured/throughput.json]

Sessions of each shape and `runtime.infer` on a folder of faces take turns, so that all see the same
load; each in a process of its own, so that no thread pool disturbs another. infer's rate is that of
its report: reading, the network, and writing PNG files. One of its rows has a single core.
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

from benchmarks.harness.machine import BackgroundLoad, machine
from benchmarks.harness.study import report, study_parser
from benchmarks.harness.table import text_table
from benchmarks.studies.rates import (
    CALLS_ALONE,
    FILES,
    ONE_CORE,
    Throughput,
    ThroughputRow,
    throughput_tables,
)
from benchmarks.studies.stages import measure_stages
from calib_data.generate import PROBE_STRIP, unstrip
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

# Runs infer on the first of the cores alone.
ON_ONE_CORE = """
import os, runpy, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
runpy.run_module("runtime.infer", run_name="__main__", alter_sys=True)
"""

Rate = tuple[float, float]  # faces a second, and a second of the processor's cores


@dataclass(frozen=True)
class Way:
    """What is compared, and how a turn of it is measured."""

    case: str
    threads: int | None
    workers: int
    batch: int | None
    measure: Callable[[], Rate]

    @property
    def group(self) -> str:
        """What it is compared with: calls with calls, files with files."""
        return CALLS_ALONE if self.case == CALLS_ALONE else FILES


@dataclass(frozen=True)
class Effort:
    """How much is measured: `faces` in the folder, `seconds` of calls in a turn, `rounds`.

    With `files_alone` calls and stages are not.
    """

    faces: int = FACES
    seconds: float = SECONDS
    rounds: int = ROUNDS
    files_alone: bool = False


def throughput(
    artifact: str | Path = ARTIFACT, effort: Effort = Effort(), progress: Progress = silent
) -> Throughput:
    """Measure all ways in turns. EdgeError if the artifact cannot be run."""
    faces, seconds, rounds = effort.faces, effort.seconds, effort.rounds
    if not (faces > 0 and seconds > 0 and rounds > 0):
        raise EdgeError("--faces, --seconds and --rounds: expected over 0", EXIT_USAGE)
    where, load = machine(), BackgroundLoad()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "faces")
        strip = unstrip(read_image(PROBE_STRIP))
        for number in range(faces):
            write_image(folder / f"{number:05}.png", strip[number % len(strip)])
        ways = _ways(Path(artifact).resolve(), folder, Path(place, "sr"), seconds)
        ways = [way for way in ways if way.group == FILES or not effort.files_alone]
        rates: list[list[Rate]] = [[] for _ in ways]
        for turn in range(rounds):
            for way, taken in zip(ways, rates, strict=True):
                progress(f"turn {turn + 1} of {rounds}: {way.case}, {way.workers} workers")
                load.start()
                before = _children_s()
                taken.append(way.measure())
                load.stop(_children_s() - before)
        progress("stages")
        files = sorted(folder.iterdir())[: len(strip)]
        stages = None if effort.files_alone else measure_stages(Path(artifact), files)
    rows = tuple(_row(way, ways, rates) for way in ways)
    return Throughput(rows, str(artifact), faces, seconds, rounds, where, load.share, stages)


def _ways(artifact: Path, folder: Path, out: Path, seconds: float) -> list[Way]:
    cores = usable_cores()
    shapes = [(None, 1, 1), (None, 1, BATCH), (1, 1, 1)]
    if cores > 1:
        shapes += [(1, cores, 1), (1, cores, BATCH)]

    def calls(*shape: int | None) -> Callable[[], Rate]:
        return lambda: _measure_calls(artifact, shape, seconds)

    def infer(workers: int, start: Sequence[str] = ("-m", "runtime.infer")) -> Callable[[], Rate]:
        return lambda: _measure_infer(artifact, folder, out, workers, start)

    ways = [Way(CALLS_ALONE, *shape, calls(*shape)) for shape in shapes]
    ways.append(Way(FILES, None, 1, None, infer(1)))
    if hasattr(os, "sched_setaffinity"):
        ways.append(Way(ONE_CORE, 1, 1, None, infer(1, ("-c", ON_ONE_CORE))))
    if cores > 1:
        ways.append(Way(FILES, 1, cores, None, infer(cores)))
    return ways


def _measure_calls(artifact: Path, shape: tuple[int | None, ...], seconds: float) -> Rate:
    answer, _ = _run_python(["-c", CALLS, json.dumps([str(artifact), *shape, seconds])])
    count, taken_s, cpu_s = json.loads(answer)
    return count / taken_s, count / cpu_s


def _measure_infer(
    artifact: Path, folder: Path, out: Path, workers: int, start: Sequence[str]
) -> Rate:
    command = [*start, str(folder), "--artifact", str(artifact), "--out", str(out)]
    command += ["--workers", str(workers), "--backend", "onnxruntime", "--overwrite", "--json"]
    answer, cpu_s = _run_python(command)
    report = json.loads(answer)
    return report["faces_per_s"], report["faces"] / cpu_s


def _run_python(arguments: Sequence[str]) -> tuple[str, float]:
    """What it printed, and the seconds of the processor that it took."""
    before = _children_s()
    ended = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    cpu_s = _children_s() - before
    if ended.returncode:
        raise EdgeError(ended.stderr.strip().splitlines()[-1].removeprefix("error: "))
    return ended.stdout, cpu_s


def _children_s() -> float:
    times = os.times()
    return times.children_user + times.children_system


def _row(way: Way, ways: Sequence[Way], rates: Sequence[Sequence[Rate]]) -> ThroughputRow:
    first = next(index for index, other in enumerate(ways) if other.group == way.group)
    own, reference = rates[ways.index(way)], rates[first]
    speedups = [a / b for (a, _), (b, _) in zip(own, reference, strict=True)]
    return ThroughputRow(
        way.case,
        way.threads,
        way.workers,
        way.batch,
        faces_per_s=median(rate for rate, _ in own),
        faces_per_cpu_s=median(rate for _, rate in own),
        speedup=median(speedups),
        spread=(max(speedups) - min(speedups)) / median(speedups),
    )


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    with Steps() as steps:
        effort = Effort(arguments.faces, arguments.seconds, arguments.rounds)
        result = throughput(arguments.artifact, effort, steps)
    return report(arguments, asdict(result), throughput_tables(result, text_table))


def _parser() -> argparse.ArgumentParser:
    parser = study_parser("throughput", __doc__, OUT)
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
    return parser


if __name__ == "__main__":
    sys.exit(main())
