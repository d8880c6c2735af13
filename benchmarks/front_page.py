"""README's short tables: results and targets."""

import re
from collections.abc import Sequence
from pathlib import Path

from aminet.config import PAPER
from benchmarks.harness.rows import Latency
from benchmarks.harness.table import markdown_table
from benchmarks.harness.targets import TargetRow, target_figures
from benchmarks.metrics.quality import QualityRow, over_bicubic
from benchmarks.results import times
from benchmarks.studies.real_faces import REAL_CALIBRATION, DriftRow

REFUSED = ", refused"
THREADS = ", WebAssembly"  # with how many, which docs/browser.md tells apart
PAGES = {  # by a word of the target's name; the first that fits
    "ARM": "docs/arm.md",
    "Web": "docs/browser.md",
    ".js": "docs/browser.md",
    "LiteRT": "docs/phone.md",
    "ncnn": "docs/phone.md",
    "Core ML": "docs/phone.md",
    "TensorRT": "docs/tensorrt.md",
}
HELD_OUT = ("celeba-test", "helen-test", "lfw-test")


def summary_table(
    quality: Sequence[QualityRow], drift: Sequence[DriftRow], measured: Latency
) -> str:
    """Quality on held-out faces, then each artifact's drift, size and speed with one face.

    The paper's networks have their tables in docs/results.md.
    """
    small = [row for row in quality if row.artifact not in PAPER]
    networks = [row for row in small if row.backend == "torch" and row.data in HELD_OUT]
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
    """One line a runtime, of its INT8 file: size, share in INT8, fidelity, drift, where it ran."""
    grouped: dict[str, list[TargetRow]] = {}
    for row in sorted(rows, key=lambda row: "QEMU" in (row.ran_on or "")):  # hardware first
        if not row.target.endswith(REFUSED):
            runtime = row.target.partition(THREADS)[0]
            grouped.setdefault(runtime, []).append(row)
    columns = ("target", "file", "MB", "in INT8", "fidelity dB", "drift dB (worst face)", "ran on")
    return markdown_table(columns, [_device(target, files) for target, files in grouped.items()])


def _device(target: str, rows: Sequence[TargetRow]) -> tuple[str, ...]:
    int8 = [row for row in rows if row.precision.startswith("int8")] or rows
    first = next((row for row in int8 if row.drift_db is not None), int8[0])
    share = re.search(r"[\d.]+(?= ?% of the multiply-adds)", first.precision)
    same = [row for row in rows if row.file == first.file]
    others = len({row.file for row in rows}) - 1
    return (
        f"[{target}]({_page(target)})",
        f"`{Path(first.file).name}`{f' and {others} more' if others else ''}",
        f"{first.bytes / 1e6:.1f}",
        f"{share[0]} %" if share else "",
        *target_figures(first)[:2],
        _places(same) if first.not_run is None else f"not run: {first.not_run}",
    )


def _page(target: str) -> str:
    return next((page for name, page in PAGES.items() if name in target), "docs/runtime.md")


def _places(rows: Sequence[TargetRow]) -> str:
    """Where rows ran, without a processor's features: "QEMU 7.2.22: cortex-a72, neoverse-n1"."""
    machines: dict[str, list[str]] = {}
    for row in rows:
        machine, _, detail = (row.ran_on or "").split(" (")[0].split(";")[0].partition(", ")
        machines.setdefault(machine, []).append(detail)
    return "; ".join(
        f"{machine}: {', '.join(dict.fromkeys(details))}" if all(details) else machine
        for machine, details in machines.items()
    )
