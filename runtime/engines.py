"""The TensorRT engines beside a model's ONNX files that this very machine can run."""

from __future__ import annotations

from pathlib import Path

from runtime.backends.cuda import find_device, has_device
from runtime.backends.tensorrt import check_device, check_version, import_library
from runtime.errors import EdgeError
from runtime.manifest import ENGINE, read_manifest

PLACES = f"trt/*/*{ENGINE}"  # where export.tensorrt writes, from the ONNX files' folder


def find_engines(folder: Path) -> list[Path]:
    """Those built for the GPU and the library here; none without a GPU, which costs little."""
    paths = sorted(folder.glob(PLACES))
    return [path for path in paths if _fits(path)] if paths and has_device() else []


def _fits(path: Path) -> bool:
    try:
        manifest = read_manifest(path)
        library = import_library(str(manifest.flags.get("builder")))
        check_version(manifest, library.__version__, str(path))
        check_device(manifest, find_device(), str(path))
    except EdgeError:
        return False
    return True
