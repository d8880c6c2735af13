"""Simulate millions of faces on larger machines, from what was measured on this one.

    python -m benchmarks.studies.scale [--price 0.05] [--disk-mb-s 125] [--link-mb-s 1250]

docs/measured/throughput.json has the rate of one core and of all of them, the bytes of a face, and
where its time goes. More cores are taken to be used as well as those that were measured; a disk or
a link that is full holds them up. The price of a core's hour is an input, in any currency.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.harness.table import markdown_table, text_table
from benchmarks.studies.rates import Throughput, read_throughput
from runtime.errors import EXIT_USAGE, EdgeError, run_command

OUT = Path("docs", "measured", "throughput.json")
CORES = (2, 4, 8, 16, 32, 64, 96)
FACES = {"1 M": 10**6, "50 M": 50 * 10**6, "1 G": 10**9}
HOURS_A_DAY = 24


@dataclass(frozen=True)
class Inputs:
    """What is assumed: the price of a core's hour, and MB/s of the disk and of the link.

    All faces are read from the disk, or over the link, and all results are written there.
    """

    price: float = 0.05
    disk_mb_s: float = 125.0
    link_mb_s: float = 1250.0


@dataclass(frozen=True)
class ScaleRow:
    """A machine: its rate, what limits it, and hours and cost for each number of faces."""

    cores: int
    faces_per_s: float
    limit: str
    mb_per_s: float
    hours: dict[str, float]
    cost: dict[str, float]


def simulate(measured: Throughput, inputs: Inputs = Inputs()) -> tuple[ScaleRow, ...]:
    """A row for each machine; EdgeError if the rates of cores or the stages were not measured."""
    one, all_cores = measured.one_core, measured.all_cores
    if one is None or all_cores is None or measured.stages is None:
        raise EdgeError(f"{OUT}: has no rate of one core. Measure again: {COMMAND}")
    used = all_cores.faces_per_s / (one.faces_per_s * all_cores.workers)
    bytes_a_face = measured.stages.read_bytes + measured.stages.written_bytes
    slowest = max(measured.stages.stages, key=lambda stage: stage.ms)
    share = slowest.ms * one.faces_per_s / 1e3
    rows = []
    for cores in CORES:
        rates = {
            f"{slowest.stage} ({min(share, 1):.0%} of a core's time)": (
                cores * one.faces_per_s * min(used, 1)
            ),
            "disk": inputs.disk_mb_s * 1e6 / bytes_a_face,
            "link": inputs.link_mb_s * 1e6 / bytes_a_face,
        }
        limit = min(rates, key=lambda name: rates[name])
        rate = rates[limit]
        hours = {name: faces / rate / 3600 for name, faces in FACES.items()}
        cost = {name: taken * cores * inputs.price for name, taken in hours.items()}
        rows.append(ScaleRow(cores, rate, limit, rate * bytes_a_face / 1e6, hours, cost))
    return tuple(rows)


COMMAND = f"python -m benchmarks.studies.throughput --out {OUT}"
COLUMNS = ("cores", "faces/s", "limited by", "MB/s", *(f"{name} faces" for name in FACES))


def _cells(row: ScaleRow) -> tuple[str, ...]:
    return (
        *(str(row.cores), f"{row.faces_per_s:,.0f}", row.limit, f"{row.mb_per_s:.1f}"),
        *(f"{_duration(row.hours[name])}, {row.cost[name]:,.2f}" for name in FACES),
    )


def _duration(hours: float) -> str:
    if hours < 1:
        return f"{hours * 60:.0f} min"
    return f"{hours:.1f} h" if hours < 2 * HOURS_A_DAY else f"{hours / HOURS_A_DAY:.1f} days"


def scale_table(measured: Throughput, inputs: Inputs = Inputs()) -> str:
    """Markdown, with a sentence on what was measured and what is assumed."""
    rows = simulate(measured, inputs)
    one, all_cores = measured.one_core, measured.all_cores
    assert one
    assert all_cores
    used = all_cores.faces_per_s / (one.faces_per_s * all_cores.workers)
    return (
        f"Measured: {one.faces_per_s:.0f} faces/s on one core and {all_cores.faces_per_s:.0f} on"
        f" {all_cores.workers}, {used:.0%} of as many times one ({measured.machine.processor})."
        f" Assumed: {inputs.price:g} for an hour of a core, a disk of {inputs.disk_mb_s:g} MB/s, a"
        f" link of {inputs.link_mb_s:g} MB/s. Each cell has the time and the cost.\n\n"
        f"{markdown_table(COLUMNS, map(_cells, rows))}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    inputs = Inputs(arguments.price, arguments.disk_mb_s, arguments.link_mb_s)
    if not (inputs.price >= 0 and inputs.disk_mb_s > 0 and inputs.link_mb_s > 0):
        raise EdgeError("--price, --disk-mb-s and --link-mb-s: expected over 0", EXIT_USAGE)
    rows = simulate(read_throughput(arguments.throughput), inputs)
    if arguments.json:
        print(json.dumps({"inputs": asdict(inputs), "rows": [asdict(row) for row in rows]}))
    else:
        print(text_table(COLUMNS, map(_cells, rows)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.scale", description=__doc__.split("\n")[0]
    )
    add = parser.add_argument
    given = Inputs()
    add("--throughput", type=Path, default=OUT, metavar="F.json", help=f"(default: {OUT})")
    for name, what in (
        ("price", "of a core's hour, in any currency"),
        ("disk-mb-s", "what the disk reads and writes"),
        ("link-mb-s", "what comes and goes over the network"),
    ):
        default = getattr(given, name.replace("-", "_"))
        add(
            f"--{name}",
            type=float,
            default=default,
            metavar="X",
            help=f"{what} (default: {default:g})",
        )
    add("--json", action="store_true", help="print one JSON object (default: a table)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
