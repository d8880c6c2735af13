"""docs/measured/latency.json, the one source of published speeds: its rows, and how to read it."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.harness.machine import BUSY_SHARE, Machine
from benchmarks.harness.roofline import PeakThroughput
from runtime.atomic import read_bytes
from runtime.errors import EdgeError

MAX_BYTES = 8 << 20


@dataclass(frozen=True)
class LatencyRow:
    """One candidate with one batch size on that many threads.

    p50_ms ...                of one call with `batch` faces
    speedup_vs_fp32           times as fast as our FP32 file in the same backend; over 1 is faster
    speedup_vs_eager          times as fast as torch eager in FP32
    speedup_vs_best_baseline  times as fast as the fastest off-the-shelf baseline, whatever its
                              fidelity
    share_of_peak             of the peak throughput (benchmarks.harness.roofline)
    cold_start_ms             from the start of a process to its first face
    peak_mib                  peak resident memory of that process
    background_share          of the CPU, taken by other processes meanwhile

    A speed-up is the median over rounds in which both ran (interleaved.speedup); None if the
    reference was not in the run.
    """

    name: str
    model: str
    backend: str
    precision: str
    baseline: bool
    sha256: str | None
    batch: int
    threads: int
    runs: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    faces_per_s: float
    speedup_vs_fp32: float | None
    speedup_vs_eager: float | None
    speedup_vs_best_baseline: float | None
    best_baseline: str | None
    share_of_peak: float | None
    peak_mib: float
    cold_start_ms: float
    bytes: int
    fidelity_db: float
    background_share: float
    rounds_ms: tuple[float, ...]

    @property
    def file(self) -> str:
        """'int8.onnx' of 'aminet-edge/int8.onnx'; a baseline's whole name."""
        return self.name if self.baseline else self.name.split("/")[-1]


@dataclass(frozen=True)
class Latency:
    """One run of benchmarks.latency; `seconds` were spent on each row."""

    rows: tuple[LatencyRow, ...]
    peaks: tuple[PeakThroughput, ...]
    machine: Machine
    seconds: float
    notes: tuple[str, ...]

    @property
    def background_share(self) -> float:
        return fmean(row.background_share for row in self.rows)

    @property
    def busy(self) -> bool:
        """Whether background processes took so much that no speed is to be trusted."""
        return self.background_share > BUSY_SHARE

    def one_face(self) -> list[LatencyRow]:
        """The rows of one face on all threads, the fastest first; EdgeError if there is none."""
        return self.faces_at_once(1)

    def faces_at_once(self, batch: int) -> list[LatencyRow]:
        """The rows of so many faces on all threads, as `one_face` has them."""
        threads = max((row.threads for row in self.rows), default=1)
        found = [row for row in self.rows if (row.batch, row.threads) == (batch, threads)]
        if not found:
            raise EdgeError(
                f"no row of {'one face' if batch == 1 else f'{batch} faces'} was measured."
                " Measure with: python -m benchmarks.latency"
            )
        return sorted(found, key=lambda row: (row.model, row.p50_ms))


def read_latency(path: str | Path) -> Latency:
    """Read what benchmarks.latency wrote; EdgeError if the file holds something else."""
    try:
        content: dict[str, Any] = json.loads(read_bytes(path, MAX_BYTES))
        return Latency(
            rows=tuple(LatencyRow(**row) for row in _each(content["rows"], LatencyRow)),
            peaks=tuple(PeakThroughput(**peak) for peak in content["peaks"]),
            machine=Machine(**content["machine"]),
            seconds=content["seconds"],
            notes=tuple(content["notes"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise EdgeError(
            f"{path}: is not what benchmarks.latency writes ({error}). Write it again with:"
            f" python -m benchmarks.latency --out {path}"
        ) from error


def _each(rows: Sequence[dict[str, Any]], kind: type) -> Sequence[dict[str, Any]]:
    """The rows, of which each must have the fields of the dataclass and no others."""
    names = {field.name for field in dataclasses.fields(kind)}
    for row in rows:
        if other := names ^ row.keys():
            raise ValueError(f"unexpected or missing: {', '.join(sorted(other))}")
    return rows
