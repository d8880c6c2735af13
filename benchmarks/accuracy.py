"""Measure the quality of upscaled faces against the originals, with bicubic as the baseline.

    python -m benchmarks.accuracy --data TAR_OR_DIR... [--artifact F...] [--checkpoint F...]
    python -m benchmarks.accuracy --identity PROBE_DIR GALLERY_DIR [--artifact F...]

Every 128x128 face of a data set is shrunk to 16x16 with Pillow's bicubic filter, upscaled, rounded
to uint8 and compared with the original. benchmarks.metrics.quality explains the metrics.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness.table import text_table
from runtime.atomic import write_bytes
from runtime.errors import EXIT_USAGE, EdgeError, needs, run_command

if TYPE_CHECKING:
    from benchmarks.metrics.quality import QualityRow
    from benchmarks.metrics.recognition import RecognitionRow


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    named = arguments.artifact or arguments.checkpoint
    artifacts = arguments.artifact if named else [None]
    if arguments.identity and (arguments.out or arguments.metrics):
        raise EdgeError("--out, --metrics: apply to --data, not to --identity", EXIT_USAGE)
    with needs("train,eval"):
        from benchmarks.metrics import quality
    if arguments.identity:
        probes, photos = arguments.identity
        found = quality.recognition(probes, photos, artifacts, arguments.checkpoint)
        as_json = {"recognition": [asdict(row) for row in found]}
        print(json.dumps(as_json) if arguments.json else recognition_table(found))
        return 0
    result = quality.measure_quality(
        arguments.data, artifacts, arguments.checkpoint, arguments.metrics or quality.METRICS, _note
    )
    text = json.dumps(asdict(result))
    if arguments.out:
        write_bytes(arguments.out, f"{text}\n".encode())
    print(text if arguments.json else table(result.rows))
    return 0


def _note(line: str) -> None:
    print(f"note: {line}", file=sys.stderr)


def table(rows: "Sequence[QualityRow]") -> str:
    """A line for each upscaler on each data set, a column for each metric measured."""
    from benchmarks.metrics.quality import FORMATS

    names = [name for name in FORMATS if any(getattr(row, name) is not None for row in rows)]
    order = [row.data for row in rows]
    cells = []
    for row in sorted(rows, key=lambda row: order.index(row.data)):
        scores = [(name, getattr(row, name)) for name in names]
        shown = ["" if score is None else FORMATS[name].format(score) for name, score in scores]
        cells.append((row.data, row.artifact, row.backend, str(row.n), *shown))
    return text_table(("data", "artifact", "backend", "faces", *names), cells)


def recognition_table(rows: "Sequence[RecognitionRow]") -> str:
    cells = [
        (
            row.artifact,
            row.backend,
            *map(str, (row.probes, row.photos, row.people)),
            f"{row.cosine:.3f} ({row.cosine_interval[0]:.3f} to {row.cosine_interval[1]:.3f})",
            f"{100 * row.rank_1:.1f} %",
        )
        for row in rows
    ]
    columns = ("artifact", "backend", "probes", "photos", "people", "cosine (95 %)", "rank-1")
    return text_table(columns, cells)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy", description=__doc__.split("\n")[0]
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", nargs="+", metavar="TAR_OR_DIR", help="128x128 faces (required)")
    what.add_argument(
        "--identity",
        nargs=2,
        metavar=("PROBE_DIR", "GALLERY_DIR"),
        help="instead of --data: recognize low-quality faces among photos (default: no)",
    )
    add = parser.add_argument
    add(
        "--artifact",
        nargs="+",
        default=[],
        metavar="F",
        help="artifacts to measure (default: the one that infer chooses)",
    )
    add(
        "--checkpoint",
        nargs="+",
        default=[],
        metavar="F",
        help="PyTorch checkpoints to measure (default: none)",
    )
    add(
        "--metrics",
        nargs="+",
        default=[],
        metavar="M",
        help="psnr_y, ssim_y and psnr_rgb, and these of vif, lpips, kid_mobilenetv2 and identity"
        " (default: all)",
    )
    add("--out", type=Path, metavar="F.json", help="write the JSON (default: no)")
    add("--json", action="store_true", help="print one JSON object (default: a table)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
