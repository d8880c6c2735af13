"""One GPU, through cuda-python: which it is, memory on it, and work captured as a CUDA graph."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from runtime.errors import EXIT_MISSING, EdgeError
from runtime.image import Tensor


@dataclass(frozen=True)
class Device:
    """A GPU; `capability` is its compute capability, such as '8.7' of a Jetson Orin."""

    name: str
    capability: str


@dataclass(frozen=True)
class Buffer:
    """Float32 on the host, in memory that the GPU reads at full speed, and its place there."""

    host: Tensor
    address: int


def find_device() -> Device:
    """The first GPU; EdgeError with status 5 if there is none, or no cuda-python."""
    cuda = _import_cuda()
    _check(cuda, cuda.cudaGetDeviceCount())
    properties = _check(cuda, cuda.cudaGetDeviceProperties(0))
    return Device(properties.name.rstrip(b"\0").decode(), f"{properties.major}.{properties.minor}")


def has_device() -> bool:
    """Whether there is a GPU that cuda-python reaches."""
    try:
        find_device()
    except EdgeError:
        return False
    return True


class Gpu:
    """A stream of work on the first GPU, and the memory and graphs made for it."""

    def __init__(self) -> None:
        self.device = find_device()
        self._cuda = _import_cuda()
        self.stream = int(self._do(self._cuda.cudaStreamCreate()))
        self._free: list[Callable[[], Any]] = [lambda: self._cuda.cudaStreamDestroy(self.stream)]

    def allocate(self, shape: tuple[int, ...]) -> Buffer:
        """Memory for float32 of this shape, here and on the GPU."""
        count = int(np.prod(shape))
        here = int(self._do(self._cuda.cudaMallocHost(4 * count)))
        self._free.append(lambda: self._cuda.cudaFreeHost(here))
        there = int(self._do(self._cuda.cudaMalloc(4 * count)))
        self._free.append(lambda: self._cuda.cudaFree(there))
        floats = (ctypes.c_float * count).from_address(here)
        return Buffer(np.ctypeslib.as_array(floats).reshape(shape), there)

    def send(self, buffer: Buffer, rows: int) -> None:
        """Copy the first rows to the GPU, in the stream's order."""
        self._copy(buffer.address, buffer.host.ctypes.data, buffer, rows, "cudaMemcpyHostToDevice")

    def fetch(self, buffer: Buffer, rows: int) -> None:
        """Copy the first rows from the GPU, in the stream's order."""
        self._copy(buffer.host.ctypes.data, buffer.address, buffer, rows, "cudaMemcpyDeviceToHost")

    def wait(self) -> None:
        """Until all that was sent to the stream is done."""
        self._do(self._cuda.cudaStreamSynchronize(self.stream))

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """What `work` sends to the stream, as a graph: a function that sends it all at once."""
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._do(self._cuda.cudaStreamBeginCapture(self.stream, mode))
        try:
            work()
        finally:
            graph = self._do(self._cuda.cudaStreamEndCapture(self.stream))
        ready = self._do(self._cuda.cudaGraphInstantiate(graph, 0))
        self._do(self._cuda.cudaGraphDestroy(graph))
        self._free.append(lambda: self._cuda.cudaGraphExecDestroy(ready))
        return lambda: self._do(self._cuda.cudaGraphLaunch(ready, self.stream))

    def close(self) -> None:
        """Give everything back, the latest first."""
        while self._free:
            self._free.pop()()

    def _copy(self, to: int, source: int, buffer: Buffer, rows: int, kind: str) -> None:
        size = buffer.host[:rows].nbytes
        direction = getattr(self._cuda.cudaMemcpyKind, kind)
        self._do(self._cuda.cudaMemcpyAsync(to, source, size, direction, self.stream))

    def _do(self, answer: tuple[Any, ...]) -> Any:
        return _check(self._cuda, answer)


def _check(cuda: ModuleType, answer: tuple[Any, ...]) -> Any:
    """What a call gave, after its error code; EdgeError with status 5 for any error."""
    error, *values = answer
    if error != cuda.cudaError_t.cudaSuccess:
        _, text = cuda.cudaGetErrorString(error)
        raise EdgeError(
            f"no use of an NVIDIA GPU here: {text.decode().lower()}; without one take an ONNX file"
            " and --backend onnxruntime",
            EXIT_MISSING,
        )
    return values[0] if values else None


def _import_cuda() -> ModuleType:
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise EdgeError(
            "cuda-bindings is not installed; pip install cuda-bindings", EXIT_MISSING
        ) from error
    return runtime
