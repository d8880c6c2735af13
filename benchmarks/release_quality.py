"""The quality of weights to be released: rows, metrics for their file, a table for their card.

16-px models are measured on bicubically shrunk faces, others on the degraded faces of
benchmarks.wild; sharp ones (AMIGAN) beside the natural model of the same network, with LPIPS.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aminet.checkpoint import Checkpoint, weights_path
from aminet.config import LR_SIDE, NATURAL
from benchmarks import wild
from benchmarks.harness.table import markdown_table
from benchmarks.metrics.quality import QualityRow, measure_quality, over_bicubic, quality_table
from benchmarks.metrics.wild_upscalers import bicubic_frames, checkpoint_frames
from runtime.errors import EdgeError

LPIPS_SHARE, MAX_DROP_DB = 0.75, 1.2  # of sharp weights: LPIPS at most, PSNR-Y lost at most


@dataclass(frozen=True)
class Measured:
    """Rows, and what of them goes into the weights' metadata and the card.

    `natural` are the same metrics of the natural model, where sharp weights were measured.
    """

    rows: tuple[QualityRow, ...] | tuple[wild.WildRow, ...]
    metrics: Mapping[str, float]
    table: str
    decides: str  # the metric in which the committed weights must be beaten
    natural: Mapping[str, float] = field(default_factory=dict)

    @property
    def fidelity(self) -> str:
        """The PSNR-Y, or its gain, that sharp weights may lose MAX_DROP_DB of."""
        data, _, _ = self.decides.partition("/")
        return next(name for name in (f"{data}/psnr_y", f"{data}/gain") if name in self.metrics)


def measure_weights(
    weights: Path, trained: Checkpoint, data: Sequence[str | Path], faces: int | None
) -> Measured:
    """Measure weights in the way of their model; `faces` limits the degraded faces of each set."""
    model = trained.model
    natural = weights_path(NATURAL[model]) if model in NATURAL else None
    if natural is not None and not natural.is_file():
        raise EdgeError(f"{natural}: not found; {model} is measured beside it: release that first")
    if trained.config.lr_side == LR_SIDE:
        return _on_shrunk(weights, model, natural, data)
    return _on_degraded(weights, model, natural, data, faces)


def _on_shrunk(
    weights: Path, model: str, natural: Path | None, data: Sequence[str | Path]
) -> Measured:
    """Measure on bicubically shrunk faces: `celeba-val/psnr_y` and the like."""
    if natural is None:
        rows = measure_quality(data, checkpoints=[weights]).rows
        return Measured(rows, _of_rows(rows, model), quality_table(rows), f"{rows[0].data}/psnr_y")
    _require_lpips()
    rows = measure_quality(data, checkpoints=[natural, weights], metrics=["lpips"]).rows
    return Measured(
        rows,
        _of_rows(rows, model),
        _sharp_table(rows),
        f"{rows[0].data}/lpips",
        _of_rows(rows, NATURAL[model]),
    )


def _of_rows(rows: Sequence[QualityRow], model: str) -> dict[str, float]:
    """Of a model: PSNR-Y, SSIM-Y and, where it was measured, LPIPS on each data set."""
    metrics: dict[str, float] = {}
    for row in (row for row in rows if row.artifact == model):
        metrics[f"{row.data}/psnr_y"] = round(row.psnr_y, 4)
        metrics[f"{row.data}/ssim_y"] = round(row.ssim_y, 5)
        if row.lpips is not None:
            metrics[f"{row.data}/lpips"] = round(row.lpips, 4)
    return metrics


def _sharp_table(rows: Sequence[QualityRow]) -> str:
    """Markdown: bicubic, the natural and the sharp model on each data set."""
    lines = [
        (
            *(row.data, str(row.n), row.artifact, f"{row.psnr_y:.2f}", over_bicubic(row)),
            *(f"{row.ssim_y:.3f}", f"{row.lpips:.3f}"),
        )
        for data in dict.fromkeys(row.data for row in rows)
        for row in rows
        if row.data == data
    ]
    columns = ("data", "faces", "network", "PSNR-Y dB", "gain (95 %)", "SSIM-Y", "LPIPS")
    return markdown_table(columns, lines)


def _on_degraded(
    weights: Path,
    model: str,
    natural: Path | None,
    data: Sequence[str | Path],
    faces: int | None,
) -> Measured:
    """Measure on degraded faces: `celeba-val/gain/dark-16`, dB over bicubic, and the mean."""
    if natural is None:
        with bicubic_frames() as bicubic, checkpoint_frames(weights) as network:
            rows = wild.wild(data, [bicubic, network], faces=faces).rows
        return Measured(rows, _of_cells(rows, model), wild.gain_table(rows), f"{rows[0].data}/gain")
    _require_lpips()
    with (
        bicubic_frames() as bicubic,
        checkpoint_frames(natural) as first,
        checkpoint_frames(weights) as network,
    ):
        rows = wild.wild(data, [bicubic, first, network], faces=faces, metrics=["lpips"]).rows
    return Measured(
        rows,
        _of_cells(rows, model),
        wild.table(rows, ("gain", "lpips")),
        f"{rows[0].data}/lpips",
        _of_cells(rows, NATURAL[model]),
    )


def _of_cells(rows: Sequence[wild.WildRow], model: str) -> dict[str, float]:
    """Of a model: the gain and, where it was measured, LPIPS, in the mean and of each cell."""
    metrics: dict[str, float] = {}
    here = [row for row in rows if row.upscaler == model]
    for data in dict.fromkeys(row.data for row in here):
        cells = [row for row in here if row.data == data]
        for name in ("gain", "lpips"):
            values = {f"{row.kind}-{row.size}": getattr(row, name) for row in cells}
            if None in values.values():
                continue
            metrics[f"{data}/{name}"] = round(sum(values.values()) / len(values), 4)
            metrics |= {f"{data}/{name}/{cell}": round(v, 4) for cell, v in values.items()}
    return metrics


def _require_lpips() -> None:
    from aminet.training.lpips import LPIPS

    LPIPS.load()
