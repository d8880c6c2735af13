"""The published tables: each function renders rows of docs/measured/*.json as Markdown.

`python -m benchmarks.publish` writes them into README.md and docs/*.md. No figure of ours is typed
by hand; what was not measured has no row.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from aminet.checkpoint import load_checkpoint, weights_path
from aminet.config import LR_SIDE, MODELS, NATURAL
from aminet.info import Cost, ModelInfo, info
from benchmarks.harness.machine import Machine
from benchmarks.harness.rows import Latency, LatencyRow
from benchmarks.harness.table import markdown_table, text_table
from benchmarks.metrics.quality import QualityRow, over_bicubic, quality_table
from benchmarks.studies.ablation import Ablation
from benchmarks.studies.coldstart import ColdStart
from benchmarks.studies.profile import ArtifactProfile
from benchmarks.studies.quantizers import QuantizerComparison
from benchmarks.studies.real_faces import REAL_CALIBRATION, DriftRow

QUALITY = {  # a column's title and format
    "psnr_y": ("PSNR-Y", "{:.2f}"),
    "ssim_y": ("SSIM-Y", "{:.4f}"),
    "vif": ("VIF", "{:.4f}"),
    "lpips": ("LPIPS", "{:.4f}"),
    "kid_mobilenetv2": ("KID (MobileNetV2)", "{:.4f}"),
    "identity": ("identity", "{:.3f}"),
}
# The paper's Tables VII and IX; its images are framed and split otherwise than ours.
PAPER_QUALITY: dict[str, dict[str, tuple[float, ...]]] = {
    "CelebA": {
        "bicubic": (23.61, 0.6779, 0.1821, 0.4899),
        "SPARNet": (27.73, 0.7949, 0.4505, 0.1995),
        "SFMNet": (27.96, 0.7996, 0.4644, 0.1937),
        "AMINet": (28.26, 0.8091, 0.4893, 0.1755),
    },
    "Helen": {
        "bicubic": (22.95, 0.6762, 0.1745, 0.4912),
        "SPARNet": (26.43, 0.7839, 0.4262, 0.2674),
        "SFMNet": (26.86, 0.7987, 0.4573, 0.2322),
        "AMINet": (27.01, 0.8042, 0.4694, 0.2067),
        "AMIGAN": (26.35, 0.7769, 0.4101),  # Table IX; its LPIPS is not given
    },
}
PAPER_COST = {"aminet": (15.6, 15.6), "aminet-s": (8.2, 9.4)}  # M parameters, G multiply-adds
PAPER_DATA = {"celeba-test": "CelebA", "helen-test": "Helen"}
TOOLS = ("torch", "onnxruntime", "openvino", "nncf")
LATENCY_COLUMNS = (
    *("candidate", "backend", "computes in", "p50 ms", "p95 ms", "p99 ms", "faces/s"),
    *("vs FP32", "vs torch eager", "vs best baseline", "of peak", "peak MiB", "cold start s"),
    *("MB", "fidelity dB"),
)
SPEED_COLUMNS = (
    *("backend", "computes in", "p50 ms", "p95 ms", "vs FP32"),
    *("vs torch eager", "peak MiB", "cold start s", "MB", "fidelity dB"),
)


def speed_table(measured: Latency) -> str:
    """One face on all cores, the fastest first, with a sentence on the machine."""
    rows = measured.one_face()
    return (
        f"{measured.machine.processor}, {rows[0].threads} threads, {measured.machine.date};"
        f" {tool_versions(measured.machine.versions)}. Our artifacts are bold; the others are"
        f" off-the-shelf baselines: the same network in other tools with their default settings."
        f"{busy_notes(measured)}\n\n{_speeds('one face at a time', rows)}"
    )


def server_speed_tables(measured: Latency) -> str:
    """The table of one face, and below it one of eight at once."""
    return f"{speed_table(measured)}\n\n{_speeds('eight at once', measured.faces_at_once(8))}"


def _speeds(title: str, rows: Sequence[LatencyRow]) -> str:
    return markdown_table((title, *SPEED_COLUMNS), map(_speed_cells, rows))


def latency_tables(measured: Latency) -> str:
    """All rows: a Markdown table for each model, batch size and number of threads."""
    blocks = [f"{about(measured)}{busy_notes(measured)}"]
    for title, rows in comparable(measured.rows):
        blocks.append(f"### {title}\n\n{markdown_table(LATENCY_COLUMNS, map(_cells, rows))}")
    return "\n\n".join(blocks)


def latency_text(measured: Latency) -> str:
    """All rows for a terminal."""
    blocks = [about(measured)]
    for title, rows in comparable(measured.rows):
        blocks.append(f"{title}\n{text_table(LATENCY_COLUMNS, map(_cells, rows))}")
    return "\n\n".join(blocks)


def roofline_table(measured: Latency) -> str:
    """What share of the machine's peak throughput our artifacts reach with one face."""
    peaks = [
        (peak.precision, _threads(peak.threads), f"{peak.gmacs_per_s:.0f}", peak.reached_by)
        for peak in measured.peaks
    ]
    rows = [
        (
            *(row.name, row.backend, str(row.threads)),
            f"{row.p50_ms * row.share_of_peak:.1f}",
            f"{row.p50_ms:.1f}",
            f"{1 / row.share_of_peak:.1f}",
        )
        for row in measured.rows
        if row.share_of_peak and row.batch == 1 and not row.baseline
    ]
    columns = ("file", "backend", "threads", "ms at peak", "p50 ms", "times the ms at peak")
    return "\n\n".join(
        [
            markdown_table(("precision", "threads", "G multiply-adds/s", "reached by"), peaks),
            markdown_table(columns, rows),
        ]
    )


