"""How long a face takes: our artifacts and their peers on the same network, in the same run.

    python -m benchmarks.latency [--artifact F...] [--out docs/measured/latency.json]

Each candidate runs in a process of its own (benchmarks.harness.worker), interleaved, so that all
see the same machine. Baselines (benchmarks.harness.baselines) are torch, ONNX Runtime, OpenVINO
and NNCF with their default settings. A row has

p50_ms ...          of one call with `batch` faces
ratio_to_eager      times as fast as torch eager in FP32, turn by turn; over 1 is faster
ratio_to_best_peer  times as fast as the fastest peer, whatever that one's fidelity
share_of_limit      of the multiply-adds a second of this machine (benchmarks.harness.roofline)
cold_start_ms       from the start of a process until its first face
peak_mib            the most memory of that process
others_share        of the processor, taken by others meanwhile: over a tenth, trust nothing
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from runtime.errors import EXIT_USAGE, EdgeError, needs, run_command

with needs("train,export,quantize,bench", __name__):
    from benchmarks.harness.baselines import EAGER, NAMES
    from benchmarks.harness.entries import BACKENDS, Entry, find_entries
    from benchmarks.harness.machine import QUIET_SHARE, Machine, cores, machine
    from benchmarks.harness.race import TURNS, Contender, Timing, Worker, race
    from benchmarks.harness.roofline import ArithmeticLimit, measure_limits
    from benchmarks.harness.table import markdown, table, write_measured


BATCHES = (1, 8)
SECONDS = 3.0
COLD_STARTS = 3
SLOW_TO_OPEN = ("torch.compile",)  # compiles for a minute: started once

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What is measured. `seconds` a contender, batch and number of threads.

    `limits`: the machine's arithmetic limit too.
    """

    batches: tuple[int, ...] = BATCHES
    threads: tuple[int, ...] = ()  # none: one, and all cores
    seconds: float = SECONDS
    turns: int = TURNS
    cold_starts: int = COLD_STARTS
    limits: bool = True

    def thread_counts(self) -> tuple[int, ...]:
        """All cores first."""
        return tuple(sorted(set(self.threads or (1, cores())), reverse=True))


@dataclass(frozen=True)
class Row:
    """One contender with one batch on that many threads; see the file's docstring."""

    name: str
    model: str
    backend: str
    precision: str
    peer: bool
    sha256: str | None
    batch: int
    threads: int
    runs: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    faces_per_s: float
    ratio_to_eager: float | None
    ratio_to_best_peer: float | None
    best_peer: str | None
    share_of_limit: float | None
    peak_mib: float
    cold_start_ms: float
    bytes: int
    fidelity_db: float
    others_share: float
    turns_ms: tuple[float, ...]


@dataclass(frozen=True)
class Latency:
    rows: tuple[Row, ...]
    limits: tuple[ArithmeticLimit, ...]
    machine: Machine
    seconds: float
    notes: tuple[str, ...]

    @property
    def others_share(self) -> float:
        return statistics.fmean(row.others_share for row in self.rows)


def latency(
    artifacts: Sequence[str | Path] = (),
    backends: Sequence[str] = BACKENDS,
    peers: Sequence[str] = NAMES,
    plan: Plan | None = None,
    checkpoint: str | Path | None = None,
    say: Say = lambda line: None,
) -> Latency:
    """Measure artifacts (none given: all of ./artifacts) and the named peers of their models.

    `checkpoint` is what the artifacts were made of, if not the model's committed weights. EdgeError
    for an artifact that cannot be opened; a peer that cannot is left out, and noted.
    """
    plan, notes = plan or Plan(), []
    before = machine()

    def note(line: str) -> None:
        notes.append(line)
        say(f"note: {line}")

    entries = find_entries(artifacts, backends, peers, checkpoint, say, note)
    limits: list[ArithmeticLimit] = []
    rows: list[Row] = []
    with TemporaryDirectory() as compiled:  # torch.compile's, new each run
        for threads in plan.thread_counts():
            if plan.limits:
                say(f"measuring the machine's limit on {threads} threads")
                limits += measure_limits(threads, min(1.0, plan.seconds))
            rows += measure(entries, plan, threads, limits, compiled, say, note)
    result = Latency(tuple(rows), tuple(limits), before, plan.seconds, ())
    if result.others_share > QUIET_SHARE:
        note(
            f"the machine was busy: others took {result.others_share:.0%} of it, and the load"
            f" average was {before.load_average[0]:.1f} on {before.cores} cores at the start;"
            " measure again when it is idle"
        )
    return replace(result, notes=tuple(notes))


def measure(
    entries: Sequence[Entry],
    plan: Plan,
    threads: int,
    limits: Sequence[ArithmeticLimit],
    compiled: str,
    say: Say,
    note: Say,
) -> list[Row]:
    """All rows with this many threads."""
    with ExitStack() as stack:
        opened: list[tuple[Entry, Worker, float]] = []
        for entry in entries:
            say(f"opening {entry.contender.name} in {entry.contender.backend}")
            try:
                worker, cold_ms = open_worker(entry.contender, threads, plan, compiled)
            except EdgeError as error:
                if not entry.contender.peer:
                    raise
                note(str(error))
                continue
            opened.append((entry, stack.enter_context(worker), cold_ms))
        rows = []
        for batch in sorted(plan.batches):
            say(f"timing {len(opened)} contenders: batch {batch}, {threads} threads")
            timings = race([worker for _, worker, _ in opened], batch, plan.seconds, plan.turns)
            rows.append(
                [
                    make_row(entry, worker, cold_ms, batch, timing, limits)
                    for (entry, worker, cold_ms), timing in zip(opened, timings, strict=True)
                ]
            )
        return [row for measured in rows for row in compare(measured)]


