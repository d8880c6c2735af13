"""FP8 within a drift budget: `python -m quantize.fp8 --calib calib_data/`.

fp8-trt.onnx has E4M3 (float8e4m3fn) Q/DQ pairs where int8-trt.onnx has INT8 ones, for TensorRT on
GPUs whose INT8 is slow (docs/quantization.md). Calibration, budget, gate and manifest are those of
quantize.int8; ONNX Runtime stands in for TensorRT.
"""

import argparse
import sys
from collections.abc import Sequence

from quantize.int8 import quantize, report
from quantize.options import ARTIFACT, CALIBRATION, Int8Options
from quantize.targets import FP8
from runtime.errors import EXIT_DRIFT, EXIT_USAGE, EdgeError, run_command
from runtime.progress import Steps


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.max_drop_db is not None and not 0 < arguments.max_drop_db <= 10:
        raise EdgeError("--max-drop-db: expected a number over 0, up to 10", EXIT_USAGE)
    options = Int8Options(max_drop_db=arguments.max_drop_db, data=tuple(arguments.data))
    with Steps() as steps:
        result = quantize(arguments.artifact, arguments.calib, (FP8,), options, steps)
    report(result, as_json=arguments.json)
    return EXIT_DRIFT if result.failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m quantize.fp8",
        description="Quantize an FP32 artifact to FP8 (E4M3) for TensorRT, within a drift budget.",
    )
    parser.add_argument(
        "--artifact", default=ARTIFACT, metavar="F", help=f"the FP32 model (default: {ARTIFACT})"
    )
    parser.add_argument(
        "--calib",
        nargs="+",
        default=[CALIBRATION],
        metavar="P",
        help=f"folders, tars or patterns of face images (default: {CALIBRATION})",
    )
    parser.add_argument(
        "--max-drop-db",
        type=float,
        metavar="X",
        help="PSNR-Y that may be lost, a face five times that"
        f" (default: {FP8.max_drop_db}, that of tensorrt)",
    )
    parser.add_argument(
        "--data",
        nargs="+",
        default=(),
        metavar="TAR_OR_DIR",
        help="real faces of 128x128: the drift is measured on them (default: expected)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
