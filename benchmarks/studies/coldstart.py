"""Measure cold start: time and memory of `python -m runtime.infer` for one face.

    python -m benchmarks.studies.coldstart [--artifact F] [--wheel dist/aminet_edge-*.whl]

Each start is a process of its own, timed from its start to its end: with the verdict remembered,
as the first on a machine (an empty cache), and where no cache can be written. With a wheel this
happens in a fresh environment that holds the wheel and its dependencies alone.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness.study import report, study_parser
from benchmarks.harness.table import text_table
from calib_data.generate import PROBE_STRIP, unstrip
from runtime.cpu import processor, usable_cores
from runtime.errors import EXIT_USAGE, EdgeError, run_command
from runtime.image import read_image, write_image

RUNS = 15
LIMITS = {"remembered": (0.2, 80.0), "--help": (0.15, None)}  # seconds, MiB
CASES = ("remembered", "first start", "no cache", "--help")
# A forked process inherits the peak memory of its parent, so a small process starts it.
LAUNCHER = """
import json, resource, subprocess, sys, time
started = time.perf_counter()
ended = subprocess.run(sys.argv[1:], capture_output=True, text=True)
print(json.dumps({
    "seconds": time.perf_counter() - started,
    "peak_kib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss,
    "status": ended.returncode,
    "stdout": ended.stdout,
    "stderr": ended.stderr,
}))
"""


@dataclass(frozen=True)
class ColdStartRow:
    """One case: seconds from the start of the process to its end, and its peak memory."""

    case: str
    p50_s: float
    p95_s: float
    peak_mib: float


@dataclass(frozen=True)
class ColdStart:
    """One run; `packages` and their size are those of the wheel's environment, None without it."""

    rows: tuple[ColdStartRow, ...]
    artifact: str
    backend: str
    precision: str
    runs: int
    processor: str
    cores: int
    load_average: float
    packages: tuple[str, ...] | None
    installed_mib: float | None


@dataclass(frozen=True)
class Command:
    """`runtime.infer` in some environment, started in `folder`, where face.png lies."""

    python: Path
    folder: Path
    arguments: tuple[str, ...]

    def start(self, case: str) -> tuple[float, float, dict[str, object]]:
        """Seconds, peak MiB, and what it printed as JSON."""
        help_alone = case == "--help"
        arguments = ["--help"] if help_alone else ["face.png", "--json", *self.arguments]
        with tempfile.TemporaryDirectory() as empty:
            places = {
                "remembered": str(self.folder / "cache"),
                "no cache": str(self.folder / "face.png"),  # a file, in which nothing can be kept
            }
            environment = {**os.environ, "XDG_CACHE_HOME": places.get(case, empty)}
            environment.pop("PYTHONDONTWRITEBYTECODE", None)  # users' starts find theirs compiled
            launched = subprocess.run(
                [sys.executable, "-c", LAUNCHER, self.python, "-m", "runtime.infer", *arguments],
                cwd=self.folder,
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            )
        ended = json.loads(launched.stdout)
        if ended["status"]:
            raise EdgeError(
                f"runtime.infer ended with {ended['status']}: {ended['stderr'].strip()}"
            )
        report = {} if help_alone else json.loads(ended["stdout"])
        return ended["seconds"], ended["peak_kib"] / 1024, report


