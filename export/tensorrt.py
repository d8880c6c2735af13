"""Compile TensorRT engines: `python -m export.tensorrt [--compute-capability 8.6]`."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.trt.options import CAPABILITIES, BuildOptions
from runtime.errors import EXIT_ERROR, EdgeError, needs, run_command
from runtime.places import DEFAULT_MODEL
from runtime.progress import Steps

if TYPE_CHECKING:
    from export.trt.build import Engine, Engines

BUILDERS = ("auto", "tensorrt", "tensorrt-rtx")
SOURCES = ("fp32.onnx", "fp16-trt.onnx", "int8-trt.onnx", "int8-trt-fp16.onnx")


def default_artifacts(model: str = DEFAULT_MODEL) -> list[Path]:
    """The existing files of a model that are made for TensorRT."""
    folder = Path("artifacts", model)
    found = [folder / name for name in SOURCES if (folder / name).is_file()]
    if not found:
        raise EdgeError(
            f"{folder}: none of {', '.join(SOURCES)} found. Make them: python -m export.onnx, then"
            " python -m quantize.fp16 and python -m quantize.int8"
        )
    return found


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _main, argv)


def _main(arguments: argparse.Namespace) -> int:
    options = BuildOptions(
        builder=arguments.builder,
        capabilities=tuple(filter(None, arguments.compute_capability.split(","))),
        profile=tuple(arguments.profile),
        workspace_mib=arguments.workspace_mib,
        timeout_s=arguments.timeout_s,
    )
    with needs("tensorrt-rtx"):
        from export.trt.build import compile_engines
    artifacts = arguments.artifact or default_artifacts(arguments.model)
    with Steps() as progress:
        made = compile_engines(artifacts, options, progress)
    if arguments.json:
        print(json.dumps(as_json(made)))
    else:
        for engine in made.engines:
            print(describe(engine))
    for failure in made.failures:
        print(f"error: {failure}", file=sys.stderr)
    statuses = {failure.status for failure in made.failures}
    return (statuses.pop() if len(statuses) == 1 else EXIT_ERROR) if statuses else 0


def as_json(made: "Engines") -> dict[str, Any]:
    """All engines and failures; the first engine's keys are repeated at the top level."""
    engines = [asdict(engine) for engine in made.engines]
    failures = [str(failure) for failure in made.failures]
    return {**(engines[0] if engines else {}), "engines": engines, "failures": failures}


def describe(engine: "Engine") -> str:
    """One line on an engine, which has not been run."""
    capabilities = ", ".join(engine.compute_capabilities)
    least, best, most = engine.profile
    done = "up to date, made" if engine.up_to_date else f"built in {engine.seconds:.1f} s"
    warned = f"; {engine.warnings} warnings in {engine.log}" if engine.warnings else ""
    return (
        f"{engine.engine}: {engine.precision}, {engine.bytes / 2**20:.1f} MiB, {done} by"
        f" {engine.builder} {engine.builder_version} for compute capability {capabilities},"
        f" batches {least}-{most}, tuned for {best}; compiled and statically checked; not run"
        f"{warned}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export.tensorrt",
        description="Compile ONNX files to TensorRT engines, with a GPU or, by TensorRT-RTX,"
        " without.",
    )
    parser.add_argument(
        "--artifact",
        nargs="+",
        metavar="F",
        help=f"default: those of {', '.join(SOURCES)} that the model has",
    )
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, metavar="M", help=f"default: {DEFAULT_MODEL}"
    )
    parser.add_argument(
        "--compute-capability",
        default="",
        metavar="C",
        help="of the GPUs to build for: 8.6 or 8.6,8.9"
        f" (default: that of the GPU here, else {','.join(CAPABILITIES)})",
    )
    parser.add_argument(
        "--builder", choices=BUILDERS, default="auto", help="auto: tensorrt where it starts"
    )
    parser.add_argument(
        "--profile",
        nargs=3,
        type=int,
        default=BuildOptions.profile,
        metavar=("LEAST", "BEST", "MOST"),
        help=f"batches (default: {' '.join(map(str, BuildOptions.profile))})",
    )
    parser.add_argument(
        "--workspace-mib",
        type=int,
        default=BuildOptions.workspace_mib,
        metavar="N",
        help=f"memory that a layer may take on the GPU (default: {BuildOptions.workspace_mib})",
    )
    parser.add_argument(
        "--timeout-s",
        type=float,
        default=BuildOptions.timeout_s,
        metavar="X",
        help=f"for one build (default: {BuildOptions.timeout_s:g})",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
