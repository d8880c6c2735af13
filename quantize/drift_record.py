"""The drift that real faces showed once, with the layers that were in INT8: drift.json.

Real faces are large and not free, so that a calibration folder has none. What they showed of a
model goes with it instead (`quantize.int8 --data FACES --record`): where the same layers of the
same model have the same fidelity again, they have the same drift.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from quantize.budget import Int8Candidate
from quantize.layers import Layer
from runtime.atomic import read_bytes, write_bytes
from runtime.errors import EXIT_USAGE, EdgeError

FILE = "drift.json"  # in a folder of --calib
MAX_BYTES = 1 << 22
SAME_DB = 0.3  # that a fidelity may be below the recorded one: another version, another processor


@dataclass(frozen=True)
class RecordedDrift:
    """What `faces` real faces lost in the mean and at worst, in dB, in one file of one target.

    `fp32_layers` were kept in FP32 for the budget, `max_drop_db`. `fidelities_db`: of the held-out
    faces, their worst, the probes' faces, their worst.
    """

    model: str
    checkpoint_sha256: str
    target: str
    file: str
    measured_on: str
    max_drop_db: float
    fp32_layers: tuple[str, ...]
    fidelities_db: tuple[float, ...]
    faces: int
    psnr_y: float
    drift_db: float
    worst_drift_db: float

    @classmethod
    def of(
        cls, candidate: Int8Candidate, layers: Iterable[Layer], max_drop_db: float, **place: str
    ) -> "RecordedDrift | None":
        """Of a candidate that was measured on real faces, from all `layers`; else None.

        `place`: the model, its checkpoint's hash, the target, the file, and where it was measured.
        """
        real = candidate.real
        if real is None or candidate.recorded:
            return None
        assert real.psnr_y is not None
        assert real.drift_db is not None
        assert real.worst_drift_db is not None
        int8 = {layer.name for layer in candidate.layers}
        return cls(
            **place,
            max_drop_db=max_drop_db,
            fp32_layers=tuple(layer.name for layer in layers if layer.name not in int8),
            fidelities_db=tuple(round(each, 3) for each in _fidelities(candidate)),
            faces=real.faces,
            psnr_y=round(real.psnr_y, 4),
            drift_db=round(real.drift_db, 5),
            worst_drift_db=round(real.worst_drift_db, 5),
        )

    def layers_of(self, layers: Sequence[Layer]) -> list[Layer]:
        return [layer for layer in layers if layer.name not in self.fp32_layers]

    def applied_to(self, candidate: Int8Candidate) -> Int8Candidate | None:
        """The candidate with the recorded drift; None if its fidelity is another one."""
        found = zip(_fidelities(candidate), self.fidelities_db, strict=True)
        if not candidate.probes.finite or any(now < then - SAME_DB for now, then in found):
            return None
        real = replace(
            candidate.held_out,
            faces=self.faces,
            psnr_y=self.psnr_y,
            drift_db=self.drift_db,
            worst_drift_db=self.worst_drift_db,
        )
        return replace(candidate, real=real, recorded=True)


def _fidelities(candidate: Int8Candidate) -> tuple[float, ...]:
    held_out, probes = candidate.held_out, candidate.probes
    return (
        held_out.fidelity_db,
        held_out.worst_fidelity_db,
        probes.fidelity_db,
        probes.worst_fidelity_db,
    )


def record_path(calib: Sequence[str | Path]) -> Path:
    """Where --record writes: the first folder of --calib; EdgeError (status 2) without one."""
    for source in calib:
        if Path(source).is_dir():
            return Path(source, FILE)
    raise EdgeError(
        f"--record: writes {FILE} into a folder of --calib, and none is a folder", EXIT_USAGE
    )


def read_records(calib: Sequence[str | Path], checkpoint_sha256: str | None) -> list[RecordedDrift]:
    """What is recorded of a model in the folders of --calib; EdgeError for a damaged file."""
    paths = [Path(source, FILE) for source in calib if Path(source, FILE).is_file()]
    records = [record for path in paths for record in _read(path)]
    return [record for record in records if record.checkpoint_sha256 == checkpoint_sha256]


def write_records(path: Path, new: Sequence[RecordedDrift]) -> None:
    """Add records atomically, in the place of older ones of the same model's files."""
    replaced = {(record.model, record.target, record.file) for record in new}
    old = _read(path) if path.is_file() else []
    kept = [each for each in old if (each.model, each.target, each.file) not in replaced]
    ordered = sorted([*kept, *new], key=lambda each: (each.model, each.target, each.file))
    lines = ",\n".join(f" {json.dumps(asdict(record), sort_keys=True)}" for record in ordered)
    write_bytes(path, f"[\n{lines}\n]\n".encode())


def _read(path: Path) -> list[RecordedDrift]:
    try:
        return [_record(each) for each in json.loads(read_bytes(path, MAX_BYTES))]
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise EdgeError(
            f"{path}: not a record of drift ({error}); delete it, or make it again:"
            " python -m quantize.int8 --data FACES --record"
        ) from error


def _record(content: dict[str, Any]) -> RecordedDrift:
    names = {field.name for field in fields(RecordedDrift)}
    record = RecordedDrift(**{name: content[name] for name in names})
    texts = (record.model, record.checkpoint_sha256, record.target, record.file, record.measured_on)
    numbers = (*record.fidelities_db, record.max_drop_db, record.psnr_y)
    numbers += (record.drift_db, record.worst_drift_db)
    if not all(isinstance(text, str) for text in (*texts, *record.fp32_layers)):
        raise ValueError("a name that is no text")
    if len(record.fidelities_db) != 4 or not all(math.isfinite(number) for number in numbers):
        raise ValueError("a figure that is not finite")
    return replace(
        record,
        fp32_layers=tuple(record.fp32_layers),
        fidelities_db=tuple(map(float, record.fidelities_db)),
    )
