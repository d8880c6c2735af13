"""The report's charts as inline SVG, drawn in the page's text color."""

import io
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Json = Mapping[str, Any]

INK = "#010203"  # becomes currentColor, so light on a dark page
OURS, BASELINES, LIMIT = "#2a7de1", "#d9822b", "#d64545"
KINDS = (  # colors of the kinds of operator
    "#2a7de1",
    "#7aa8e8",
    "#1b9e8f",
    "#d64545",
    "#d9822b",
    "#b58ae0",
    "#e0b93a",
    "#8a9ba8",
    "#c46fa0",
    "#6f9f4f",
)
WIDTH = 5.2  # inches, legible on a phone
SHOWN_LAYERS = 15
BADGE_DB, NEAR = 6.0, 0.06  # a number's height, and its part of the axis' length
STYLE: Any = {
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color", "grid.color"), INK),
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "grid.alpha": 0.15,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
}


def pareto(points: Sequence[Json], budget_db: float) -> str:
    """Milliseconds (log) and fidelity of each candidate, by its number, and the drift budget."""
    with mpl.rc_context(STYLE):
        figure, axes = _figure(3.6)
        for point, badge_y in zip(points, _apart(points, budget_db), strict=True):
            x, y = point["p50_ms"], point["fidelity_db"]
            color = BASELINES if point["baseline"] else OURS
            axes.plot([x, x], [y, badge_y], color=color, linewidth=1, zorder=1)
            axes.plot(x, y, "o", color=color, markersize=4, zorder=1)
            axes.plot(x, badge_y, "o", color=color, markersize=14)
            axes.annotate(
                str(point["number"]),
                (x, badge_y),
                color="white",
                ha="center",
                va="center",
                weight="bold",
            )
        axes.axhline(budget_db, color=LIMIT, linestyle="--", linewidth=1)
        axes.annotate(
            f"budget {budget_db:.1f} dB",
            (1, budget_db),
            (-2, 4),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            color=LIMIT,
        )
        _log_ms(axes, [point["p50_ms"] for point in points])
        axes.set(xlabel="ms a face", ylabel="fidelity to FP32, dB")
        axes.margins(0.12)
        return svg(figure, "pareto")


def heat_map(cells: Sequence[Json]) -> str:
    """Fidelity of each file in each backend; empty where it was not measured."""
    files = list(dict.fromkeys(cell["file"] for cell in cells))
    backends = list(dict.fromkeys(cell["backend"] for cell in cells))
    with mpl.rc_context(STYLE):
        figure, axes = _figure(0.6 + 0.42 * len(files))
        for cell in cells:
            x, y = backends.index(cell["backend"]), files.index(cell["file"])
            good = min(max((cell["fidelity_db"] - 40) / 60, 0), 1)
            color = mpl.colormaps["YlGnBu"](0.15 + 0.75 * good)
            axes.add_patch(mpl.patches.Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, color=color))
            ink = "white" if good > 0.5 else "black"
            mark = "" if cell["passed"] else ", over budget"
            text = f"{cell['fidelity_db']:.1f} dB{mark}"
            axes.annotate(text, (x, y), ha="center", va="center", color=ink)
        axes.set(xlim=(-0.5, len(backends) - 0.5), ylim=(len(files) - 0.5, -0.5))
        axes.set_xticks(range(len(backends)), backends)
        axes.set_yticks(range(len(files)), files)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.grid(visible=False)
        return svg(figure, "heat-map")


def sensitivity(layers: Sequence[Json]) -> str:
    """The share of the total error of each layer alone in INT8, for the most sensitive layers."""
    errors = [10 ** (-layer["fidelity_db"] / 10) for layer in layers]
    shown = layers[:SHOWN_LAYERS]
    with mpl.rc_context(STYLE):
        figure, axes = _figure(0.7 + 0.24 * len(shown))
        for place, (layer, error) in enumerate(zip(shown, errors, strict=False)):
            share = 100 * error / sum(errors)
            axes.barh(place, share, color=OURS)
            axes.annotate(f" {layer['fidelity_db']:.0f} dB", (share, place), va="center")
        axes.set_yticks(range(len(shown)), [layer["layer"] for layer in shown])
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set(xlabel="% of the error of all layers")
        return svg(figure, "sensitivity")


