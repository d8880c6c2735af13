"""Export a model to ONNX: `python -m export.onnx` writes artifacts/aminet-edge/fp32.onnx."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from runtime.errors import needs, run_command
from runtime.progress import Steps

if TYPE_CHECKING:
    from export.exporter import ExportResult

MAX_ABS_DIFF = 1e-4  # export.parity's, which needs onnx to be imported


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    with needs("export"):
        from export.exporter import export
    with Steps() as progress:
        result = export(
            arguments.model,
            arguments.checkpoint,
            arguments.out,
            arguments.random_weights,
            max_abs_diff=arguments.max_abs_diff,
            overwrite=arguments.overwrite,
            progress=progress,
        )
    print(json.dumps(asdict(result)) if arguments.json else describe(result))
    for line in warnings_of(result):
        print(f"warning: {line}", file=sys.stderr)
    return 0


def describe(result: "ExportResult") -> str:
    """One line on what was written, and how close it is to PyTorch."""
    weights = ", random weights" if result.random_weights else ""
    quality = f", {result.psnr_y:.2f} dB PSNR-Y" if result.psnr_y is not None else ""
    return (
        f"{result.artifact}: {result.model}{weights}{quality}, {result.bytes / 2**20:.1f} MiB,"
        f" {result.nodes_before} -> {result.nodes_after} nodes, opset {result.opset}; largest"
        f" difference from PyTorch {result.max_abs_diff:.1e} (PSNR {result.psnr_db:.0f} dB),"
        f" fidelity {result.fidelity_db:.0f} dB; sha256 {result.sha256[:12]}"
    )


def warnings_of(result: "ExportResult") -> Iterator[str]:
    """Weights that are worse than bicubic upscaling; artifacts that are outdated now."""
    ours, bicubic = result.psnr_y, result.bicubic_psnr_y
    if ours is not None and bicubic is not None and ours <= bicubic:
        yield (
            f"{result.model} has {ours:.2f} dB PSNR-Y, bicubic upscaling has {bicubic:.2f}: train"
            " it longer"
        )
    for artifact in result.outdated:
        maker = "export.tensorrt" if artifact.endswith(".engine") else "quantize.int8"
        yield f"{artifact} is outdated: made of other weights. Make it again: python -m {maker}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export.onnx",
        description="Export a model to ONNX, simplify it, and prove parity with PyTorch.",
    )
    parser.add_argument("--model", metavar="M", help="name of a model (default: aminet-edge)")
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument(
        "--checkpoint", metavar="F", help="trained weights; with --model they must fit its config"
    )
    weights.add_argument(
        "--random-weights", type=int, metavar="SEED", help="for tests; infer refuses the artifact"
    )
    parser.add_argument(
        "--out",
        metavar="F",
        help="default: artifacts/<model>/fp32.onnx; with --checkpoint, fp32.onnx beside it",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an artifact of other weights"
    )
    parser.add_argument(
        "--max-abs-diff",
        type=float,
        default=MAX_ABS_DIFF,
        metavar="X",
        help=f"largest difference of a value from PyTorch's (default: {MAX_ABS_DIFF:g})",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
