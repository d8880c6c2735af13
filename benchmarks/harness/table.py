"""Tables as Markdown and as aligned text, from rows of cells."""

from collections.abc import Iterable, Sequence

Cells = Sequence[str]


def markdown_table(columns: Cells, rows: Iterable[Cells]) -> str:
    """Return a Markdown table; a column of figures is aligned to the right."""
    body = [tuple(row) for row in rows]
    rule = ["---:" if _is_figures(column) else "---" for column in _transpose(body, len(columns))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (columns, rule, *body))


def text_table(columns: Cells, rows: Iterable[Cells]) -> str:
    """Return a table for a terminal; a column of figures is aligned to the right."""
    body = [tuple(row) for row in rows]
    lines = [tuple(columns), *body]
    right = [_is_figures(column) for column in _transpose(body, len(columns))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if figures else cell.ljust(width)
            for cell, width, figures in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def _transpose(rows: Sequence[Cells], width: int) -> list[tuple[str, ...]]:
    return list(zip(*rows, strict=True)) if rows else [()] * width


def _is_figures(column: Cells) -> bool:
    """Whether each cell that is not empty begins like a number."""
    filled = [cell.strip("*") for cell in column if cell]
    return bool(filled) and all(cell[0].isdigit() or cell[0] in "+-" for cell in filled)
