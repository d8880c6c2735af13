"""FP16 within a drift budget: `python -m quantize.fp16 [--target cpu,tensorrt]`.

fp16.onnx is for CPUs: it stores its weights in FP16 and computes in FP32, the same on every
processor. fp16-trt.onnx computes in FP16, for TensorRT and other GPU runtimes. What its arithmetic
loses is evaluated anywhere on the probes, by rounding: with sums in FP32, as GPUs usually sum, and
with sums in FP16. Input and output stay float32.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from quantize.options import ARTIFACT, FP16_FILES, Fp16Artifact
from runtime.errors import EXIT_PRECISION, EXIT_USAGE, EdgeError, needs, run_command


def convert(
    artifact: str | Path = ARTIFACT,
    targets: Sequence[str] = tuple(FP16_FILES),
    *,
    require_precision: bool = False,
) -> tuple[Fp16Artifact, ...]:
    """Convert an FP32 artifact; EdgeError with status 3, and no file, where one loses too much.

    `require_precision`: EdgeError with status 6 for a target that does not compute in FP16.
    """
    if require_precision and "cpu" in targets:
        raise EdgeError(
            f"{artifact}: {FP16_FILES['cpu']} computes in FP32 on every CPU; --target tensorrt"
            " makes the file that computes in FP16, or drop --require-precision",
            EXIT_PRECISION,
        )
    with needs("quantize"):
        from quantize import fp16_files
        from quantize.source import read_source
    return fp16_files.make(read_source(artifact), targets)


def describe(made: Fp16Artifact) -> str:
    """One line on an artifact."""
    sums_db = made.fp16_sums_fidelity_db
    sums = "" if sums_db is None else f"; {sums_db:.1f} dB where sums are FP16 too"
    return (
        f"{made.artifact}: for {made.target}, {made.bytes / 2**20:.1f} MiB, {made.executes_as};"
        f" {made.fidelity_db:.1f} dB to FP32 on faces, {made.extremes_fidelity_db:.1f} on stress"
        f" probes ({made.measured_on}){sums}"
    )


def parse_targets(text: str) -> tuple[str, ...]:
    """The targets in "cpu,tensorrt"; EdgeError for another name."""
    names = {name.strip() for name in text.split(",")}
    if unknown := sorted(names - FP16_FILES.keys()):
        raise EdgeError(
            f"no target is called {unknown[0]!r}, expected some of {','.join(FP16_FILES)}",
            EXIT_USAGE,
        )
    return tuple(name for name in FP16_FILES if name in names)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    targets = parse_targets(arguments.target)
    made = convert(arguments.artifact, targets, require_precision=arguments.require_precision)
    if arguments.json:
        artifacts = [asdict(each) for each in made]
        print(json.dumps({**artifacts[0], "artifacts": artifacts}))
    else:
        for each in made:
            print(describe(each))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m quantize.fp16", description="Convert an FP32 artifact to FP16."
    )
    parser.add_argument("--artifact", default=ARTIFACT, metavar="F", help=f"default: {ARTIFACT}")
    parser.add_argument(
        "--target",
        default=",".join(FP16_FILES),
        metavar="T",
        help=f"some of {','.join(FP16_FILES)} (default: all)",
    )
    parser.add_argument(
        "--require-precision",
        action="store_true",
        help="exit with 6 for a target that does not compute in FP16",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
