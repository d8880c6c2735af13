"""FP8 within a drift budget: `python -m quantize.fp8 --calib calib_data/`.

fp8-trt.onnx has E4M3 (float8e4m3fn) Q/DQ pairs where int8-trt.onnx has INT8 ones, for TensorRT on
GPUs whose INT8 is slow (docs/quantization.md). Calibration, budget, gate and manifest are those of
quantize.int8; ONNX Runtime stands in for TensorRT.
"""

import argparse
import sys
from collections.abc import Sequence

from quantize.arguments import add_budget, add_inputs, check_drop
from quantize.int8 import quantize, report
from quantize.options import Int8Options
from quantize.targets import FP8
from runtime.errors import EXIT_DRIFT, run_command
from runtime.progress import Steps


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    check_drop(arguments.max_drop_db)
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
    add_inputs(parser)
    add_budget(parser, f"{FP8.max_drop_db}, that of tensorrt")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
