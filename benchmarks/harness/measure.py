"""Measure the latency of artifacts and off-the-shelf baselines in one interleaved run."""

import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.harness.baselines import EAGER, NAMES
from benchmarks.harness.candidates import find_candidates
from benchmarks.harness.interleaved import (
    BenchmarkCandidate,
    Timing,
    Worker,
    speedup,
    time_interleaved,
)
from benchmarks.harness.machine import machine
from benchmarks.harness.plan import BACKENDS, ON_A_GPU, LatencyPlan
from benchmarks.harness.roofline import PeakThroughput, measure_peaks
from benchmarks.harness.rows import Latency, LatencyRow
from runtime.errors import EdgeError
from runtime.progress import Progress, silent

SLOW_TO_OPEN = ("torch.compile",)  # compiles for a minute: started once


def measure_latency(
    artifacts: Sequence[str | Path] = (),
    backends: Sequence[str] = BACKENDS,
    baselines: Sequence[str] = NAMES,
    plan: LatencyPlan | None = None,
    checkpoint: str | Path | None = None,
    progress: Progress = silent,
) -> Latency:
    """Measure artifacts (none given: all of ./artifacts) and baselines of their networks.

    `checkpoint` is what the artifacts were made of, if not the model's committed weights. EdgeError
    for an artifact that cannot be opened; a baseline that cannot, or an artifact on a GPU (CUDA's
    provider runs no INT8), is left out, and noted.
    """
    plan = plan or LatencyPlan()
    notes: list[str] = []
    before = machine()

    candidates = find_candidates(artifacts, backends, baselines, checkpoint, progress, notes.append)
    peaks: list[PeakThroughput] = []
    rows: list[LatencyRow] = []
    with TemporaryDirectory() as compiled:  # torch.compile's cache, new for each run
        for threads in plan.thread_counts():
            if plan.peaks:
                progress(f"measuring peak throughput on {threads} threads")
                peaks += measure_peaks(threads, min(1.0, plan.seconds))
            rows += measure_rows(candidates, plan, threads, peaks, compiled, progress, notes.append)
    result = Latency(tuple(rows), tuple(peaks), before, plan.seconds, ())
    if rows and result.busy:
        notes.append(
            f"the machine was busy: background processes took {result.background_share:.0%} of the"
            f" CPU (load average {before.load_average[0]:.1f} on {before.cores} cores at the"
            " start); measure again when it is idle"
        )
    return replace(result, notes=tuple(notes))


def measure_rows(
    candidates: Sequence[BenchmarkCandidate],
    plan: LatencyPlan,
    threads: int,
    peaks: Sequence[PeakThroughput],
    compiled: str,
    progress: Progress,
    note: Callable[[str], None],
) -> list[LatencyRow]:
    """Measure all rows with this many threads."""
    with ExitStack() as stack:
        opened: list[tuple[Worker, float]] = []
        for candidate in candidates:
            progress(f"opening {candidate.name} in {candidate.backend}")
            try:
                worker, cold_start_ms = open_worker(candidate, threads, plan, compiled)
            except EdgeError as error:
                if not candidate.baseline and candidate.backend not in ON_A_GPU:
                    raise
                note(str(error))
                continue
            opened.append((stack.enter_context(worker), cold_start_ms))
        rows: list[LatencyRow] = []
        for batch in sorted(plan.batches):
            progress(f"timing {len(opened)} candidates: batch {batch}, {threads} threads")
            workers = [worker for worker, _ in opened]
            timings = time_interleaved(workers, batch, plan.seconds, plan.rounds)
            rows += compare(
                [
                    make_row(worker, cold_start_ms, batch, timing, peaks)
                    for (worker, cold_start_ms), timing in zip(opened, timings, strict=True)
                ]
            )
        return rows


def open_worker(
    candidate: BenchmarkCandidate, threads: int, plan: LatencyPlan, compiled: str
) -> tuple[Worker, float]:
    """Return an open worker, and the median of its cold starts in ms."""
    environment = {"TORCHINDUCTOR_CACHE_DIR": compiled}
    starts = 1 if candidate.opener in SLOW_TO_OPEN else plan.cold_starts
    times_ms = []
    for _ in range(starts - 1):
        with Worker(candidate, threads, environment) as worker:
            times_ms.append(worker.cold_start_ms)
    worker = Worker(candidate, threads, environment)
    return worker, statistics.median([*times_ms, worker.cold_start_ms])


def make_row(
    worker: Worker,
    cold_start_ms: float,
    batch: int,
    timing: Timing,
    peaks: Sequence[PeakThroughput],
) -> LatencyRow:
    candidate = worker.candidate
    gmacs_per_s = candidate.macs * batch / (timing.p50_ms * 1e6)
    shares = [
        gmacs_per_s / peak.gmacs_per_s
        for peak in peaks
        if (peak.precision, peak.threads) == (candidate.precision, worker.threads)
    ]
    return LatencyRow(
        name=candidate.name,
        model=candidate.model,
        backend=candidate.backend,
        precision=candidate.precision,
        baseline=candidate.baseline,
        sha256=candidate.sha256,
        batch=batch,
        threads=worker.threads,
        runs=len(timing.times_ms),
        p50_ms=timing.p50_ms,
        p95_ms=timing.percentile_ms(95),
        p99_ms=timing.percentile_ms(99),
        faces_per_s=1e3 * batch * len(timing.times_ms) / sum(timing.times_ms),
        speedup_vs_fp32=None,
        speedup_vs_eager=None,
        speedup_vs_best_baseline=None,
        best_baseline=None,
        share_of_peak=shares[0] if shares else None,
        peak_mib=timing.peak_mib,
        cold_start_ms=cold_start_ms,
        bytes=candidate.bytes,
        fidelity_db=worker.fidelity().fidelity_db,
        background_share=timing.background_share,
        rounds_ms=timing.rounds_ms,
    )


def compare(rows: Sequence[LatencyRow]) -> list[LatencyRow]:
    """Return rows of one batch size and number of threads with their speed-ups."""
    compared = []
    for row in rows:
        network = [other for other in rows if other.model == row.model]
        baselines = [other for other in network if other.baseline]
        eager = next((other for other in baselines if other.name == EAGER), None)
        best = min(baselines, key=lambda other: other.p50_ms, default=None)
        fp32 = next(
            (o for o in network if o.backend == row.backend and o.file.startswith("fp32.")), None
        )
        compared.append(
            replace(
                row,
                speedup_vs_fp32=_speedup(row, fp32),
                speedup_vs_eager=_speedup(row, eager),
                speedup_vs_best_baseline=_speedup(row, best),
                best_baseline=best.name if best else None,
            )
        )
    return compared


def _speedup(row: LatencyRow, reference: LatencyRow | None) -> float | None:
    return None if reference is None else speedup(row.rounds_ms, reference.rounds_ms)
