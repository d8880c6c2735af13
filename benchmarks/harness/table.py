"""What benchmarks.latency measured, as a table for a terminal and as Markdown; from its JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runtime.atomic import write_bytes

Measured = Mapping[str, Any]  # the JSON object of benchmarks.latency
COLUMNS = (
    *("contender", "backend", "computes in", "p50 ms", "p95", "p99", "faces/s", "times eager"),
    *("times best peer", "of limit", "peak MiB", "cold start s", "MB", "fidelity dB"),
)


def write_measured(out: Path, content: Measured, page: str) -> None:
    """The JSON to `out`, and the page made of it beside it, as F.md."""
    write_bytes(out, f"{json.dumps(content, indent=1)}\n".encode())
    write_bytes(out.with_suffix(".md"), page.encode())


def cells(row: Measured) -> tuple[str, ...]:
    """A row as text, in the order of COLUMNS."""
    limit = row["share_of_limit"]
    return (
        row["name"],
        row["backend"],
        row["precision"],
        f"{row['p50_ms']:.2f}",
        f"{row['p95_ms']:.2f}",
        f"{row['p99_ms']:.2f}",
        f"{row['faces_per_s']:.0f}",
        _ratio(row["ratio_to_eager"]),
        _ratio(row["ratio_to_best_peer"]),
        "" if limit is None else f"{limit:.0%}",
        f"{row['peak_mib']:.0f}",
        f"{row['cold_start_ms'] / 1e3:.2f}",
        f"{row['bytes'] / 1e6:.1f}",
        f"{row['fidelity_db']:.1f}",
    )


def table(measured: Measured) -> str:
    """For a terminal: a block for each model, batch and number of threads."""
    blocks = [about(measured)]
    for title, rows in groups(measured["rows"]):
        lines = [COLUMNS, *map(cells, rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        body = "\n".join(
            "  ".join(
                cell.ljust(width) if place < 3 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        )
        blocks.append(f"{title}\n{body}")
    return "\n\n".join([*blocks, *(f"note: {note}" for note in measured["notes"])])


def markdown(measured: Measured) -> str:
    """A page with the same tables."""
    blocks = [f"# Latency\n\nWritten by `python -m benchmarks.latency`. {about(measured)}"]
    blocks += [f"**{note}**" for note in measured["notes"]]
    for title, rows in groups(measured["rows"]):
        lines = [COLUMNS, ("---",) * len(COLUMNS), *map(cells, rows)]
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        blocks.append(f"## {title}\n\n{body}")
    return "\n\n".join(blocks) + "\n"


def about(measured: Measured) -> str:
    """The machine, its limits and how long was measured, in sentences."""
    where = measured["machine"]
    versions = ", ".join(f"{tool} {version}" for tool, version in where["versions"].items())
    reached = "; ".join(
        f"{limit['gmacs_per_s']:.0f} G {limit['precision']} on {_threads(limit['threads'])}"
        f" ({limit['reached_by']})"
        for limit in measured["limits"]
    )
    return (
        f"{where['processor']}, {where['cores']} cores, load average"
        f" {where['load_average'][0]:.1f} at the start, {where['date']}, commit {where['commit']},"
        f" Python {where['python']}, {versions}. About {measured['seconds']:g} s a row."
        f" Multiply-adds a second at most: {reached}."
    )


def groups(rows: Sequence[Measured]) -> list[tuple[str, list[Measured]]]:
    """Rows that can be compared, with a title; in the order in which they were measured."""
    found: dict[str, list[Measured]] = {}
    for row in rows:
        title = f"{row['model']}, batch {row['batch']}, {_threads(row['threads'])}"
        found.setdefault(title, []).append(row)
    return list(found.items())


def _threads(count: int) -> str:
    return f"{count} thread{'' if count == 1 else 's'}"


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}x"
