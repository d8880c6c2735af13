"""The table of speed in README.md, from what was measured: `python -m benchmarks.readme`.

Replaces what stands between the two markers, which stay, by the rows of one face on all cores in
docs/measured/latency.json. `--check` changes nothing and exits 1 if README.md says something else.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.latency_tables import cells
from runtime.errors import EXIT_ERROR, EdgeError, run_command
from runtime.files import read_bytes, write_bytes

README, MEASURED = Path("README.md"), Path("docs", "measured", "latency.json")
BEGIN, END = "<!-- speed: python -m benchmarks.readme -->", "<!-- end of speed -->"
MAX_BYTES = 8 << 20
SHOWN = {  # of the columns of latency_tables.COLUMNS, by number
    **{0: "one face at a time", 1: "backend", 2: "computes in", 3: "p50 ms", 4: "p95 ms"},
    **{7: "times torch eager", 10: "peak MiB", 11: "cold start s", 12: "MB", 13: "fidelity dB"},
}
OURS = "**{}**"
TOOLS = ("torch", "onnxruntime", "openvino", "nncf")

Json = Mapping[str, Any]


def insert(page: str, measured: Json, name: str = str(README)) -> str:
    """The page with the table between its markers; EdgeError where they are not."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise EdgeError(f"{name}: has no place for the table; add the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{table(measured)}\n{END}{after}"


def table(measured: Json) -> str:
    """A sentence on the machine, and the rows of one face on all cores, the quickest first."""
    where = measured["machine"]
    threads = max(row["threads"] for row in measured["rows"])
    rows = [r for r in measured["rows"] if (r["batch"], r["threads"]) == (1, threads)]
    rows.sort(key=lambda row: (row["model"], row["p50_ms"]))
    versions = where["versions"]
    tools = ", ".join(f"{tool} {versions[tool]}" for tool in TOOLS if tool in versions)
    lines = [tuple(SHOWN.values()), ("---",) * len(SHOWN), *map(_line, rows)]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    busy = [note for note in measured["notes"] if "busy" in note]
    notes = "".join(f"\n\n**{note}**" for note in busy)
    return (
        f"{where['processor']}, {threads} threads, {where['date']}; {tools}. Ours are bold;"
        f" the others are the same network as a newcomer deploys it.{notes}\n\n{body}"
    )


def _line(row: Json) -> tuple[str, ...]:
    given = cells(row)
    first = given[0] if row["peer"] else OURS.format(given[0])
    return (first, *(given[column] for column in list(SHOWN)[1:]))


def read(path: Path) -> Json:
    try:
        content = json.loads(read_bytes(path, MAX_BYTES))
        content["machine"], content["rows"][0]["p50_ms"]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise EdgeError(
            f"{path}: is not what benchmarks.latency writes; write it again:"
            f" python -m benchmarks.latency --out {path}"
        ) from error
    return dict(content)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.readme", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--readme", type=Path, default=README, metavar="F.md")
    parser.add_argument("--measured", type=Path, default=MEASURED, metavar="F.json")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if it differs")
    arguments = parser.parse_args(argv)
    return run_command(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    page = read_bytes(arguments.readme, MAX_BYTES).decode()
    new = insert(page, read(arguments.measured), str(arguments.readme))
    if not arguments.check:
        write_bytes(arguments.readme, new.encode())
    elif new != page:
        print(
            f"error: {arguments.readme}: its table is not of {arguments.measured}; write it again:"
            " python -m benchmarks.readme",
            file=sys.stderr,
        )
        return EXIT_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main())
