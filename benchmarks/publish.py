"""Write the measured tables into README.md and docs/*.md: `python -m benchmarks.publish`.

A page has a table where it has the markers

    <!-- speed: python -m benchmarks.publish -->
    <!-- end of speed -->

and what stands between them is replaced. The tables come from docs/measured/*.json, which the
benchmarks write (`make bench`), and from the committed weights. `--check` changes nothing and exits
1 if a page differs.
"""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from runtime.atomic import read_bytes, write_bytes
from runtime.errors import EXIT_ERROR, EdgeError, needs, run_command

ROOT, MEASURED = Path(), Path("docs", "measured")
PAGES = ("README.md", "docs/*.md")
BEGIN, END = "<!-- {}: python -m benchmarks.publish -->", "<!-- end of {} -->"
MARKER = re.compile(BEGIN.format(r"([\w-]+)"))
MAX_BYTES = 8 << 20

Render = Callable[[str], str]  # a table's name -> Markdown


def find_pages(root: Path) -> list[Path]:
    """Return README.md and the pages of docs/ that have markers."""
    found = [path for pattern in PAGES for path in sorted(root.glob(pattern))]
    return [path for path in found if MARKER.search(_read(path))]


def insert_tables(page: str, name: str, render: Render) -> str:
    """Return the page with its tables; EdgeError for a table without an end."""
    for table in MARKER.findall(page):
        first, last = BEGIN.format(table), END.format(table)
        before, _, rest = page.partition(first)
        _, end, after = rest.partition(last)
        if not end:
            raise EdgeError(f"{name}: {first} has no end. Add the line {last}")
        page = f"{before}{first}\n{render(table)}\n{last}{after}"
    return page


def publish(root: Path = ROOT, measured: Path = MEASURED, *, write: bool = True) -> list[Path]:
    """Write the tables into all pages; return those that changed, or that would."""
    with needs("train,export,quantize,eval,bench"):
        from benchmarks.published import render

    rendered = cache(lambda table: render(table, root / measured))
    stale = []
    for path in find_pages(root):
        page = _read(path)
        new = insert_tables(page, str(path), rendered)
        if new != page:
            stale.append(path)
            if write:
                write_bytes(path, new.encode())
    return stale


def _read(path: Path) -> str:
    return read_bytes(path, MAX_BYTES).decode()


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    stale = publish(arguments.root, arguments.measured, write=not arguments.check)
    if not arguments.check:
        for path in stale:
            print(path)
        return 0
    for path in stale:
        print(
            f"error: {path}: its tables differ from {arguments.measured}. Write them with:"
            " python -m benchmarks.publish",
            file=sys.stderr,
        )
    return EXIT_ERROR if stale else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.publish", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "--root", type=Path, default=ROOT, metavar="DIR", help="of the pages (default: .)"
    )
    parser.add_argument(
        "--measured",
        type=Path,
        default=MEASURED,
        metavar="DIR",
        help=f"the JSON files, under --root (default: {MEASURED})",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="change nothing, exit 1 if a page differs (default: write)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