def where_time_goes(profiles: Sequence[Json]) -> str:
    """A bar for each artifact, split by kind of operator; a kind has the same color in all."""
    kinds = list(dict.fromkeys(share["kind"] for one in profiles for share in one["kinds"]))
    with mpl.rc_context(STYLE):
        figure, axes = _figure(1.5 + 0.4 * len(profiles) + 0.1 * len(kinds))
        for place, one in enumerate(profiles):
            left = 0.0
            for share in one["kinds"]:
                number = kinds.index(share["kind"])
                label = share["kind"] if share["kind"] not in _labels(axes) else None
                color = KINDS[number % len(KINDS)]
                axes.barh(place, share["ms"], left=left, color=color, label=label)
                left += share["ms"]
            axes.annotate(f" {left:.1f} ms", (left, place), va="center")
        axes.set_yticks(range(len(profiles)), [one["artifact"].split("/")[-1] for one in profiles])
        axes.invert_yaxis()
        axes.margins(x=0.14)
        axes.set(xlabel="ms a face, in ONNX Runtime's operators")
        axes.legend(
            ncols=2, frameon=False, loc="upper center", fontsize=8, bbox_to_anchor=(0.4, -0.3)
        )
        return svg(figure, "profile")


def scaling(lines: Sequence[Json]) -> str:
    """Milliseconds a face against the batch size: {label, batches, ms_a_face} for each line."""
    with mpl.rc_context(STYLE):
        figure, axes = _figure(3.2)
        for number, line in enumerate(lines):
            axes.plot(
                line["batches"],
                line["ms_a_face"],
                marker="o",
                color=KINDS[number % len(KINDS)],
                label=line["label"],
                linestyle="--" if line["threads"] == 1 else "-",
            )
        _log_ms(axes, [ms for line in lines for ms in line["ms_a_face"]], vertical=True)
        axes.set_xscale("log", base=2)
        batches = sorted({batch for line in lines for batch in line["batches"]})
        axes.set_xticks(batches, [str(batch) for batch in batches], minor=False)
        axes.set(xlabel="faces in a batch", ylabel="ms a face")
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.22), ncols=2)
        return svg(figure, "scaling")


def svg(figure: Figure, name: str) -> str:
    """Render the figure as an SVG element: no header, ids of its own, the page's text color."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):  # the same data, the same bytes
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return re.sub(r'id="([\w.]+_\d+)"', rf'id="{name}-\1"', text)


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(axis="both")
    return figure, axes


def _apart(points: Sequence[Json], budget_db: float) -> list[float]:
    """Heights at which no numbers overlap: near their points, on their side of the budget."""
    span = math.log(max(p["p50_ms"] for p in points) / min(p["p50_ms"] for p in points)) or 1
    heights: list[float] = []
    for point in points:
        near = [
            height
            for other, height in zip(points, heights, strict=False)
            if abs(math.log(other["p50_ms"] / point["p50_ms"])) < NEAR * span
        ]
        y = point["fidelity_db"]
        heights.append(
            next(
                height
                for height in _around(y)
                if (height >= budget_db) == (y >= budget_db)
                and all(abs(height - other) >= BADGE_DB for other in near)
            )
        )
    return heights


def _around(y: float) -> Iterator[float]:
    yield y
    for step in itertools.count(1):
        yield y - step * BADGE_DB / 2
        yield y + step * BADGE_DB / 2


def _labels(axes: Axes) -> list[str]:
    return [str(label) for label in axes.get_legend_handles_labels()[1]]


def _log_ms(axes: Axes, values: Sequence[float], *, vertical: bool = False) -> None:
    """A logarithmic axis with plain numbers: 1, 2, 5, 10, ..."""
    steps = [step * 10**power for power in range(-2, 5) for step in (1, 2, 5)]
    shown = [step for step in steps if min(values) / 2 <= step <= max(values) * 2]
    names = [f"{step:g}" for step in shown]
    if vertical:
        axes.set_yscale("log")
        axes.set_yticks(shown, names)
        axes.set_yticks([], minor=True)
    else:
        axes.set_xscale("log")
        axes.set_xticks(shown, names)
        axes.set_xticks([], minor=True)