def about(measured: Latency) -> str:
    """One sentence each on the machine, the run and the peak throughput."""
    where = measured.machine
    reached = "; ".join(
        f"{peak.gmacs_per_s:.0f} G {peak.precision} on {_threads(peak.threads)} ({peak.reached_by})"
        for peak in measured.peaks
    )
    return (
        f"{where.processor}, {where.cores} cores, load average {where.load_average[0]:.1f} at the"
        f" start, {where.date}, commit {where.commit}, Python {where.python},"
        f" {', '.join(f'{tool} {version}' for tool, version in where.versions.items())}. About"
        f" {measured.seconds:g} s a row. Peak throughput in multiply-adds a second: {reached}."
    )


def busy_notes(measured: Latency) -> str:
    """The notes about a busy machine as bold paragraphs; "" on an idle one."""
    return "".join(f"\n\n**{note}**" for note in measured.notes if "busy" in note)


def comparable(rows: Sequence[LatencyRow]) -> list[tuple[str, list[LatencyRow]]]:
    """Rows that compare with each other, with a title, in the order of measurement."""
    found: dict[str, list[LatencyRow]] = {}
    for row in rows:
        title = f"{row.model}, batch {row.batch}, {_threads(row.threads)}"
        found.setdefault(title, []).append(row)
    return list(found.items())


def tool_versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{tool} {versions[tool]}" for tool in TOOLS if tool in versions)


def _cells(row: LatencyRow) -> tuple[str, ...]:
    """A row as text, in the order of LATENCY_COLUMNS."""
    return (
        *(row.name, row.backend, row.precision),
        *(f"{ms:.2f}" for ms in (row.p50_ms, row.p95_ms, row.p99_ms)),
        f"{row.faces_per_s:.0f}",
        *map(times, (row.speedup_vs_fp32, row.speedup_vs_eager, row.speedup_vs_best_baseline)),
        "" if row.share_of_peak is None else f"{row.share_of_peak:.0%}",
        f"{row.peak_mib:.0f}",
        f"{row.cold_start_ms / 1e3:.2f}",
        f"{row.bytes / 1e6:.1f}",
        f"{row.fidelity_db:.1f}",
    )


def _speed_cells(row: LatencyRow) -> tuple[str, ...]:
    return (
        row.name if row.baseline else f"**{row.name}**",
        *(row.backend, row.precision, f"{row.p50_ms:.2f}", f"{row.p95_ms:.2f}"),
        *(times(row.speedup_vs_fp32), times(row.speedup_vs_eager), f"{row.peak_mib:.0f}"),
        *(f"{row.cold_start_ms / 1e3:.2f}", f"{row.bytes / 1e6:.1f}", f"{row.fidelity_db:.1f}"),
    )


def times(speedup: float | None) -> str:
    """'2.10x', or "" where nothing was compared."""
    return "" if speedup is None else f"{speedup:.2f}x"


def _threads(count: int) -> str:
    return f"{count} thread{'' if count == 1 else 's'}"


def network_quality(rows: Sequence[QualityRow]) -> str:
    """The quality of the networks in PyTorch; a heading for each if there are several."""
    bicubic = [row for row in rows if row.backend == "pillow"]
    networks: dict[str, list[QualityRow]] = {}
    for row in rows:
        if row.backend == "torch":
            networks.setdefault(row.artifact, []).append(row)
    tables = {model: quality_table([*bicubic, *found]) for model, found in networks.items()}
    if len(tables) == 1:
        return next(iter(tables.values()))
    return "\n\n".join(f"### {model}\n\n{table}" for model, table in tables.items())


