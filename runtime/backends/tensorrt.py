"""TensorRT and TensorRT-RTX: engines that export.tensorrt compiled, run on an NVIDIA GPU."""

from __future__ import annotations

from types import ModuleType

from runtime.errors import EXIT_MISSING, EdgeError

LIBRARIES = ("tensorrt", "tensorrt-rtx")


def import_library(name: str) -> ModuleType:
    """tensorrt or tensorrt_rtx, whose APIs are one; EdgeError with status 5 if not installed."""
    try:
        if name == "tensorrt":
            import tensorrt

            return tensorrt
        import tensorrt_rtx

        return tensorrt_rtx
    except ImportError as error:
        raise EdgeError(
            f"{name} is not installed; pip install 'aminet-edge[{name}]'", EXIT_MISSING
        ) from error
