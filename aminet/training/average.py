"""Average weights of related runs (`python -m aminet.training.average`); keep the mean if best."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from runtime.errors import needs, run_command


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m aminet.training.average", description=__doc__)
    parser.add_argument("checkpoint", nargs="+", metavar="F", help="two checkpoints or more")
    parser.add_argument(
        "--val", nargs="+", required=True, metavar="TAR_OR_DIR", help="faces to measure on"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="F")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _run(given: argparse.Namespace) -> int:
    with needs("train"):
        from aminet.training.weight_average import average
    result = average(given.checkpoint, given.val, given.out)
    if given.json:
        print(json.dumps(asdict(result)))
        return 0
    for path, psnr_y in result.of.items():
        print(f"{psnr_y:.4f} dB  {path}")
    print(f"{result.psnr_y:.4f} dB  {result.checkpoint}: their mean")
    return 0


if __name__ == "__main__":
    sys.exit(main())