def paper_tables(rows: Sequence[QualityRow]) -> str:
    """Tables VII and IX: each data set with all metrics, the paper's figures beside ours."""
    return "\n\n".join(_paper_table(name, rows) for name in _ordered(row.data for row in rows))


def _paper_table(data: str, rows: Sequence[QualityRow]) -> str:
    ours = [row for row in rows if row.data == data]
    names = [name for name in QUALITY if any(getattr(row, name) is not None for row in ours)]
    lines = [
        (
            *(f"{row.artifact} ({row.backend})", over_bicubic(row)),
            *(_score(name, getattr(row, name)) for name in names),
        )
        for row in ours
    ]
    paper = PAPER_QUALITY.get(PAPER_DATA.get(data, ""), {})
    for network, scores in paper.items():
        given = dict(zip(("psnr_y", "ssim_y", "vif", "lpips"), scores, strict=False))
        gain = f"{scores[0] - paper['bicubic'][0]:+.2f}"
        lines.append((f"*the paper's {network}*", gain, *(_score(n, given.get(n)) for n in names)))
    columns = ("network", "over bicubic", *(QUALITY[name][0] for name in names))
    return f"### {data}, {ours[0].n} faces\n\n{markdown_table(columns, lines)}"


def _score(name: str, value: float | None) -> str:
    return "" if value is None else QUALITY[name][1].format(value)


def _ordered(names: Iterable[str]) -> list[str]:
    """Each name once, the paper's data sets first."""
    once = list(dict.fromkeys(names))
    first = list(PAPER_DATA)
    return sorted(once, key=lambda name: first.index(name) if name in first else len(first))


def drift_table(drift: Sequence[DriftRow], measured: Latency | None) -> str:
    """What FP16 and INT8 lose on real faces, and their speed-up where the file was timed."""
    timed_rows = measured.one_face() if measured else []
    speed = {(row.name, row.backend): row.speedup_vs_fp32 for row in timed_rows}
    lines = []
    for row in drift:
        timed = row.calibrated_with != REAL_CALIBRATION and not row.emulated
        share = row.int8_mac_share
        lines.append(
            (
                row.artifact,
                row.backend + (" (proxy for TensorRT)" if row.emulated else ""),
                row.calibrated_with,
                *(_decibels(row.drift_db), _decibels(row.worst_drift_db)),
                "" if share is None else f"{share:.1%}",
                f"{row.share_of_bytes:.2f}x",
                times(speed.get((row.artifact, row.backend))) if timed else "",
            )
        )
    columns = (
        *("file", "backend", "ranges from", "drift dB", "worst face dB", "in INT8"),
        *("size vs FP32", "speed vs FP32"),
    )
    return markdown_table(columns, lines)


def models_table() -> str:
    return describe_models([info(model) for model in MODELS])


def describe_models(models: Sequence[ModelInfo]) -> str:
    """What each model costs, and the quality of its weights."""
    lines = []
    for model in models:
        weights = "not trained yet"
        if model.psnr_y is not None:
            trained = f", after {model.minutes:.0f} min"
            if model.device == "cpu" and model.model in PAPER_COST:
                trained += " on a CPU (the paper's needs a GPU)"
            config = MODELS.get(model.model)
            faces = "degraded faces of " if config and config.lr_side != LR_SIDE else ""
            lpips = "" if model.lpips is None else f", LPIPS {model.lpips:.3f}"
            weights = f"{model.psnr_y:.2f} dB PSNR-Y{lpips} on {faces}celeba-val{trained}"
        lines.append((model.model, *_cost(Cost(model.params, model.macs)), weights))
    return markdown_table(("model", "parameters", "multiply-adds", "weights"), lines)


def sharp_table() -> str:
    """The committed sharp weights beside the natural ones, as they were measured at the release."""
    lines = []
    for model, natural in NATURAL.items():
        path = weights_path(model)
        if path.is_file():
            lines += _sharp_lines(model, natural, load_checkpoint(path).metrics)
    columns = ("model", "data", "PSNR-Y", "LPIPS", "beside", "LPIPS of that")
    return markdown_table(columns, lines) if lines else "*No sharp model is trained yet.*"


