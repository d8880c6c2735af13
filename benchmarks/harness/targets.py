"""One row of the table of targets: a file for a device, and what is proved about it.

Each study of a target (phones, ARM, browsers) writes a JSON file {"rows": [...], "machine": {...}}
of these rows into docs/measured/; README's table is rendered from all of them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from runtime.atomic import read_bytes, write_bytes
from runtime.errors import EdgeError

MAX_BYTES = 1 << 20
COLUMNS = (
    *("target", "file", "MB", "computes in", "probes dB", "worst dB", "stress dB"),
    *("drift dB (worst)", "ran on", "command"),
)


@dataclass(frozen=True)
class TargetRow:
    """A file on a target.

    `target` names runtime and version ("LiteRT 2.3.0"); `file` is relative to artifacts/. `bytes`
    counts all of its files. `precision` is what was seen to execute ("int8, 96.5 % of the
    multiply-adds"), not what the file is called. The fidelities (dB PSNR-Y to FP32, on the probes)
    were measured in the target's own runtime; None if it did not run, and `not_run` says why.
    `drift_db` is the mean PSNR-Y lost against FP32 on `faces` real faces, None without them.
    `ran_on` names the processor, or the emulator. `command` repeats the measurement.
    """

    target: str
    file: str
    bytes: int
    precision: str
    fidelity_db: float | None
    worst_fidelity_db: float | None
    extremes_fidelity_db: float | None
    ran_on: str | None
    command: str
    drift_db: float | None = None
    worst_drift_db: float | None = None
    faces: int = 0
    not_run: str | None = None

    def __post_init__(self) -> None:
        if (self.fidelity_db is None) != (self.not_run is not None):
            raise ValueError(f"{self.file}: a row has either a fidelity or the reason for none")
        if (self.drift_db is None) != (self.faces == 0):
            raise ValueError(f"{self.file}: drift_db is {self.drift_db} on {self.faces} faces")


def write_rows(path: str | Path, rows: Sequence[TargetRow], facts: Mapping[str, Any]) -> None:
    """Write rows as JSON, with `facts` (the machine, the date) beside them."""
    content = {"rows": [asdict(row) for row in rows], **facts}
    write_bytes(path, f"{json.dumps(content, indent=1, ensure_ascii=False)}\n".encode())


def read_rows(path: str | Path) -> list[TargetRow]:
    """Read the rows of a study; EdgeError if the file holds something else."""
    known = {field.name for field in fields(TargetRow)}
    try:
        rows = json.loads(read_bytes(path, MAX_BYTES))["rows"]
        if unknown := sorted({name for row in rows for name in row} - known):
            raise ValueError(f"{', '.join(unknown)} unknown")
        return [TargetRow(**row) for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EdgeError(f"{path}: does not hold rows of targets ({error})") from error


def targets_table(rows: Sequence[TargetRow]) -> str:
    """The rows as a Markdown table."""
    lines = [COLUMNS, ("---",) * len(COLUMNS), *map(_cells, rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def target_figures(row: TargetRow) -> tuple[str, str, str, str]:
    """Return fidelity, drift with the worst face's, worst probe and stress images as cells."""
    drift = ""
    if row.drift_db is not None:
        drift = f"{round(row.drift_db, 3) + 0.0:.3f} ({row.worst_drift_db or 0:.3f})"
    worst, stress = map(_db, (row.worst_fidelity_db, row.extremes_fidelity_db))
    return _db(row.fidelity_db), drift, worst, stress


def _cells(row: TargetRow) -> tuple[str, ...]:
    fidelity, drift, worst, stress = target_figures(row)
    return (
        row.target,
        f"`{row.file}`",
        f"{row.bytes / 1e6:.2f}",
        row.precision,
        *(fidelity, worst, stress, drift),
        row.ran_on or f"not run: {row.not_run}",
        f"`{row.command}`",
    )


def _db(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
