"""Today against the stored baselines: exit 3 if an artifact became worse, 4 if it became slower.

    python -m benchmarks.regress [--artifact F...] [--accuracy-only]
    python -m benchmarks.regress --accept "new weights"     # stores what is there as the baseline

Worse: fidelity, expected drift, the share of INT8, the nodes that the backend runs, the size.
Slower: the time of a face against torch eager's in the same run. Baselines (benchmarks/baselines/)
hold for an instruction-set level and a version of ONNX Runtime; where there is none, only the
manifests' own limits count, which is said, and the exit status is 0.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import onnxruntime

from runtime.backends import openvino
from runtime.errors import EXIT_DRIFT, EXIT_SLOWER, EXIT_USAGE, EdgeError, needs, run_command

with needs("train,export,quantize,bench", __name__):
    from benchmarks import baseline
    from benchmarks.baseline import Baseline, Speed
    from benchmarks.harness import facts
    from benchmarks.harness.baselines import EAGER
    from benchmarks.harness.facts import Facts, backends_of
    from benchmarks.harness.machine import QUIET_SHARE, cores, level, machine
    from benchmarks.latency import Plan, latency

from runtime.artifact import read_artifact
from runtime.cpu import processor
from runtime.session import DEFAULT_MODEL

SECONDS, TURNS = 1.0, 5
REPEATS = 5  # of the speed, to learn its tolerance from
RETRIES = 2  # before something is called slower: noise only slows
Say = Callable[[str], None]


@dataclass(frozen=True)
class Regression:
    kind: str  # "worse" or "slower"
    line: str


@dataclass(frozen=True)
class Report:
    """What was compared with the baseline of `key`, or, where `known` is false, with limits."""

    key: str
    known: bool
    regressions: tuple[Regression, ...]
    compared: tuple[str, ...]
    facts: tuple[Facts, ...]
    speeds: tuple[Speed, ...]
    notes: tuple[str, ...]

    @property
    def status(self) -> int:
        kinds = {regression.kind for regression in self.regressions}
        return EXIT_DRIFT if "worse" in kinds else EXIT_SLOWER if "slower" in kinds else 0


def regress(
    artifacts: Sequence[str | Path] = (),
    checkpoint: str | Path | None = None,
    *,
    folder: Path = baseline.FOLDER,
    speed: bool = True,
    wide: bool = False,
    say: Say = lambda line: None,
) -> Report:
    """Compare artifacts (none given: those of the default model) with the baseline in `folder`.

    `wide`: only what no noise explains is slower. EdgeError for what cannot be opened.
    """
    paths, key = find_artifacts(artifacts), this_key()
    stored = baseline.read(key, folder)
    found = gather(paths, say)
    notes: list[str] = []
    if stored is None:
        notes.append(
            f"no baseline for {key}: only the manifests' limits count; store one:"
            " python -m benchmarks.regress --accept REASON"
        )
    regressions = [
        Regression("worse", line) for one in found for line in _worse(one, stored, notes)
    ]
    speeds: tuple[Speed, ...] = ()
    if speed and stored and (expected := _expected_speeds(stored, found, notes)):
        speeds, lines = compare_speeds(paths, checkpoint, expected, wide, notes, say)
        regressions += [Regression("slower", line) for line in lines]
    names = (*(one.name for one in found), *(f"{speed.name}, speed" for speed in speeds))
    return Report(key, stored is not None, tuple(regressions), names, found, speeds, tuple(notes))


def accept(
    reason: str,
    artifacts: Sequence[str | Path] = (),
    checkpoint: str | Path | None = None,
    *,
    folder: Path = baseline.FOLDER,
    repeats: int = REPEATS,
    say: Say = lambda line: None,
) -> Path:
    """Store what is there as this machine's kind of baseline; EdgeError on a busy machine."""
    paths, key = find_artifacts(artifacts), this_key()
    found = gather(paths, say)
    if broken := [line for one in found for line in baseline.beyond_limits(one)]:
        raise EdgeError(f"not accepted: {broken[0]}; make it again", EXIT_DRIFT)
    threads = cores()
    say(f"timing, {repeats} times")
    runs = [measure_speeds(paths, checkpoint, threads) for _ in range(repeats)]
    if (busy := max(share for _, share in runs)) > QUIET_SHARE:
        say(f"note: others took {busy:.0%} of the machine; accept again when it is idle")
    speeds = []
    for number, first in enumerate(runs[0][0]):
        ratios = [run[number].ratio_to_eager for run, _ in runs]
        tolerance = baseline.learn_tolerance(ratios)
        speeds.append(replace(first, ratio_to_eager=statistics.median(ratios), tolerance=tolerance))
    here = machine()
    accepted = {
        "reason": reason,
        "date": here.date,
        "commit": here.commit,
        "processor": here.processor,
        "others_share": busy,
    }
    return baseline.write(Baseline(key, accepted, found, tuple(speeds)), folder)


def this_key() -> str:
    return baseline.find_key(level(processor()), onnxruntime.__version__)