def open_worker(
    contender: Contender, threads: int, plan: Plan, compiled: str
) -> tuple[Worker, float]:
    """An open worker, and the median of its cold starts."""
    environment = {"TORCHINDUCTOR_CACHE_DIR": compiled}
    starts = 1 if contender.opener in SLOW_TO_OPEN else plan.cold_starts
    times_ms = []
    for _ in range(starts - 1):
        with Worker(contender, threads, environment) as worker:
            times_ms.append(worker.cold_start_ms)
    worker = Worker(contender, threads, environment)
    return worker, statistics.median([*times_ms, worker.cold_start_ms])


def make_row(
    entry: Entry,
    worker: Worker,
    cold_ms: float,
    batch: int,
    timing: Timing,
    limits: Sequence[ArithmeticLimit],
) -> Row:
    contender = entry.contender
    of_limit = [
        entry.macs * batch / (timing.p50_ms * 1e6) / limit.gmacs_per_s
        for limit in limits
        if (limit.precision, limit.threads) == (contender.precision, worker.threads)
    ]
    return Row(
        name=contender.name,
        model=contender.model,
        backend=contender.backend,
        precision=contender.precision,
        peer=contender.peer,
        sha256=entry.sha256,
        batch=batch,
        threads=worker.threads,
        runs=len(timing.times_ms),
        p50_ms=timing.p50_ms,
        p95_ms=timing.percentile_ms(95),
        p99_ms=timing.percentile_ms(99),
        faces_per_s=1e3 * batch * len(timing.times_ms) / sum(timing.times_ms),
        ratio_to_eager=None,
        ratio_to_best_peer=None,
        best_peer=None,
        share_of_limit=of_limit[0] if of_limit else None,
        peak_mib=timing.peak_mib,
        cold_start_ms=cold_ms,
        bytes=contender.bytes,
        fidelity_db=worker.fidelity(entry.probes).fidelity_db,
        others_share=timing.others_share,
        turns_ms=timing.turns_ms,
    )


def compare(rows: Sequence[Row]) -> list[Row]:
    """Rows of one batch and number of threads, each with its ratios to its model's peers."""
    compared = []
    for row in rows:
        peers = [other for other in rows if other.peer and other.model == row.model]
        eager = next((peer for peer in peers if peer.name == EAGER), None)
        best = min(peers, key=lambda peer: peer.p50_ms, default=None)
        compared.append(
            replace(
                row,
                ratio_to_eager=times_as_fast(row, eager) if eager else None,
                ratio_to_best_peer=times_as_fast(row, best) if best else None,
                best_peer=best.name if best else None,
            )
        )
    return compared


def times_as_fast(row: Row, other: Row) -> float:
    """The median over turns: what slowed the machine for a while slowed both."""
    pairs = zip(row.turns_ms, other.turns_ms, strict=True)
    return statistics.median(theirs / ours for ours, theirs in pairs)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    return run_command(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    if unknown := sorted(set(arguments.peers) - set(NAMES)):
        raise EdgeError(
            f"no peer is called {unknown[0]!r}; expected {', '.join(NAMES)}", EXIT_USAGE
        )
    counts = [*arguments.batch, *arguments.threads, arguments.turns, arguments.cold_starts]
    if min([*counts, arguments.seconds]) <= 0:
        raise EdgeError("--batch, --threads, --seconds, ...: expected over 0", EXIT_USAGE)
    result = latency(
        arguments.artifact,
        arguments.backend,
        arguments.peers,
        Plan(
            batches=tuple(arguments.batch),
            threads=tuple(arguments.threads),
            seconds=arguments.seconds,
            turns=arguments.turns,
            cold_starts=arguments.cold_starts,
        ),
        arguments.checkpoint,
        say=lambda line: print(line, file=sys.stderr),
    )
    content = asdict(result)
    if arguments.out:
        write_measured(arguments.out, content, markdown(content))
    print(json.dumps(content) if arguments.json else table(content))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.latency", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "--artifact", nargs="+", default=[], metavar="F", help="default: all of artifacts/"
    )
    parser.add_argument("--backend", nargs="+", default=BACKENDS, choices=BACKENDS)
    parser.add_argument("--peers", nargs="*", default=NAMES, metavar="P", help=", ".join(NAMES))
    parser.add_argument("--checkpoint", metavar="F", help="default: the model's weights")
    parser.add_argument("--batch", nargs="+", type=int, default=list(BATCHES), metavar="N")
    parser.add_argument(
        "--threads", nargs="+", type=int, default=[], metavar="N", help="default: 1, and all cores"
    )
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, metavar="X", help=f"a row (default: {SECONDS:g})"
    )
    parser.add_argument(
        "--cold-starts", type=int, default=COLD_STARTS, metavar="N", help=f"default: {COLD_STARTS}"
    )
    parser.add_argument("--turns", type=int, default=TURNS, metavar="N", help=f"default: {TURNS}")
    parser.add_argument("--out", type=Path, metavar="F.json", help="write JSON, and F.md beside it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
