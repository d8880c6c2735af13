"""The GPU through cuda-python: which one it is. (Buffers and graphs follow.)"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

from runtime.errors import EXIT_MISSING, EdgeError


@dataclass(frozen=True)
class Device:
    """A GPU; `capability` is its compute capability, such as '8.7' of a Jetson Orin."""

    name: str
    capability: str


def find_device() -> Device:
    """The first GPU; EdgeError with status 5 if there is none, or no cuda-python."""
    cuda = import_cuda()
    check(cuda, cuda.cudaGetDeviceCount())
    properties = check(cuda, cuda.cudaGetDeviceProperties(0))
    return Device(properties.name.decode(), f"{properties.major}.{properties.minor}")


def has_device() -> bool:
    """Whether there is a GPU that cuda-python reaches."""
    try:
        find_device()
    except EdgeError:
        return False
    return True


def check(cuda: ModuleType, answer: tuple[Any, ...]) -> Any:
    """What a call gave, after its error code; EdgeError with status 5 for any error."""
    error, *values = answer
    if error != cuda.cudaError_t.cudaSuccess:
        _, text = cuda.cudaGetErrorString(error)
        raise EdgeError(
            f"no use of the GPU: {text.decode().lower()}; on a machine without one take"
            " --backend onnxruntime",
            EXIT_MISSING,
        )
    return values[0] if values else None


def import_cuda() -> ModuleType:
    """CUDA's runtime; EdgeError with status 5 if cuda-python is not installed."""
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise EdgeError(
            "cuda-python is not installed; pip install 'aminet-edge[tensorrt-rtx]'", EXIT_MISSING
        ) from error
    return runtime