def find_artifacts(artifacts: Sequence[str | Path]) -> list[Path]:
    paths = [Path(path) for path in artifacts]
    paths = paths or sorted(Path("artifacts", DEFAULT_MODEL).glob("*.onnx"))
    if not paths:
        raise EdgeError(
            f"no artifact in artifacts/{DEFAULT_MODEL}; make them: make demo, or name them:"
            " --artifact"
        )
    return paths


def gather(paths: Sequence[Path], say: Say) -> tuple[Facts, ...]:
    installed = tuple(
        name for name in facts.BACKENDS if name != "openvino" or openvino.is_installed()
    )
    found = []
    for path in paths:
        for backend in backends_of(read_artifact(path).manifest, installed):
            say(f"looking at {path} in {backend}")
            found.append(facts.gather(path, backend))
    return tuple(found)


def measure_speeds(
    paths: Sequence[Path], checkpoint: str | Path | None, threads: int
) -> tuple[tuple[Speed, ...], float]:
    """Each artifact's speed, and the share of the machine that others took meanwhile."""
    plan = Plan((1,), (threads,), SECONDS, TURNS, cold_starts=1, limits=False)
    measured = latency(paths, peers=(EAGER,), plan=plan, checkpoint=checkpoint)
    speeds = [
        Speed(row.name, row.backend, threads, row.ratio_to_eager, 0.0)
        for row in measured.rows
        if not row.peer and row.ratio_to_eager is not None
    ]
    return tuple(speeds), measured.others_share


def compare_speeds(
    paths: Sequence[Path],
    checkpoint: str | Path | None,
    expected: dict[str, Speed],
    wide: bool,
    notes: list[str],
    say: Say,
) -> tuple[tuple[Speed, ...], list[str]]:
    """The best of some tries, and a line for each that was slower in all of them."""
    best: dict[str, Speed] = {}
    threads = next(iter(expected.values())).threads
    for _ in range(1 + RETRIES):
        say("timing against torch eager")
        speeds, others = measure_speeds(paths, checkpoint, threads)
        for speed in speeds:
            if speed.ratio_to_eager > getattr(best.get(speed.name), "ratio_to_eager", 0):
                best[speed.name] = speed
        lines = _slower(best, expected, wide)
        if not lines:
            break
    if lines and not wide and others > QUIET_SHARE:
        notes += [f"{line}; not counted" for line in lines]
        notes.append(
            f"others took {others:.0%} of the machine: only what is far slower counts; run it"
            " again when it is idle"
        )
        lines = _slower(best, expected, wide=True)
    return tuple(best.values()), lines


def _slower(best: dict[str, Speed], expected: dict[str, Speed], wide: bool) -> list[str]:
    pairs = [(best[name], then) for name, then in expected.items() if name in best]
    lines = (baseline.slower(now, then, wide=wide) for now, then in pairs)
    return [line for line in lines if line]


def _worse(now: Facts, stored: Baseline | None, notes: list[str]) -> list[str]:
    lines = list(baseline.beyond_limits(now))
    if stored is None:
        return lines
    then = next((one for one in stored.facts if one.name == now.name), None)
    if then is None:
        notes.append(f"{now.name}: is not in the baseline {stored.key}; only its limits count")
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
) -> dict[str, Speed]:
    """The baseline's speeds of what is here, if this machine has the cores for them."""
    here = {one.name for one in found}
    expected = {speed.name: speed for speed in stored.speeds if speed.name in here}
    if any(speed.threads > cores() for speed in expected.values()):
        notes.append(f"speed is not compared: the baseline needs more cores than {cores()}")
        return {}
    return expected


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    return run_command(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    def say(line: str) -> None:
        print(line, file=sys.stderr)

    given = (arguments.artifact, arguments.checkpoint)
    if arguments.accept is not None:
        if not arguments.accept.strip():
            raise EdgeError("--accept: expected a reason", EXIT_USAGE)
        reason, folder = arguments.accept, arguments.baselines
        print(accept(reason, *given, folder=folder, repeats=REPEATS, say=say))
        return 0
    report = regress(
        *given,
        folder=arguments.baselines,
        speed=not arguments.accuracy_only,
        wide=arguments.wide,
        say=say,
    )
    if arguments.json:
        print(json.dumps(asdict(report)))
    else:
        print(f"{len(report.compared)} compared with {report.key}")
    for note in report.notes:
        say(f"note: {note}")
    for regression in report.regressions:
        say(f"{regression.kind}: {regression.line}")
    return report.status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.regress", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "--artifact",
        nargs="+",
        default=[],
        metavar="F",
        help=f"default: all of artifacts/{DEFAULT_MODEL}",
    )
    parser.add_argument("--checkpoint", metavar="F", help="default: the model's weights")
    parser.add_argument(
        "--baselines", type=Path, default=baseline.FOLDER, metavar="DIR", help="default: the stored"
    )
    parser.add_argument("--accuracy-only", action="store_true", help="do not time anything")
    parser.add_argument(
        "--wide", action="store_true", help="slower is only what takes twice as long"
    )
    parser.add_argument("--accept", metavar="REASON", help="store what is there as the baseline")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
