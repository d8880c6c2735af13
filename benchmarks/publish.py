"""The tables of README.md, from what was measured: `python -m benchmarks.publish`.

Replaces what stands between each pair of markers, which stay: the speed of one face on all cores
from docs/measured/latency.json, the quality from quality.json, what the smaller files lose from
drift.json and gain from ratios.json, the models from their weights. `--check` changes nothing and
exits 1 if README.md says something else.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from runtime.errors import EXIT_ERROR, EdgeError, needs, run_command

with needs("train,quantize,eval,bench", __name__):
    from aminet.config import MODELS
    from aminet.info import ModelInfo, info
    from benchmarks.accuracy import Row
    from benchmarks.harness.table import cells
    from benchmarks.release import quality_table
    from benchmarks.results import small_table

from runtime.atomic import read_bytes, write_bytes

README, MEASURED = Path("README.md"), Path("docs", "measured")
BEGIN, END = "<!-- {}: python -m benchmarks.publish -->", "<!-- end of {} -->"
MAX_BYTES = 8 << 20
SHOWN = {  # of the columns of latency_tables.COLUMNS, by number
    **{0: "one face at a time", 1: "backend", 2: "computes in", 3: "p50 ms", 4: "p95 ms"},
    **{7: "times torch eager", 10: "peak MiB", 11: "cold start s", 12: "MB", 13: "fidelity dB"},
}
OURS = "**{}**"
TOOLS = ("torch", "onnxruntime", "openvino", "nncf")

Json = Mapping[str, Any]


def insert(page: str, tables: Mapping[str, str], name: str = str(README)) -> str:
    """The page with each table between its markers; EdgeError where they are not."""
    for subject, table in tables.items():
        first, last = BEGIN.format(subject), END.format(subject)
        before, begin, rest = page.partition(first)
        _, end, after = rest.partition(last)
        if not begin or not end:
            raise EdgeError(f"{name}: has no place for a table; add the lines {first} and {last}")
        page = f"{before}{first}\n{table}\n{last}{after}"
    return page


def make_tables(folder: Path) -> dict[str, str]:
    """By their markers' names; EdgeError for what is not there, or is something else."""
    return {
        "speed": _make(folder / "latency.json", "latency", speed_table),
        "quality": _make(folder / "quality.json", "accuracy", quality),
        "models": models_table([info(model) for model in MODELS]),
        "drift": _make(
            folder / "drift.json",
            "studies.real_faces",
            lambda drift: drift_table(drift, folder / "ratios.json"),
        ),
    }


def _make(path: Path, command: str, table: Callable[[Json], str]) -> str:
    try:
        return table(json.loads(read_bytes(path, MAX_BYTES)))
    except (ValueError, KeyError, TypeError, IndexError, StopIteration) as error:
        raise EdgeError(
            f"{path}: is not what benchmarks.{command} writes; write it again:"
            f" python -m benchmarks.{command}"
        ) from error


def quality(measured: Json) -> str:
    """One line a data set: the network in PyTorch, bicubic, and what is between them."""
    rows = [Row(**row) for row in measured["rows"]]
    return quality_table([row for row in rows if row.backend in ("torch", "pillow")])


def models_table(models: Sequence[ModelInfo]) -> str:
    """What each model costs, and what its weights are worth and took."""
    lines = ["| model | parameters | multiply-adds | weights |", "| --- | --- | --- | --- |"]
    for model in models:
        weights = "not trained yet"
        if model.psnr_y is not None:
            trained = f", after {model.minutes:.0f} minutes of training"
            weights = f"{model.psnr_y:.2f} dB PSNR-Y on celeba-val{trained}"
        cost = f"{model.params / 1e6:.2f} M | {model.macs / 1e9:.2f} G"
        lines.append(f"| {model.model} | {cost} | {weights} |")
    return "\n".join(lines)


def drift_table(measured: Json, ratios: Path) -> str:
    """What FP16 and INT8 lose, and how much quicker they are than FP32."""
    speed = json.loads(read_bytes(ratios, MAX_BYTES))["rows"]
    return small_table(measured["rows"], speed).body


def speed_table(measured: Json) -> str:
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


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.publish", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--readme", type=Path, default=README, metavar="F.md")
    parser.add_argument("--measured", type=Path, default=MEASURED, metavar="DIR")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if it differs")
    arguments = parser.parse_args(argv)
    return run_command(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    page = read_bytes(arguments.readme, MAX_BYTES).decode()
    new = insert(page, make_tables(arguments.measured), str(arguments.readme))
    if not arguments.check:
        write_bytes(arguments.readme, new.encode())
    elif new != page:
        print(
            f"error: {arguments.readme}: its tables are not of {arguments.measured}; write them:"
            " python -m benchmarks.publish",
            file=sys.stderr,
        )
        return EXIT_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main())