def measure(artifact: str | None, backend: str, wheel: str | None, runs: int = RUNS) -> ColdStart:
    """Time all cases interleaved, so that all see the same background load."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "work")
        write_image(folder / "face.png", unstrip(read_image(PROBE_STRIP))[0])
        python, packages, size_mib = Path(sys.executable), None, None
        arguments = ["--backend", backend]
        if wheel:
            python, packages, size_mib = install(Path(wheel), Path(place, "env"))
        if artifact:
            arguments += ["--artifact", str(Path(artifact).resolve())]
        command = Command(python, folder, tuple(arguments))
        _, _, report = command.start("remembered")
        taken: dict[str, list[tuple[float, float]]] = {case: [] for case in CASES}
        for _ in range(runs):
            for case in CASES:
                taken[case].append(command.start(case)[:2])
        return ColdStart(
            rows=tuple(make_row(case, taken[case]) for case in CASES),
            artifact="the one in the wheel" if wheel else _name(str(report["artifact"])),
            backend=f"{report['backend']} {report['backend_version']}",
            precision=str(report["precision"]),
            runs=runs,
            processor=processor(),
            cores=usable_cores(),
            load_average=os.getloadavg()[0],
            packages=packages,
            installed_mib=size_mib,
        )


def make_row(case: str, taken: Sequence[tuple[float, float]]) -> ColdStartRow:
    seconds, mib = zip(*taken, strict=True)
    p50, p95 = np.percentile(seconds, [50, 95])
    return ColdStartRow(case, float(p50), float(p95), max(mib))


def install(wheel: Path, place: Path) -> tuple[Path, tuple[str, ...], float]:
    """Install the wheel in a fresh environment; return its Python, packages and MiB without pip."""
    venv.create(place, with_pip=True)
    python = place / "bin" / "python"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    done = subprocess.run([*pip, "install", "--quiet", str(wheel)], capture_output=True, text=True)
    if done.returncode:
        raise EdgeError(f"{wheel}: cannot be installed: {done.stderr.strip().splitlines()[-1]}")
    listed = subprocess.run([*pip, "list", "--format=freeze"], capture_output=True, text=True)
    ours = [name for name in listed.stdout.split() if not name.startswith(("pip==", "setuptools="))]
    files = [
        path
        for path in (place / "lib").rglob("*")
        if path.is_file() and not {"pip", "setuptools"} & set(path.parts)
    ]
    return python, tuple(ours), sum(path.stat().st_size for path in files) / (1 << 20)


def table(result: ColdStart) -> str:
    rows = []
    for one in result.rows:
        limit_s, limit_mib = LIMITS.get(one.case, (None, None))
        goals = [f"{limit_s} s"] if limit_s else []
        goals += [f"{limit_mib:.0f} MiB"] if limit_mib else []
        rows.append(
            (
                one.case,
                f"{one.p50_s:.3f}",
                f"{one.p95_s:.3f}",
                f"{one.peak_mib:.0f}",
                " and ".join(goals),
            )
        )
    lines = [
        f"{result.artifact} ({result.precision}) in {result.backend}; {result.cores} cores of"
        f" {result.processor}, load {result.load_average:.1f}; {result.runs} starts each",
        "",
        text_table(("start", "p50 s", "p95 s", "peak MiB", "goal"), rows),
    ]
    if result.packages:
        lines += ["", f"{result.installed_mib:.0f} MiB installed: {' '.join(result.packages)}"]
    return "\n".join(lines)


def _name(artifact: str) -> str:
    """Model and file, wherever they lie: "aminet-edge/int8.onnx"."""
    return "/".join(Path(artifact).parts[-2:])


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.runs <= 0:
        raise EdgeError("--runs: expected over 0", EXIT_USAGE)
    result = measure(arguments.artifact, arguments.backend, arguments.wheel, arguments.runs)
    return report(arguments, asdict(result), table(result))


def _parser() -> argparse.ArgumentParser:
    parser = study_parser("coldstart", __doc__)
    add = parser.add_argument
    add("--artifact", metavar="F", help="an ONNX artifact (default: the one that infer chooses)")
    add("--backend", default="onnxruntime", metavar="B", help="(default: onnxruntime)")
    add("--wheel", metavar="F", help="measure in a fresh environment of it (default: in this one)")
    add("--runs", type=int, default=RUNS, metavar="N", help=f"starts a case (default: {RUNS})")
    return parser


if __name__ == "__main__":
    sys.exit(main())
