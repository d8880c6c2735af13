"""Stored baselines of artifacts and their speeds, by kind of processor.

One file for each instruction-set level and ONNX Runtime version, because both change what is
computed. Speed is stored as the speed-up over torch eager in the same run, because machines of one
kind differ in speed.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness.facts import Facts
from quantize.budget import LEAST_SHARE
from runtime.atomic import read_bytes, write_bytes
from runtime.drift import ROUNDING_DB
from runtime.errors import EdgeError

FOLDER = Path(__file__).with_name("baselines")
MAX_BYTES = 1 << 20

TOLERANCE_DB = {"fidelity_db": 1.0, "worst_fidelity_db": 2.0, "extremes_fidelity_db": 2.0}
DRIFT_TOLERANCE_DB = 0.005
SHARE_TOLERANCE = 0.001
SIZE_TOLERANCE = 0.02
LEAST_TOLERANCE = 0.1  # of a speed-up; the spread of repeats counts if it is larger
WIDE = 0.5  # of the baseline's speed-up: less than that is no noise


@dataclass(frozen=True)
class StoredSpeed:
    """Times as fast as torch eager with one face, and the spread of repeats of it."""

    artifact: str
    backend: str
    threads: int
    speedup_vs_eager: float
    tolerance: float

    @property
    def name(self) -> str:
        return f"{self.artifact} in {self.backend}"


@dataclass(frozen=True)
class Baseline:
    """`accepted`: when, why, on which processor and from which commit."""

    key: str
    accepted: Mapping[str, Any]
    facts: tuple[Facts, ...]
    speeds: tuple[StoredSpeed, ...]


def find_key(level: str, version: str) -> str:
    """Such as 'avx512_vnni-onnxruntime-1.31.1'."""
    return f"{level}-onnxruntime-{version}"


def read(key: str, folder: Path = FOLDER) -> Baseline | None:
    """Read the baseline of a key, None if there is none; EdgeError for a damaged one."""
    path = folder / f"{key}.json"
    if not path.is_file():
        return None
    try:
        content = json.loads(read_bytes(path, MAX_BYTES))
        return Baseline(
            content["key"],
            content["accepted"],
            tuple(Facts(**facts) for facts in content["facts"]),
            tuple(StoredSpeed(**speed) for speed in content["speeds"]),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise EdgeError(
            f"{path}: is no baseline ({error}). Restore it, or store one with:"
            " python -m benchmarks.regress --accept REASON"
        ) from error


def write(baseline: Baseline, folder: Path = FOLDER) -> Path:
    path = folder / f"{baseline.key}.json"
    write_bytes(path, f"{json.dumps(asdict(baseline), indent=1)}\n".encode())
    return path


def beyond_limits(facts: Facts) -> Iterator[str]:
    """Yield a line for each limit that is exceeded on any machine."""
    if not facts.passed:
        yield (
            f"{facts.name}: fidelity {facts.fidelity_db:.1f} dB on faces,"
            f" {facts.extremes_fidelity_db:.1f} on extremes, the manifest asks for"
            f" {facts.limit_db:.1f}"
        )
    if _is_int8(facts) and facts.int8_mac_share is not None and facts.int8_mac_share < LEAST_SHARE:
        yield f"{facts.name}: {facts.int8_mac_share:.1%} in INT8, at least {LEAST_SHARE:.0%}"


def worse(now: Facts, then: Facts) -> Iterator[str]:
    """Yield a line for each property that became worse since the baseline."""
    for name, tolerance in TOLERANCE_DB.items():
        # Over ROUNDING_DB only the order of sums differs.
        ours, stored = (min(getattr(facts, name), ROUNDING_DB) for facts in (now, then))
        if ours < stored - tolerance:
            word = name.removesuffix("_db").replace("_", " ")
            yield f"{now.name}: {word} {ours:.1f} dB, was {stored:.1f}"
    if _rose(then.expected_drift_db, now.expected_drift_db, DRIFT_TOLERANCE_DB):
        yield (
            f"{now.name}: expected drift {now.expected_drift_db:.3f} dB, was"
            f" {then.expected_drift_db:.3f}"
        )
    if _rose(now.int8_mac_share, then.int8_mac_share, SHARE_TOLERANCE):
        yield f"{now.name}: {now.int8_mac_share:.1%} in INT8, was {then.int8_mac_share:.1%}"
    if now.nodes > then.nodes:
        yield f"{now.name}: runs {now.nodes} nodes, was {then.nodes} ({_changes(now, then)})"
    if now.bytes > then.bytes * (1 + SIZE_TOLERANCE):
        yield f"{now.name}: {now.bytes / 1e6:.2f} MB, was {then.bytes / 1e6:.2f}"


def slower(now: StoredSpeed, then: StoredSpeed, *, wide: bool) -> str | None:
    """Return a line if it is slower than the tolerance allows; `wide`: than WIDE allows."""
    least = then.speedup_vs_eager * (WIDE if wide else 1 - then.tolerance)
    if now.speedup_vs_eager >= least:
        return None
    return (
        f"{now.name}: {now.speedup_vs_eager:.2f} times as fast as torch eager, was"
        f" {then.speedup_vs_eager:.2f}, at least {least:.2f}"
    )


def learn_tolerance(ratios: Sequence[float]) -> float:
    """Return 1.5 times the spread of repeats over their median, at least LEAST_TOLERANCE."""
    middle = sorted(ratios)[len(ratios) // 2]
    return max(LEAST_TOLERANCE, 1.5 * (max(ratios) - min(ratios)) / middle)


def _rose(before: float | None, after: float | None, tolerance: float) -> bool:
    return before is not None and after is not None and after > before + tolerance


def _is_int8(facts: Facts) -> bool:
    return facts.artifact.split("/")[-1].startswith("int8")


def _changes(now: Facts, then: Facts) -> str:
    """'+2 DequantizeLinear, -1 QLinearConv'."""
    kinds = sorted({*now.operators, *then.operators})
    changes = {kind: now.operators.get(kind, 0) - then.operators.get(kind, 0) for kind in kinds}
    return ", ".join(f"{change:+d} {kind}" for kind, change in changes.items() if change)
