"""What the commands of benchmarks.studies have in common: the head of their parser, and the end."""

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from runtime.atomic import write_bytes
from runtime.places import FOLDER


def study_parser(name: str, doc: str | None, out: Path | None = None) -> ArgumentParser:
    """A parser with --out and --json; the first line of the module's `doc` describes the study.

    `out` is where its published JSON lies.
    """
    parser = ArgumentParser(
        prog=f"python -m benchmarks.studies.{name}", description=(doc or "").partition("\n")[0]
    )
    such_as = f", such as {out}" if out else ""
    parser.add_argument(
        "--out", type=Path, metavar="F.json", help=f"write the JSON{such_as} (default: no)"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object (default: a table)"
    )
    return parser


def add_models(parser: ArgumentParser) -> None:
    """Add --artifact: the folders of the models that are measured."""
    parser.add_argument(
        "--artifact",
        nargs="+",
        type=Path,
        default=[FOLDER],
        metavar="DIR",
        help=f"folders of models, the one that README shows first (default: {FOLDER})",
    )


def report(arguments: Namespace, content: dict[str, Any], table: str) -> int:
    """Write the JSON to --out, print it, or else the table; the exit status."""
    if arguments.out:
        write_bytes(arguments.out, f"{json.dumps(content, indent=1)}\n".encode())
    print(json.dumps(content) if arguments.json else table)
    return 0
