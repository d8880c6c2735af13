"""The TensorRT engines beside a model's ONNX files that this very machine can run."""

from __future__ import annotations

import sys
from pathlib import Path

from runtime.backends.cuda import find_device, has_device
from runtime.backends.installed import has_nvidia_driver
from runtime.backends.tensorrt import check_device, check_version, import_library
from runtime.errors import EdgeError
from runtime.formats import ENGINE
from runtime.manifest import read_manifest

PLACES = f"trt/*/*{ENGINE}"  # where export.tensorrt writes, from the ONNX files' folder


def find_engines(folder: Path) -> list[Path]:
    """Those built for the GPU and the library here; none without a GPU, which costs little."""
    paths = sorted(folder.glob(PLACES))
    return [path for path in paths if _fits(path)] if paths and has_gpu() else []


def has_gpu() -> bool:
    """Without a driver there is none, and cuda-python, a tenth of a second, need not be asked."""
    return (sys.platform != "linux" or has_nvidia_driver()) and has_device()


def _fits(path: Path) -> bool:
    try:
        manifest = read_manifest(path)
        library = import_library(str(manifest.flags.get("builder")))
        check_version(manifest, library.__version__, str(path))
        check_device(manifest, find_device(), str(path))
    except EdgeError:
        return False
    return True
