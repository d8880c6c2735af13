"""How many times as fast as FP32 the smaller files of a model are, in each backend, in one run.

    python -m benchmarks.studies.ratios [--artifact FOLDER] [--out docs/measured/ratios.json]

They take turns, each in a process of its own, one face at a time, so each sees the same load of the
machine and the caches are its own; a ratio is the median over the turns, each file against FP32 in
the same turn and backend. Run it on an idle machine: `load_average` says whether it was.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from benchmarks.harness.machine import cores
from benchmarks.harness.race import Contender, Worker, race
from runtime.artifact import read_artifact
from runtime.atomic import write_bytes
from runtime.backends import openvino
from runtime.cpu import processor
from runtime.errors import EdgeError, run_command
from runtime.session import DEFAULT_MODEL

FOLDER = Path("artifacts", DEFAULT_MODEL)
OUT = Path("docs", "measured", "ratios.json")
SECONDS, TURNS = 6.0, 20  # of each file, in so many turns
FP32 = "fp32.onnx"
# Made for TensorRT, so no measure of anything else: int8-trt*.onnx is slow, or wrong, elsewhere.
FILES = {
    "onnxruntime": (FP32, "fp16.onnx", "int8.onnx"),
    "openvino": (FP32, "fp16.onnx", "int8.onnx", "int8-openvino.onnx"),
}


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


def ratios(folder: str | Path = FOLDER, seconds: float = SECONDS) -> Ratios:
    """Time a model's files in all backends that are here; EdgeError without fp32.onnx."""
    folder = Path(folder)
    if not (folder / FP32).is_file():
        raise EdgeError(f"{folder / FP32}: is not there; make it: python -m export.onnx")
    backends = [name for name in FILES if name != "openvino" or openvino.is_installed()]
    paths = [
        (backend, folder / name)
        for backend in backends
        for name in FILES[backend]
        if (folder / name).is_file()
    ]
    manifests = [read_artifact(path).manifest for _, path in paths]
    busy = os.getloadavg()[0]
    with ExitStack() as stack:
        workers = []
        for (backend, path), manifest in zip(paths, manifests, strict=True):
            file = Contender(path.name, manifest.model, backend, manifest.precision, backend, path)
            workers.append(stack.enter_context(Worker(file, cores())))
        timings = race(workers, 1, seconds, TURNS)
    fp32 = {path[0]: t for path, t in zip(paths, timings, strict=True) if path[1].name == FP32}
    best = min(fp32.values(), key=lambda timing: timing.p50_ms)
    rows = [
        Row(
            artifact=f"{manifest.model}/{path.name}",
            backend=backend,
            executes_as=manifest.executes_as,
            bytes=path.stat().st_size,
            p50_ms=timing.p50_ms,
            p95_ms=timing.percentile_ms(95),
            of_fp32=times_as_fast(timing.turns_ms, fp32[backend].turns_ms),
            of_best_fp32=times_as_fast(timing.turns_ms, best.turns_ms),
        )
        for (backend, path), manifest, timing in zip(paths, manifests, timings, strict=True)
    ]
    versions = {backend: version(backend) for backend in backends}
    return Ratios(tuple(rows), TURNS, processor(), cores(), busy, versions)


def times_as_fast(own_ms: ArrayLike, other_ms: ArrayLike) -> float:
    """The median over the turns, each of which both took part in."""
    return float(np.median(np.divide(other_ms, own_ms)))


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
    result = ratios(arguments.artifact, arguments.seconds)
    text = json.dumps(asdict(result))
    if arguments.out:
        write_bytes(arguments.out, f"{text}\n".encode())
    print(text if arguments.json else table(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.ratios",
        description="How many times as fast as FP32 a model's smaller files are, in each backend.",
    )
    parser.add_argument("--artifact", default=FOLDER, metavar="D", help=f"default: {FOLDER}")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, metavar="S", help=f"of each: {SECONDS:g}"
    )
    parser.add_argument("--out", metavar="F.json", help=f"write it too, such as {OUT}")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