def _sharp_lines(model: str, natural: str, metrics: Mapping[str, float]) -> list[tuple[str, ...]]:
    """A line a data set: PSNR-Y against the natural model's, and LPIPS of both."""
    lines: list[tuple[str, ...]] = []
    for data in [key.split("/")[1] for key in metrics if re.fullmatch("natural/.*/lpips", key)]:
        fidelity = next(n for n in ("psnr_y", "gain") if f"{data}/{n}" in metrics)
        after, before = (metrics[f"{start}{data}/lpips"] for start in ("", "natural/"))
        lost = metrics[f"{data}/{fidelity}"] - metrics[f"natural/{data}/{fidelity}"]
        lpips = f"{after:.3f} ({after / before - 1:+.0%})"
        lines.append((model, data, f"{lost:+.2f} dB", lpips, natural, f"{before:.3f}"))
    return lines


def cost_table() -> str:
    """Table X: parameters and multiply-adds of one face, the paper's beside ours."""
    lines = []
    for name in MODELS:
        model, paper = info(name), PAPER_COST.get(name)
        theirs = f"{paper[0]} M, {paper[1]} G" if paper else ""
        lines.append((name, *_cost(Cost(model.params, model.macs)), theirs))
    return markdown_table(("model", "parameters", "multiply-adds", "*the paper's*"), lines)


def _cost(cost: Cost) -> tuple[str, str]:
    return f"{cost.params / 1e6:.2f} M", f"{cost.macs / 1e9:.2f} G"


def quantizers_table(found: QuantizerComparison) -> str:
    """Post-training quantizers on one network, with a sentence on the faces."""
    real = f"{found.real_faces} real faces" if found.real_faces else "no real faces"
    lines = [
        (
            *(row.quantizer, row.observer, row.backend),
            *(f"{row.fidelity_db:.1f}", f"{row.worst_fidelity_db:.1f}"),
            *(_decibels(row.drift_db), _decibels(row.worst_drift_db)),
            *(f"{row.int8_mac_share:.1%}", f"{row.bytes / 1e6:.1f}"),
        )
        for row in found.rows
    ]
    columns = (
        *("quantizer", "observer", "backend", "fidelity dB", "worst face dB", "drift dB"),
        *("worst drift dB", "in INT8", "MB"),
    )
    return (
        f"{found.model}, calibrated with {found.calibration_faces} faces, drift on {real},"
        f" {found.processor}, {tool_versions(dict(found.versions))}.\n\n"
        f"{markdown_table(columns, lines)}"
    )


def _decibels(drift_db: float | None) -> str:
    return "" if drift_db is None else f"{round(drift_db, 3) + 0.0:.3f}"  # no -0.000


def ablation_table(found: Ablation) -> str:
    """What each block of a network is worth."""
    lines = [
        (
            *(f"`{row.block}`", row.kind, f"{row.params / 1e6:.2f} M", f"{row.macs / 1e6:.0f} M"),
            _decibels(row.lost_db),
        )
        for row in found.rows
    ]
    columns = ("left out", "kind", "parameters", "multiply-adds", "PSNR-Y lost, dB")
    return (
        f"{found.model}, {found.psnr_y:.2f} dB PSNR-Y on {found.faces} faces of"
        f" {', '.join(found.data)}.\n\n{markdown_table(columns, lines)}"
    )


def coldstart_table(found: ColdStart) -> str:
    """Cold start of `runtime.infer`, with a sentence on the machine."""
    lines = [
        (row.case, f"{row.p50_s:.2f}", f"{row.p95_s:.2f}", f"{row.peak_mib:.0f}")
        for row in found.rows
    ]
    return (
        f"{found.artifact} ({found.precision}) in {found.backend}, {found.runs} starts of each,"
        f" {found.cores} cores of {found.processor}.\n\n"
        f"{markdown_table(('start', 'p50 s', 'p95 s', 'peak MiB'), lines)}"
    )


def profile_table(profiles: Sequence[ArtifactProfile], where: Machine) -> str:
    """Time of one face by kind of operator, a column for each artifact; operators in brackets."""
    kinds = list(dict.fromkeys(share.kind for one in profiles for share in one.kinds))
    lines = []
    for kind in kinds:
        found = [next((s for s in one.kinds if s.kind == kind), None) for one in profiles]
        lines.append((kind, *(f"{s.ms:.2f} ({s.nodes})" if s else "" for s in found)))
    lines.append(("sum", *(f"{one.total_ms:.2f}" for one in profiles)))
    table = markdown_table(("kind", *(f"{one.artifact}, ms" for one in profiles)), lines)
    return f"{where.processor}, {where.cores} cores, {where.date}.\n\n{table}"
