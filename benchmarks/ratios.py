"""How many times as fast as FP32 the smaller files of a model are, in each backend, in one run.

    python -m benchmarks.ratios [--artifact FOLDER] [--out docs/measured/ratios.json]

All of them take turns, one face at a time, so each sees the same load of the machine; a ratio is
the median over the turns, each file against FP32 in the same turn and backend. Run it on an idle
machine: `load_average` says whether it was.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtime.backends import openvino
from runtime.drift import Run, read_probes
from runtime.errors import EdgeError, run_command
from runtime.files import write_bytes
from runtime.image import Tensor, to_tensor
from runtime.manifest import probes_path
from runtime.processor import processor
from runtime.session import DEFAULT_MODEL, open_session

FOLDER = Path("artifacts", DEFAULT_MODEL)
OUT = Path("docs", "measured", "ratios.json")
WARM_UP_TURNS, TURNS = 20, 300
FP32 = "fp32.onnx"
# Made for TensorRT, so no measure of anything else: int8-trt*.onnx is slow, or wrong, elsewhere.
FILES = {
    "onnxruntime": (FP32, "fp16.onnx", "int8.onnx"),
    "openvino": (FP32, "fp16.onnx", "int8.onnx", "int8-openvino.onnx"),
}

Key = tuple[str, str]  # a backend, and what runs in it


@dataclass(frozen=True)
class Row:
    """One file in one backend; over 1 is faster. `of_best_fp32`: of the fastest FP32 of any."""

    artifact: str
    backend: str
    executes_as: str
    bytes: int
    p50_ms: float
    p95_ms: float
    of_fp32: float
    of_best_fp32: float


@dataclass(frozen=True)
class Ratios:
    rows: tuple[Row, ...]
    turns: int
    processor: str
    cores: int
    load_average: float
    versions: Mapping[str, str]


def ratios(folder: str | Path = FOLDER, turns: int = TURNS) -> Ratios:
    """Time a model's files in all backends that are here; EdgeError without fp32.onnx."""
    folder = Path(folder)
    if not (folder / FP32).is_file():
        raise EdgeError(f"{folder / FP32}: is not there; make it: python -m export.onnx")
    backends = [name for name in FILES if name != "openvino" or openvino.is_installed()]
    busy = os.getloadavg()[0]
    with ExitStack() as stack:
        sessions = {
            (backend, name): stack.enter_context(open_session(folder / name, backend))
            for backend in backends
            for name in FILES[backend]
            if (folder / name).is_file()
        }
        lr = to_tensor(read_probes(probes_path(folder / FP32)).lr[:1])
        times = take_turns({key: session.run for key, session in sessions.items()}, lr, turns)
    best = min(backends, key=lambda backend: np.median(times[backend, FP32]))
    rows = [
        Row(
            artifact=f"{session.manifest.model}/{session.artifact.name}",
            backend=session.backend,
            executes_as=session.manifest.executes_as,
            bytes=session.artifact.stat().st_size,
            p50_ms=float(np.median(times[key])),
            p95_ms=float(np.quantile(times[key], 0.95)),
            of_fp32=times_as_fast(times[key], times[key[0], FP32]),
            of_best_fp32=times_as_fast(times[key], times[best, FP32]),
        )
        for key, session in sessions.items()
    ]
    versions = {backend: version(backend) for backend in backends}
    return Ratios(tuple(rows), turns, processor(), os.cpu_count() or 1, busy, versions)


def take_turns(runs: Mapping[Key, Run], lr: Tensor, turns: int) -> dict[Key, NDArray]:
    """The milliseconds of each run in each turn, all one after another in each."""
    times = {key: np.empty(WARM_UP_TURNS + turns) for key in runs}
    for turn in range(WARM_UP_TURNS + turns):
        for key, run in runs.items():
            start = time.perf_counter()
            run(lr)
            times[key][turn] = (time.perf_counter() - start) * 1e3
    return {key: taken[WARM_UP_TURNS:] for key, taken in times.items()}


def times_as_fast(own_ms: NDArray, other_ms: NDArray) -> float:
    return float(np.median(other_ms / own_ms))


def table(result: Ratios) -> str:
    lines = ["| file | backend | p50, ms | p95, ms | of FP32 there | of the best FP32 | size |"]
    lines.append("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for row in result.rows:
        lines.append(
            f"| {Path(row.artifact).name} | {row.backend} | {row.p50_ms:.2f} | {row.p95_ms:.2f}"
            f" | {row.of_fp32:.2f}x | {row.of_best_fp32:.2f}x | {row.bytes / 2**20:.1f} MiB |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    return run_command(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    result = ratios(arguments.artifact, arguments.turns)
    text = json.dumps(asdict(result))
    if arguments.out:
        write_bytes(arguments.out, f"{text}\n".encode())
    print(text if arguments.json else table(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ratios",
        description="How many times as fast as FP32 a model's smaller files are, in each backend.",
    )
    parser.add_argument("--artifact", default=FOLDER, metavar="D", help=f"default: {FOLDER}")
    parser.add_argument("--turns", type=int, default=TURNS, help=f"default: {TURNS}")
    parser.add_argument("--out", metavar="F.json", help=f"write it too, such as {OUT}")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
