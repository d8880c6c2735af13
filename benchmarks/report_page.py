"""The report's page: what to deploy on this machine and why, rendered from measurements."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from benchmarks import charts
from benchmarks.astronaut import aligned_astronaut
from benchmarks.harness.baselines import NAMES
from benchmarks.harness.candidates import CALIBRATION
from benchmarks.harness.facts import Facts
from benchmarks.harness.measure import measure_latency
from benchmarks.harness.plan import LatencyPlan
from benchmarks.harness.rows import Latency, LatencyRow, read_latency
from benchmarks.regression import gather
from benchmarks.results import times
from benchmarks.studies.profile import profile
from calib_data.generate import PROBE_STRIP, unstrip
from quantize.sensitivity import sensitivity
from runtime import drift
from runtime.atomic import write_bytes
from runtime.cpu import processor, usable_cores
from runtime.errors import EdgeError
from runtime.image import Pixels, read_image, shrink, upscale_bicubic
from runtime.manifest import read_manifest
from runtime.progress import Progress, silent
from runtime.session import open_session

TEMPLATE = Path(__file__).with_name("report.html.j2")
SYNTHETIC_FACES = 4
DIFFERENCE_GAIN = 16
# A short measurement leaves out the baselines that take a minute to make.
FAST_BASELINES = tuple(name for name in NAMES if name not in ("torch.compile", "NNCF INT8"))
FAST_SECONDS = 1.0
SCALED = ("torch eager", "fp32.onnx", "int8.onnx")  # whose scaling is drawn
COLUMNS = (
    "candidate",
    "backend",
    "computes in",
    "p50 ms",
    "p95 ms",
    "vs FP32",
    "vs torch eager",
    "of peak",
    "peak MiB",
    "cold start s",
    "MB",
    "fidelity dB",
)

Json = Mapping[str, Any]


@dataclass(frozen=True)
class DeploymentReport:
    path: str
    verdict: str
    notes: tuple[str, ...]


def write_report(
    folder: Path,
    out: Path,
    measured: Path,
    calib: Sequence[str | Path] = (CALIBRATION,),
    checkpoint: str | Path | None = None,
    progress: Progress = silent,
) -> DeploymentReport:
    """Write the report of the artifacts in a folder; EdgeError if fp32.onnx is not found."""
    fp32 = folder / "fp32.onnx"
    paths = sorted(folder.glob("*.onnx"))
    found = gather(paths, progress) if fp32.is_file() else ()
    if not found:
        raise EdgeError(f"{fp32}: not found. Create it with: make demo")
    notes: list[str] = []
    latency = find_latency(measured, folder, notes)
    if latency is None:
        latency = measure_fast(paths, checkpoint, progress)
    notes += [note for note in latency.notes if "busy" in note]
    small = folder / "int8.onnx" if (folder / "int8.onnx").is_file() else fp32
    progress("profiling")
    profiles = [asdict(profile(path)) for path in dict.fromkeys((fp32, small))]
    progress("measuring the sensitivity of each layer")
    layers = [asdict(layer) for layer in sensitivity(fp32, calib, progress=progress).layers]
    progress("upscaling faces")
    manifest = read_manifest(fp32)
    budget_db = drift.BUDGET_DB
    if manifest.psnr_y is not None:
        budget_db = drift.budget_fidelity_db(manifest.psnr_y, manifest.max_drop_db)
    rows = [row for row in latency.one_face() if row.model == manifest.model]
    verdict = what_to_deploy(rows, budget_db, busy=latency.busy)
    points = number(rows)
    lines = scaling_lines([row for row in latency.rows if row.model == manifest.model])
    page = render(
        model=manifest.model,
        machine=latency.machine,
        threads=rows[0].threads,
        lr_side=manifest.lr_side,
        verdict=verdict,
        notes=notes,
        columns=COLUMNS,
        points=points,
        charts={
            "pareto": charts.pareto(points, budget_db),
            "heat_map": charts.heat_map(heat_cells(found)),
            "profile": charts.where_time_goes(profiles),
            "sensitivity": charts.sensitivity(layers),
            "scaling": charts.scaling(lines) if lines else "",
        },
        layer_count=len(layers),
        faces=draw_faces(fp32, small),
        small_name=read_manifest(small).precision.upper(),
        facts=[fact_cells(one) for one in found],
        about=about(latency),
    )
    write_bytes(out, page.encode())
    return DeploymentReport(str(out), verdict, tuple(notes))


def render(**content: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template(TEMPLATE.name).render(content)


def find_latency(path: Path, folder: Path, notes: list[str]) -> Latency | None:
    """Read what benchmarks.latency wrote, if it measured these files on this processor."""
    if not path.is_file():
        return None
    latency = read_latency(path)
    here = {read_manifest(file).sha256 for file in folder.glob("*.onnx")}
    same = all(row.sha256 in here for row in latency.rows if not row.baseline)
    where = latency.machine.processor
    if where != processor() or not latency.rows or not same:
        other = "other files" if where == processor() else where
        notes.append(f"{path} is of {other}: speed was measured anew, for a short time.")
        return None
    return latency


def measure_fast(
    paths: Sequence[Path], checkpoint: str | Path | None, progress: Progress
) -> Latency:
    """Measure one face on all cores for a short time, with the baselines that are fast to make."""
    plan = LatencyPlan((1,), (usable_cores(),), FAST_SECONDS, cold_starts=1)
    return measure_latency(
        paths, baselines=FAST_BASELINES, plan=plan, checkpoint=checkpoint, progress=progress
    )


def number(rows: Sequence[LatencyRow]) -> list[dict[str, Any]]:
    """Number the rows from the fastest, each with its cells in the order of COLUMNS."""
    ordered = sorted(rows, key=lambda row: row.p50_ms)
    return [
        {**asdict(row), "number": place, "cells": cells(row)}
        for place, row in enumerate(ordered, 1)
    ]


def cells(row: LatencyRow) -> tuple[str, ...]:
    return (
        row.file,
        row.backend,
        row.precision,
        f"{row.p50_ms:.2f}",
        f"{row.p95_ms:.2f}",
        times(row.speedup_vs_fp32),
        times(row.speedup_vs_eager),
        "" if row.share_of_peak is None else f"{row.share_of_peak:.0%}",
        f"{row.peak_mib:.0f}",
        f"{row.cold_start_ms / 1e3:.2f}",
        f"{row.bytes / 1e6:.1f}",
        f"{row.fidelity_db:.1f}",
    )


def what_to_deploy(rows: Sequence[LatencyRow], budget_db: float, *, busy: bool) -> str:
    """Name the fastest artifact within the budget, in figures that the table shows too.

    A busy machine gives no speed-up.
    """
    within = [row for row in rows if row.fidelity_db >= budget_db]
    ours = min((r for r in within if not r.baseline), key=lambda r: r.p50_ms, default=None)
    if ours is None:
        return "Deploy nothing yet: no artifact meets the drift budget on this machine."
    speedups = [
        f"{times(speedup)} {reference}"
        for speedup, reference in (
            (ours.speedup_vs_fp32, f"FP32 in {ours.backend}"),
            (ours.speedup_vs_eager, "torch eager"),
        )
        if speedup is not None and speedup != 1.0 and not busy
    ]
    speed = ", ".join([f"{ours.p50_ms:.2f} ms a face", *speedups])
    verdict = (
        f"Deploy {ours.file} in {ours.backend}: {speed}; {ours.bytes / 1e6:.1f} MB,"
        f" {ours.fidelity_db:.1f} dB to FP32 where the budget asks for {budget_db:.1f}."
    )
    if busy:
        return f"{verdict} The machine was busy, so no speed-up is given."
    theirs = min((r for r in within if r.baseline), key=lambda r: r.p50_ms, default=None)
    if theirs is None:
        return verdict
    return (
        f"{verdict} The fastest off-the-shelf baseline within the budget, {theirs.name}, takes"
        f" {theirs.p50_ms:.2f} ms at {theirs.bytes / 1e6:.1f} MB."
    )


def heat_cells(found: Sequence[Facts]) -> list[Json]:
    return [
        {
            "file": one.artifact.split("/")[-1],
            "backend": one.backend,
            "fidelity_db": one.fidelity_db,
            "passed": one.passed,
        }
        for one in found
    ]


def fact_cells(one: Facts) -> Json:
    drift_db = one.expected_drift_db
    return {
        **asdict(one),
        "drift": "" if drift_db is None else f"{drift_db:.3f} dB",
        "share": "" if one.int8_mac_share is None else f"{one.int8_mac_share:.1%}",
        "megabytes": f"{one.bytes / 1e6:.1f}",
    }


def scaling_lines(rows: Sequence[LatencyRow]) -> list[Json]:
    """Time a face against the batch size, for some candidates on each number of threads."""
    found: dict[tuple[str, int], list[tuple[int, float]]] = {}
    for row in rows:
        if row.file in SCALED and row.backend != "openvino":
            point = (row.batch, row.p50_ms / row.batch)
            found.setdefault((row.file, row.threads), []).append(point)
    return [
        {
            "label": f"{name}, {threads} thread{'' if threads == 1 else 's'}",
            "threads": threads,
            "batches": [batch for batch, _ in points],
            "ms_a_face": [ms for _, ms in points],
        }
        for (name, threads), points in found.items()
        if len(points) > 1
    ]


def draw_faces(fp32: Path, small: Path) -> list[Json]:
    """Input, bicubic, FP32, the small artifact and their difference, as data URIs."""
    side = read_manifest(fp32).lr_side
    lrs = (shrink(aligned_astronaut(), side), *unstrip(read_image(PROBE_STRIP))[:SYNTHETIC_FACES])
    names = ("the astronaut", *(f"synthetic face {i + 1}" for i in range(SYNTHETIC_FACES)))
    with open_session(fp32) as full, open_session(small) as reduced:
        return [
            _images(name, lr, full.upscale(lr), reduced.upscale(lr))
            for name, lr in zip(names, lrs, strict=True)
        ]


def _images(name: str, lr: Pixels, full: Pixels, small: Pixels) -> Json:
    difference = np.abs(full.astype(int) - small) * DIFFERENCE_GAIN
    images = {
        "input": lr,
        "bicubic": upscale_bicubic(lr),
        "fp32": full,
        "small": small,
        "difference": np.minimum(difference, 255).astype(np.uint8),
    }
    return {"name": name, **{kind: data_uri(pixels) for kind, pixels in images.items()}}


def data_uri(pixels: Pixels) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def about(latency: Latency) -> list[tuple[str, str]]:
    """The machine and the versions, as name and value."""
    where = latency.machine
    reached = [
        (
            f"peak, {peak.precision}, {peak.threads} threads",
            f"{peak.gmacs_per_s:.0f} G multiply-adds a second ({peak.reached_by})",
        )
        for peak in latency.peaks
    ]
    return [
        ("processor", where.processor),
        ("cores", str(where.cores)),
        ("system", where.system),
        ("load average", ", ".join(f"{average:.1f}" for average in where.load_average)),
        ("background CPU load", f"{latency.background_share:.0%}"),
        ("commit", str(where.commit)),
        ("Python", where.python),
        *where.versions.items(),
        *reached,
    ]
