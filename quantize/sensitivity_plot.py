"""The plot of quantize.sensitivity: a bar for each layer, as long as its share of the error."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from quantize.options import PLOT_SUFFIXES
from runtime.atomic import writing
from runtime.errors import EXIT_USAGE, EdgeError, needs

if TYPE_CHECKING:
    from quantize.sensitivity import LayerSensitivity, Sensitivity

SHOWN = 30  # layers
INT8_COLOR, FP32_COLOR = "#2a7de1", "#d9822b"
# The same file for the same figures: no date, no version.
METADATA: Mapping[str, dict] = {
    "png": {"Software": None},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
}


def check_plot(path: Path) -> None:
    """EdgeError for another kind of file, or without matplotlib: before the minutes of work."""
    if path.suffix.lower() not in PLOT_SUFFIXES:
        raise EdgeError(
            f"--plot {path}: expected a name that ends in {' or '.join(PLOT_SUFFIXES)}", EXIT_USAGE
        )
    with needs("bench"):
        import matplotlib.figure  # noqa: F401


def draw_sensitivity(result: "Sensitivity", path: Path) -> None:
    """Draw the SHOWN most sensitive layers as PNG, SVG or PDF, by the suffix."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    shown = result.layers[:SHOWN]
    figure = Figure(figsize=(9, 1.8 + 0.24 * len(shown)), dpi=120, layout="constrained")
    axes = figure.subplots()
    shares = [100 * layer.error_share for layer in shown]
    colors = [FP32_COLOR if layer.kept_fp32 else INT8_COLOR for layer in shown]
    axes.barh(range(len(shown)), shares, color=colors)
    for place, (layer, share) in enumerate(zip(shown, shares, strict=True)):
        axes.annotate(f" {_label(layer)}", (share, place), va="center", fontsize=7)
    axes.set_yticks(range(len(shown)), [layer.layer for layer in shown], fontsize=7)
    axes.invert_yaxis()
    axes.margins(x=0.3, y=0.01)
    axes.set(xlabel="share of the squared error of all layers, %", ylabel="layer alone in INT8")
    axes.set_title(_title(result, len(shown)), fontsize=9)
    kept = f"kept in FP32 by quantize.int8 --target {result.target}"
    handles = [Patch(color=INT8_COLOR, label="INT8"), Patch(color=FP32_COLOR, label=kept)]
    axes.legend(handles=handles, loc="lower right", fontsize=8)
    kind = path.suffix[1:].lower()
    with writing(path) as temporary:
        figure.savefig(temporary, format=kind, metadata=METADATA[kind])


def _label(layer: "LayerSensitivity") -> str:
    saved = "" if layer.ms_saved is None else f", {layer.ms_saved:.2f} ms saved"
    return f"{layer.fidelity_db:.1f} dB{saved}"


def _title(result: "Sensitivity", shown: int) -> str:
    saved = result.total_ms_saved
    total = "" if saved is None else f", {saved:.1f} ms saved"
    return (
        f"INT8 sensitivity of {result.artifact}, target {result.target}:"
        f" the {shown} most sensitive of {len(result.layers)} layers\n"
        f"all in INT8: {result.total_fidelity_db:.1f} dB to FP32 if their errors add{total}"
    )
