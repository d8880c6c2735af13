"""Regressions: artifacts and their speed against the stored baseline of this kind of processor.

Speed is compared only while the machine is idle: the speed-up over torch eager, measured in the
same interleaved run, still shifts when background processes take CPU time. A busy machine makes a
speed "not comparable", which is neither passed nor failed.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from benchmarks import baseline
from benchmarks.baseline import Baseline, StoredSpeed
from benchmarks.harness import facts
from benchmarks.harness.baselines import EAGER
from benchmarks.harness.facts import Facts, backends_of
from benchmarks.harness.machine import BUSY_SHARE, background_share, machine
from benchmarks.harness.measure import measure_latency
from benchmarks.harness.plan import LatencyPlan
from benchmarks.throughput_regression import (
    ThroughputComparison,
    compare_throughput,
    is_published,
)
from runtime.artifact import read_artifact
from runtime.backends import openvino
from runtime.cpu import instruction_set, processor, usable_cores
from runtime.errors import EXIT_DRIFT, EXIT_ERROR, EXIT_SLOWER, EdgeError
from runtime.progress import Progress, silent
from runtime.session import DEFAULT_MODEL

BASELINES = baseline.FOLDER
SECONDS, ROUNDS = 1.0, 5
SAMPLE_SECONDS = 1.0  # of the background load, before anything is timed
REPEATS = 5  # of the speed, to learn its tolerance from
TRIES = 3  # of the speed: noise only slows, so the best idle one counts


@dataclass(frozen=True)
class Regression:
    kind: str  # "worse" or "slower"
    line: str


@dataclass(frozen=True)
class RegressionReport:
    """What was compared with the baseline of `key`; if that is not `known`, only with limits.

    `not_comparable` has a line for each speed that was never measured on an idle machine.
    """

    key: str
    known: bool
    regressions: tuple[Regression, ...]
    compared: tuple[str, ...]
    not_comparable: tuple[str, ...]
    facts: tuple[Facts, ...]
    speeds: tuple[StoredSpeed, ...]
    notes: tuple[str, ...]

    @property
    def status(self) -> int:
        """3 for worse, 4 for slower, 1 if a busy machine left a speed undecided, else 0."""
        kinds = {regression.kind for regression in self.regressions}
        if "worse" in kinds:
            return EXIT_DRIFT
        if "slower" in kinds:
            return EXIT_SLOWER
        return EXIT_ERROR if self.not_comparable else 0


@dataclass(frozen=True)
class Try:
    """Speeds of one run, and the share of the CPU that background processes took meanwhile."""

    speeds: tuple[StoredSpeed, ...]
    background_share: float

    @property
    def busy(self) -> bool:
        return self.background_share > BUSY_SHARE


@dataclass(frozen=True)
class SpeedComparison:
    """The best speeds on an idle machine, and a line for each regression and undecided speed."""

    speeds: tuple[StoredSpeed, ...]
    slower: tuple[str, ...] = ()
    not_comparable: tuple[str, ...] = ()


def find_regressions(
    artifacts: Sequence[str | Path] = (),
    checkpoint: str | Path | None = None,
    *,
    folder: Path = BASELINES,
    speed: bool = True,
    wide: bool = False,
    progress: Progress = silent,
) -> RegressionReport:
    """Compare artifacts (none given: those of the default model) with the baseline in `folder`.

    `wide`: slower is only what takes twice as long. EdgeError for what cannot be opened.
    """
    paths, key = find_artifacts(artifacts), this_key()
    stored = baseline.read(key, folder)
    found = gather(paths, progress)
    notes: list[str] = []
    if stored is None:
        notes.append(
            f"no baseline for {key}: only the manifests' limits count. Store one with:"
            " python -m benchmarks.regress --accept REASON"
        )
    regressions = [
        Regression("worse", line) for one in found for line in _worse(one, stored, notes)
    ]
    compared, throughput = SpeedComparison(()), ThroughputComparison()
    if speed and stored and (expected := _expected_speeds(stored, found, notes)):
        threads = next(iter(expected.values())).threads
        compared = compare_speeds(
            lambda: measure_speeds(paths, checkpoint, threads), expected, wide, progress
        )
        regressions += [Regression("slower", line) for line in compared.slower]
    if speed and (published := [path for path in paths if is_published(path)]):
        throughput = compare_throughput(published[0], wide=wide, progress=progress)
        regressions += [Regression("slower", line) for line in throughput.slower]
        notes += throughput.notes
    return RegressionReport(
        key=key,
        known=stored is not None,
        regressions=tuple(regressions),
        compared=(
            *(one.name for one in found),
            *(f"{each.name}, speed" for each in compared.speeds),
            *throughput.compared,
        ),
        not_comparable=compared.not_comparable + throughput.not_comparable,
        facts=found,
        speeds=compared.speeds,
        notes=tuple(notes),
    )


def accept(
    reason: str,
    artifacts: Sequence[str | Path] = (),
    checkpoint: str | Path | None = None,
    *,
    folder: Path = BASELINES,
    repeats: int = REPEATS,
    progress: Progress = silent,
) -> Path:
    """Store the artifacts and their speed as the baseline of this kind of processor.

    EdgeError for artifacts beyond their limits, or on a busy machine.
    """
    paths, key = find_artifacts(artifacts), this_key()
    found = gather(paths, progress)
    if broken := [line for one in found for line in baseline.beyond_limits(one)]:
        raise EdgeError(f"not accepted: {broken[0]}; make it again", EXIT_DRIFT)
    progress(f"timing, {repeats} times")
    runs = [measure_speeds(paths, checkpoint, usable_cores()) for _ in range(repeats)]
    share = max(run.background_share for run in runs)
    if any(run.busy for run in runs):
        raise EdgeError(
            f"not accepted: the machine is busy, background processes took {share:.0%} of the CPU;"
            " accept again when it is idle"
        )
    speeds = []
    for number, first in enumerate(runs[0].speeds):
        ratios = [run.speeds[number].speedup_vs_eager for run in runs]
        tolerance = baseline.learn_tolerance(ratios)
        median = statistics.median(ratios)
        speeds.append(replace(first, speedup_vs_eager=median, tolerance=tolerance))
    here = machine()
    accepted = {
        "reason": reason,
        "date": here.date,
        "commit": here.commit,
        "processor": here.processor,
        "background_share": share,
    }
    return baseline.write(Baseline(key, accepted, found, tuple(speeds)), folder)


def this_key() -> str:
    return baseline.find_key(instruction_set(processor()), version("onnxruntime"))


def find_artifacts(artifacts: Sequence[str | Path]) -> list[Path]:
    paths = [Path(path) for path in artifacts]
    paths = paths or sorted(Path("artifacts", DEFAULT_MODEL).glob("*.onnx"))
    if not paths:
        raise EdgeError(
            f"artifacts/{DEFAULT_MODEL}: no artifact found. Create them with: make demo, or name"
            " them: --artifact"
        )
    return paths


def gather(paths: Sequence[Path], progress: Progress) -> tuple[Facts, ...]:
    """Measure each artifact in each installed backend that it was made for."""
    installed = tuple(
        name for name in facts.BACKENDS if name != "openvino" or openvino.is_installed()
    )
    found = []
    for path in paths:
        for backend in backends_of(read_artifact(path).manifest, installed):
            progress(f"checking {path} in {backend}")
            found.append(facts.gather(path, backend))
    return tuple(found)


def measure_speeds(paths: Sequence[Path], checkpoint: str | Path | None, threads: int) -> Try:
    """Measure each artifact's speed-up over torch eager, and the background load meanwhile.

    Nothing is timed if the machine is busy before it starts.
    """
    if (share := background_share(SAMPLE_SECONDS)) > BUSY_SHARE:
        return Try((), share)
    plan = LatencyPlan((1,), (threads,), SECONDS, ROUNDS, cold_starts=1, peaks=False)
    measured = measure_latency(paths, baselines=(EAGER,), plan=plan, checkpoint=checkpoint)
    speeds = [
        StoredSpeed(row.name, row.backend, threads, row.speedup_vs_eager, 0.0)
        for row in measured.rows
        if not row.baseline and row.speedup_vs_eager is not None
    ]
    return Try(tuple(speeds), measured.background_share)


def compare_speeds(
    measure: Callable[[], Try],
    expected: dict[str, StoredSpeed],
    wide: bool,
    progress: Progress = silent,
) -> SpeedComparison:
    """Measure until every expected speed is reached on an idle machine, at most TRIES times.

    A speed counts only if it was measured on an idle machine: under load the quotient to torch
    eager may fall or rise.
    """
    best: dict[str, StoredSpeed] = {}
    lines: tuple[str, ...] = ()
    busiest = 0.0
    for number in range(1, TRIES + 1):
        progress(f"timing against torch eager, try {number} of at most {TRIES}")
        tried = measure()
        if tried.busy:
            busiest = max(busiest, tried.background_share)
            continue
        for speed in tried.speeds:
            if speed.speedup_vs_eager > getattr(best.get(speed.name), "speedup_vs_eager", 0):
                best[speed.name] = speed
        lines = _slower(best, expected, wide)
        if not lines and best.keys() >= expected.keys():
            break
    undecided = tuple(
        f"{name}, speed: not comparable: busy (background processes took {busiest:.0%} of the CPU)"
        for name in expected
        if not best
    )
    return SpeedComparison(tuple(best.values()), lines, undecided)


def _slower(
    best: dict[str, StoredSpeed], expected: dict[str, StoredSpeed], wide: bool
) -> tuple[str, ...]:
    pairs = [(best[name], then) for name, then in expected.items() if name in best]
    lines = (baseline.slower(now, then, wide=wide) for now, then in pairs)
    return tuple(line for line in lines if line)


def _worse(now: Facts, stored: Baseline | None, notes: list[str]) -> list[str]:
    lines = list(baseline.beyond_limits(now))
    if stored is None:
        return lines
    then = next((one for one in stored.facts if one.name == now.name), None)
    if then is None:
        notes.append(f"{now.name}: not in the baseline {stored.key}; only its limits count")
    elif then.backend_version != now.backend_version:
        notes.append(
            f"{now.name}: the baseline is of {then.backend_version}, this is {now.backend_version};"
            " only its limits count"
        )
    else:
        if then.checkpoint_sha256 != now.checkpoint_sha256:
            notes.append(f"{now.name}: the baseline is of other weights")
        lines += baseline.worse(now, then)
    return lines


def _expected_speeds(
    stored: Baseline, found: Sequence[Facts], notes: list[str]
) -> dict[str, StoredSpeed]:
    """The baseline's speeds of these artifacts, if this machine has the cores for them."""
    here = {one.name for one in found}
    expected = {speed.name: speed for speed in stored.speeds if speed.name in here}
    if any(speed.threads > usable_cores() for speed in expected.values()):
        notes.append(f"speed is not compared: the baseline needs more cores than {usable_cores()}")
        return {}
    return expected
