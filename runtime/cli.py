"""The console script: `aminet-edge infer face.png` is `python -m runtime.infer face.png`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from runtime.errors import EXIT_MISSING, EXIT_USAGE, SCRIPT

# Subcommand -> module, what it does; in the order of a model's way to a device.
COMMANDS = {
    "infer": ("runtime.infer", "upscale faces in images, folders, photos and videos"),
    "check": ("runtime.check", "measure an artifact's drift from FP32 on this machine"),
    "doctor": ("runtime.doctor", "show what this machine has and what runs here"),
    "align": ("runtime.align", "cut 128x128 training faces out of photos"),
    "fetch": ("runtime.media.fetch", "fetch the face detector, which photos and videos need"),
    "export": ("export.onnx", "export a model to ONNX"),
    "quantize": ("quantize.int8", "make INT8 artifacts within a drift budget"),
    "fp16": ("quantize.fp16", "make an FP16 artifact within a drift budget"),
    "fp8": ("quantize.fp8", "make FP8 artifacts for TensorRT within a drift budget"),
    "ranges": ("quantize.ranges", "find the ranges that quantization-aware training starts from"),
    "sensitivity": ("quantize.sensitivity", "measure what each layer costs in INT8"),
    "compare": ("export.compare", "find the layers where an artifact leaves FP32"),
    "tensorrt": ("export.tensorrt", "compile TensorRT engines"),
    "litert": ("export.litert", "write .tflite files for phones"),
    "ncnn": ("export.ncnn", "write ncnn files for phones and small boards"),
    "coreml": ("export.coreml", "write a Core ML package"),
    "web": ("export.web", "make a web page that upscales faces in the browser"),
    "pack": ("export.pack", "pack all that a device needs into one zip"),
    "train": ("aminet.train", "train a model"),
    "info": ("aminet.info", "show the size, cost and quality of the models"),
    "bench": ("benchmarks.latency", "measure latency against the usual baselines"),
    "report": ("benchmarks.report", "write what to deploy on this machine as one HTML page"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand as `python -m` would; return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0 if arguments else EXIT_USAGE
    if arguments[0] == "--version":
        print(f"aminet-edge {_version()}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        known = ", ".join(_available())
        return _complain(f"{name}: unknown command, expected one of {known}", EXIT_USAGE)
    module, _ = COMMANDS[name]
    if not _is_installed(module):
        return _complain(
            f"{name}: {module} is not part of this installation; run it in a checkout of the"
            f" project: python -m {module}",
            EXIT_MISSING,
        )
    return _run(module, name, rest)


def _run(module: str, name: str, arguments: Sequence[str]) -> int:
    sys.argv = [f"{SCRIPT} {name}", *arguments]  # as its usage lines call it
    try:
        status: int = importlib.import_module(module).main(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return status


def _usage() -> str:
    width = max(map(len, COMMANDS))
    rows = [f"  {name:<{width}}  {COMMANDS[name][1]}" for name in _available()]
    return "\n".join(
        [
            "usage: aminet-edge COMMAND ...",
            "",
            "Face super-resolution that proves on the device that it has not drifted from FP32.",
            "",
            *rows,
            "",
            "aminet-edge COMMAND --help explains a command; --version prints the version.",
        ]
    )


def _available() -> list[str]:
    return [name for name, (module, _) in COMMANDS.items() if _is_installed(module)]


def _is_installed(module: str) -> bool:
    """Whether the module lies where this package does: a wheel has fewer than a checkout."""
    return Path(__file__).parents[1].joinpath(*module.split(".")).with_suffix(".py").is_file()


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # three faces long

    try:
        return version("aminet-edge")
    except PackageNotFoundError:
        return "(not installed)"


def _complain(message: str, status: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
