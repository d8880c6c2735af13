"""TensorRT and TensorRT-RTX: engines that export.tensorrt compiled, run on an NVIDIA GPU.

Nothing in it has been executed where this was written: its calls are checked against the API of the
real libraries (tests/test_tensorrt_api.py), its decisions without a GPU are tested.
"""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from runtime.atomic import read_bytes, sha256_bytes, write_bytes
from runtime.backends.base import Closing, check_lr
from runtime.backends.cuda import Device, Gpu
from runtime.cache import cache_folder
from runtime.errors import EXIT_MISSING, EdgeError
from runtime.image import SR_SIDE, Tensor
from runtime.manifest import Manifest

LIBRARIES = ("tensorrt", "tensorrt-rtx")
MAX_GRAPHS = 8  # batch sizes that are captured; others are enqueued each time
MAX_CACHE_BYTES = 1 << 28


class TensorRtSession(Closing):
    """An engine of the project's contract, open on the first GPU.

    `engine` is the content of the file, `manifest` says what it was built for, `name` is for
    messages. Raises EdgeError with status 5 if the library or a GPU is missing, or if they are not
    what the engine was built for; the line has the command that builds it anew.
    """

    name = "tensorrt"

    def __init__(self, engine: bytes, manifest: Manifest, name: str) -> None:
        builder = str(manifest.flags.get("builder"))
        self._library = import_library(builder)
        self._rtx = builder == "tensorrt-rtx"
        self.version: str = self._library.__version__
        check_version(manifest, self.version, name)
        self._file = name
        self.lr_side = manifest.lr_side
        self._gpu = Gpu()
        self._lock = threading.Lock()
        self._graphs: dict[int, Any] = {}
        try:
            check_device(manifest, self._gpu.device, name)
            device = self._gpu.device
            self.options = f"{builder}, {device.name}, capability {device.capability}, CUDA graphs"
            self._open(engine, manifest)
        except BaseException:
            self._gpu.close()
            raise

    def _open(self, engine: bytes, manifest: Manifest) -> None:
        runtime = self._library.Runtime(self._library.Logger(self._library.Logger.ERROR))
        if self._rtx:
            validity, diagnostics = runtime.get_engine_validity(engine)
            if validity == self._library.EngineValidity.INVALID:
                raise _refusal(self._file, f"cannot run here: {self._reasons(diagnostics)}")
        self._runtime, self._engine = runtime, runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise _refusal(self._file, f"{manifest.flags['builder']} cannot open it")
        self._check_contract()
        self._most = int(self._engine.get_tensor_profile_shape("lr", 0)[2][0])
        self._context = self._create_context(engine)
        self._lr = self._gpu.allocate((self._most, 3, self.lr_side, self.lr_side))
        self._sr = self._gpu.allocate((self._most, 3, SR_SIDE, SR_SIDE))
        self._context.set_tensor_address("lr", self._lr.address)
        self._context.set_tensor_address("sr", self._sr.address)

    def run(self, lr: Tensor) -> Tensor:
        """Upscale lr (N, 3, S, S), float32 in [0, 1], to (N, 3, 128, 128), not clipped."""
        check_lr(lr, self.lr_side)
        sr = np.empty((len(lr), 3, SR_SIDE, SR_SIDE), np.float32)
        with self._lock:
            for start in range(0, len(lr), self._most):
                batch = slice(start, start + self._most)
                sr[batch] = self._run_batch(lr[batch])
        return sr

    def _run_batch(self, lr: Tensor) -> Tensor:
        count = len(lr)
        self._lr.host[:count] = lr
        if count in self._graphs:
            self._graphs[count]()
        else:
            self._context.set_input_shape("lr", (count, 3, self.lr_side, self.lr_side))
            self._enqueue(count)  # once before it is captured: it allocates what it needs
            if not self._rtx and len(self._graphs) < MAX_GRAPHS:
                self._gpu.wait()
                self._graphs[count] = self._gpu.capture(lambda: self._enqueue(count))
        self._gpu.wait()
        return self._sr.host[:count]

    def _enqueue(self, count: int) -> None:
        self._gpu.send(self._lr, count)
        if not self._context.execute_async_v3(self._gpu.stream):
            raise EdgeError(f"{self._file}: {self.name} cannot run it. {_fix(self._file)}")
        self._gpu.fetch(self._sr, count)

    def _create_context(self, engine: bytes) -> Any:
        """Where work is done; with RTX it captures graphs itself, and keeps what it compiled."""
        if not self._rtx:
            return self._engine.create_execution_context()
        settings = self._engine.create_runtime_config()
        settings.cuda_graph_strategy = self._library.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        self._compiled = settings.create_runtime_cache()
        self._compiled_file = self._cache_file(engine)
        if self._compiled_file and self._compiled_file.is_file():
            with contextlib.suppress(EdgeError):
                self._compiled.deserialize(read_bytes(self._compiled_file, MAX_CACHE_BYTES))
        settings.set_runtime_cache(self._compiled)
        return self._engine.create_execution_context(settings)

    def _cache_file(self, engine: bytes) -> Path | None:
        folder = cache_folder()
        if folder is None:
            return None
        device = self._gpu.device
        key = f"{sha256_bytes(engine)} {self.version} {device.name} {device.capability}"
        return folder / "tensorrt-rtx" / f"{sha256_bytes(key.encode())[:32]}.bin"

    def _check_contract(self) -> None:
        engine = self._engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        found = [
            (name, engine.get_tensor_dtype(name).name, tuple(engine.get_tensor_shape(name)))
            for name in names
        ]
        expected = [
            ("lr", "FLOAT", (-1, 3, self.lr_side, self.lr_side)),
            ("sr", "FLOAT", (-1, 3, SR_SIDE, SR_SIDE)),
        ]
        if sorted(found) != expected:
            raise _refusal(self._file, f"reads and writes {found}, expected {expected}")

    def _reasons(self, diagnostics: int) -> str:
        known = self._library.EngineInvalidityDiagnostics.__members__.items()
        found = [name.lower().replace("_", " ") for name, bit in known if diagnostics & int(bit)]
        return ", ".join(found) or "the library does not say why"

    def close(self) -> None:
        """Give the GPU's memory back; what RTX compiled for it is kept in the user's cache."""
        if self._rtx and self._compiled_file:
            with contextlib.suppress(EdgeError):
                write_bytes(self._compiled_file, bytes(self._compiled.serialize()))
            del self._compiled
        self._graphs.clear()
        del self._context, self._engine, self._runtime
        self._gpu.close()


def check_version(manifest: Manifest, version: str, name: str) -> None:
    """EdgeError with status 5 unless the engine was built by this very version."""
    builder = manifest.flags.get("builder")
    built_by = manifest.tools.get(str(builder))
    if built_by != version:
        raise _refusal(name, f"was built by {builder} {built_by}, and {version} is here")


def check_device(manifest: Manifest, device: Device, name: str) -> None:
    """EdgeError with status 5 unless the engine was built for this kind of GPU."""
    built_for = manifest.flags.get("compute_capabilities", ())
    if device.capability not in built_for:
        raise _refusal(
            name,
            f"was built for compute capability {', '.join(built_for)}, and {device.name} is of"
            f" {device.capability}",
        )


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


def _refusal(name: str, reason: str) -> EdgeError:
    return EdgeError(f"{name}: {reason}. {_fix(name)}", EXIT_MISSING)


def _fix(name: str) -> str:
    """The command that builds an engine anew, of the ONNX file that it lies under."""
    path = Path(name)
    source = path.parent.parent.parent / f"{path.stem}.onnx"
    return f"Build it on this device with: python -m export.tensorrt --artifact {source}"
