"""Start a model from weights of another shape: `python -m aminet.training.morph`.

Deeper FRMs, a larger input, fewer bottleneck blocks: the output is kept, and training goes on.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from runtime.errors import needs, run_command


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m aminet.training.morph", description=__doc__)
    parser.add_argument("--checkpoint", required=True, metavar="F", help="weights of another shape")
    parser.add_argument("--data", nargs="+", required=True, metavar="TAR_OR_DIR", help="faces")
    parser.add_argument("--model", default="aminet-edge", help="what becomes of them")
    parser.add_argument("--out", type=Path, required=True, metavar="F", help="for train --init")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _run(given: argparse.Namespace) -> int:
    with needs("train"):
        from aminet.training.net2net import morph_file
    done = morph_file(given.checkpoint, given.model, given.data, given.out)
    result = {"checkpoint": str(given.out), "morph": done}
    print(json.dumps(result) if given.json else f"{given.out}: {done}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
