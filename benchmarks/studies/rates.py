"""docs/measured/throughput.json: faces a second by the way they are run, read and shown."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness.machine import BUSY_SHARE, Machine
from benchmarks.harness.table import markdown_table
from benchmarks.studies.stages import PngSetting, Stage, Stages
from runtime.atomic import read_bytes
from runtime.errors import EdgeError

MAX_BYTES = 1 << 20
CALLS_ALONE, FILES, ONE_CORE = "run", "infer", "one core"

Table = Callable[[Sequence[str], Iterable[Sequence[str]]], str]


@dataclass(frozen=True)
class ThroughputRow:
    """A way to upscale many faces: `threads` of each of `workers` calls at once (None: all cores).

    `case` is 'run' for calls alone, 'infer' for files, 'one core' for files with one core. Medians
    of the turns; `speedup` is over the first row of calls or of files, turn by turn, and `spread`
    the difference of its largest and least over its median.
    """

    case: str
    threads: int | None
    workers: int
    batch: int | None
    faces_per_s: float
    faces_per_cpu_s: float
    speedup: float
    spread: float


@dataclass(frozen=True)
class Throughput:
    """All rows of one run, where it ran, and how long each was measured in a turn.

    `background_share` of the cores' time was taken by other processes meanwhile.
    """

    rows: tuple[ThroughputRow, ...]
    artifact: str
    faces: int
    seconds: float
    rounds: int
    machine: Machine
    background_share: float
    stages: Stages | None = None

    @property
    def one_core(self) -> ThroughputRow | None:
        return next((row for row in self.rows if row.case == ONE_CORE), None)

    @property
    def all_cores(self) -> ThroughputRow | None:
        """Files, with a call on each core."""
        found = [row for row in self.rows if row.case == FILES and row.threads == 1]
        return max(found, key=lambda row: row.workers, default=None)

    @property
    def busy(self) -> bool:
        return self.background_share > BUSY_SHARE


def read_throughput(path: str | Path) -> Throughput:
    """Read what the study wrote; EdgeError if it is not there or damaged."""
    try:
        return _from_json(json.loads(read_bytes(path, MAX_BYTES)))
    except (ValueError, KeyError, TypeError) as error:
        raise EdgeError(
            f"{path}: is not what benchmarks.studies.throughput writes ({error}). Write it again"
            f" with: python -m benchmarks.studies.throughput --out {path}"
        ) from error


def _from_json(content: dict[str, Any]) -> Throughput:
    stages = content["stages"]
    if stages is not None:
        parts = {
            "stages": tuple(Stage(**one) for one in stages["stages"]),
            "png": tuple(PngSetting(**one) for one in stages["png"]),
        }
        stages = Stages(**{**stages, **parts})
    rows = tuple(ThroughputRow(**row) for row in content["rows"])
    where = content["machine"]
    where = Machine(**{**where, "load_average": tuple(where["load_average"])})
    return Throughput(**{**content, "rows": rows, "machine": where, "stages": stages})


COLUMNS = ("case", "threads", "workers", "batch", "faces/s", "faces/CPU s", "speedup")


def _cells(row: ThroughputRow) -> tuple[str, ...]:
    return (
        row.case,
        "all" if row.threads is None else str(row.threads),
        *(str(row.workers), "" if row.batch is None else str(row.batch)),
        *(f"{row.faces_per_s:.0f}", f"{row.faces_per_cpu_s:.0f}", f"{row.speedup:.2f}x"),
    )


def throughput_tables(measured: Throughput, table: Table = markdown_table) -> str:
    """The rows, where one thread's time goes, and what PNG's settings cost."""
    busy = f" **{measured.background_share:.0%} of the cores were busy.**" if measured.busy else ""
    parts = [
        f"{measured.artifact}, {measured.faces} faces, {measured.machine.cores} cores of"
        f" {measured.machine.processor}, {measured.machine.date}.{busy}",
        table(COLUMNS, map(_cells, measured.rows)),
    ]
    if measured.stages:
        stages = [(one.stage, f"{one.ms:.2f}") for one in measured.stages.stages]
        settings = [
            (f"{one.strategy}, level {one.level}", f"{one.ms:.2f}", f"{one.bytes / 1e3:.1f}")
            for one in measured.stages.png
        ]
        parts.append(table(("stage, one thread", "ms"), stages))
        parts.append(table(("PNG", "ms", "kB"), settings))
    return "\n\n".join(parts)
