"""README's short tables: results and targets."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness.rows import Latency
from benchmarks.harness.table import markdown_table
from benchmarks.harness.targets import TargetRow
from benchmarks.metrics.quality import QualityRow, over_bicubic
from benchmarks.results import times
from benchmarks.studies.real_faces import REAL_CALIBRATION, DriftRow

HELD_OUT = ("celeba-test", "helen-test", "lfw-test")


def summary_table(
    quality: Sequence[QualityRow], drift: Sequence[DriftRow], measured: Latency
) -> str:
    """Quality on held-out faces, then each artifact's drift, size and speed with one face."""
    networks = [row for row in quality if row.backend == "torch" and row.data in HELD_OUT]
    lines = [
        (row.artifact, row.data, str(row.n), f"{row.psnr_y:.2f}", over_bicubic(row))
        for row in sorted(networks, key=lambda row: HELD_OUT.index(row.data))
    ]
    columns = ("model", "faces of", "number", "PSNR-Y dB", "over bicubic (95 %)")
    return f"{markdown_table(columns, lines)}\n\n{_artifacts_table(drift, measured)}"


def _artifacts_table(drift: Sequence[DriftRow], measured: Latency) -> str:
    lost = {
        (row.artifact, row.backend): f"{max(row.drift_db, 0):.3f} ({row.worst_drift_db:.3f})"
        for row in drift
        if row.calibrated_with != REAL_CALIBRATION and not row.emulated
    }
    lines = [
        (
            *(f"`{row.name}`", row.backend, row.precision, f"{row.bytes / 1e6:.1f}"),
            *(f"{row.fidelity_db:.1f}", lost.get((row.name, row.backend), "")),
            *(f"{row.p50_ms:.1f}", times(row.speedup_vs_fp32)),
        )
        for row in measured.one_face()
        if not row.baseline
    ]
    columns = (
        *("artifact", "backend", "computes in", "MB", "fidelity dB", "drift dB (worst face)"),
        *("ms", "vs FP32"),
    )
    machine = measured.machine
    where = f"{machine.processor}, {measured.one_face()[0].threads} threads, {machine.date}"
    return f"{markdown_table(columns, lines)}\n\n{where}."


def devices_table(rows: Sequence[TargetRow]) -> str:
    """One line a target: its files, the lowest fidelity of those that ran, where, and how."""
    grouped: dict[str, list[TargetRow]] = {}
    for row in rows:
        grouped.setdefault(row.target, []).append(row)
    lines = []
    for target, files in grouped.items():
        ran = [row for row in files if row.fidelity_db is not None]
        lowest = min((row.fidelity_db for row in ran if row.fidelity_db is not None), default=None)
        status = f"run on {_places(ran)}" if ran else f"not run: {files[0].not_run}"
        names = ", ".join(dict.fromkeys(Path(row.file).name for row in files))
        fidelity = "" if lowest is None else f"{lowest:.1f}"
        lines.append((target, names, fidelity, status, f"`{files[0].command}`"))
    return markdown_table(("target", "files", "fidelity dB at least", "status", "command"), lines)


def _places(rows: Sequence[TargetRow]) -> str:
    """Where rows ran, each place once, without a processor's features."""
    return ", ".join(dict.fromkeys((row.ran_on or "").split(" (")[0].split(";")[0] for row in rows))
