"""ONNX Runtime on the CPU, the backend that is always there, or by its providers on a GPU."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from runtime.backends.base import ALL_CORES, Closing, Threads, check_lr, contract_side
from runtime.backends.onnx_bytes import computes_in_half, pairs_are_misread, refuse_external_data
from runtime.cpu import computes_in_fp16, is_arm, usable_cores
from runtime.errors import EXIT_MISSING, EdgeError
from runtime.image import SR_SIDE, Tensor
from runtime.telemetry import disable_telemetry

if TYPE_CHECKING:
    import onnxruntime as ort

FIX = "Create it again with: python -m export.onnx"
_CUDA = ("CUDAExecutionProvider", {"use_tf32": "0"})
GPU_PROVIDERS = {"cuda": [_CUDA], "tensorrt": [("TensorrtExecutionProvider", {}), _CUDA]}
# FP16 kernels for Arm were wrong up to this version (docs/arm.md); the probes tell of later ones.
LAST_WRONG_FP16_ON_ARM = (1, 31)
SILENT = 4  # onnxruntime's severity 'fatal': what goes wrong is raised, not logged as well


class OnnxRuntimeSession(Closing):
    """An ONNX model of the project's contract, open in ONNX Runtime.

    `model` is the content of the file, so that what was hashed is what runs; `name` is for
    messages. Any number of threads may call `run`; it is prepared for those that `threads` says.
    Raises EdgeError if ONNX Runtime is missing or cannot open it, or if the contract is another.
    """

    name = "onnxruntime"

    def __init__(self, model: bytes, name: str, *, threads: Threads = ALL_CORES) -> None:
        onnxruntime = import_onnxruntime()
        self._file = name
        self.version: str = onnxruntime.__version__
        _refuse_fp16(model, name, self.version)
        refuse_external_data(model, name)
        settings = onnxruntime.SessionOptions()
        _share_cores(settings, threads)
        misread = pairs_are_misread(model)
        self.options = f"cpu, {'no' if misread else 'all'} graph optimizations, {threads}"
        if misread:
            settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session = _open(model, name, settings)
        self.lr_side = _check_contract(self._session, name)

    def run(self, lr: Tensor) -> Tensor:
        """Upscale lr (N, 3, S, S), float32 in [0, 1], to (N, 3, 128, 128), not clipped."""
        check_lr(lr, self.lr_side)
        try:
            (sr,) = self._session.run(["sr"], {"lr": lr})
        except Exception as error:
            raise EdgeError(
                f"{self._file}: ONNX Runtime cannot run it ({_first_line(error)}). {FIX}"
            ) from error
        return sr

    def close(self) -> None:
        """Give the model's memory back; ONNX Runtime does so when the session is forgotten."""
        del self._session


class OptimizedSession(OnnxRuntimeSession):
    """The same of what optimize() made, in ONNX Runtime's own format, opened by its path.

    ONNX Runtime reads the file into the place where it needs it; it would copy bytes, which Python
    holds as well.
    """

    def __init__(self, path: str, name: str, *, threads: Threads = ALL_CORES) -> None:
        onnxruntime = import_onnxruntime()
        self._file = name
        self.version = onnxruntime.__version__
        settings = onnxruntime.SessionOptions()
        _share_cores(settings, threads)
        self.options = f"cpu, all graph optimizations, {threads}"
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        settings.add_session_config_entry("session.load_model_format", "ORT")
        self._session = _open(path, name, settings)
        self.lr_side = _check_contract(self._session, name)


def fp16_fault(model: bytes, version: str) -> str | None:
    """Why a model that computes in FP16 is not run on this CPU; None if it may be.

    Grouped FP16 convolutions were wrong on Arm, and FP16 pooling of opset 19 did not open.
    """
    if not is_arm() or computes_in_fp16() is False or _release(version) > LAST_WRONG_FP16_ON_ARM:
        return None
    if not computes_in_half(model):
        return None
    return (
        f"it computes in FP16, which ONNX Runtime {version} gets wrong on Arm processors; take"
        " fp16.onnx, which stores FP16 and computes in FP32: python -m quantize.fp16 --target cpu"
    )


def _release(version: str) -> tuple[int, ...]:
    """(1, 31) of '1.31.1'; zeros stand for what is no number."""
    parts = [*version.split("."), "", ""][:2]
    return tuple(int(part) if part.isdecimal() else 0 for part in parts)


class OnnxRuntimeGpuSession(OnnxRuntimeSession):
    """The same on an NVIDIA GPU, by ONNX Runtime's CUDA or TensorRT provider, and never elsewhere.

    ONNX Runtime goes on with the CPU where a provider cannot be loaded or lacks an operator: that
    is an EdgeError with status 5 here. FP32 is FP32, without TF32.
    """

    def __init__(self, model: bytes, name: str, provider: str) -> None:
        onnxruntime = import_onnxruntime()
        self.name = f"onnxruntime-{provider}"
        self.options = f"{provider}, no TF32, no fallback to the CPU"
        self.version = onnxruntime.__version__
        self._file = name
        wanted = GPU_PROVIDERS[provider]
        if wanted[0][0] not in onnxruntime.get_available_providers():
            raise EdgeError(
                f"--provider {provider}: the installed ONNX Runtime has no {wanted[0][0]}; pip"
                " uninstall onnxruntime, then pip install onnxruntime-gpu",
                EXIT_MISSING,
            )
        refuse_external_data(model, name)
        onnxruntime.set_default_logger_severity(SILENT)  # a library that is missing is raised below
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = SILENT
        settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        try:
            self._session = onnxruntime.InferenceSession(
                model, settings, providers=wanted, enable_fallback=0
            )
        except Exception as error:
            reason = _missing_library(onnxruntime, provider) or _first_line(error)
            raise EdgeError(
                f"--provider {provider}: ONNX Runtime cannot run {name} on it alone ({reason});"
                " fix CUDA and cuDNN, or take --provider cpu",
                EXIT_MISSING,
            ) from error
        refuse_fallback(self._session.get_providers(), provider)
        self._session.disable_fallback()
        self.lr_side = _check_contract(self._session, name)


def _refuse_fp16(model: bytes, name: str, version: str) -> None:
    if fault := fp16_fault(model, version):
        raise EdgeError(f"{name}: {fault}", EXIT_MISSING)


def _missing_library(onnxruntime: ModuleType, provider: str) -> str | None:
    """The library that a provider's own one wants and that is not here; None if it is another."""
    import ctypes

    folder = Path(onnxruntime.__file__ or "").parent / "capi"
    try:
        ctypes.CDLL(str(folder / f"libonnxruntime_providers_{provider}.so"))
    except OSError as error:
        return str(error) if "cannot open shared object" in str(error) else None
    return None


def refuse_fallback(taken: Sequence[str], provider: str) -> None:
    """EdgeError with status 5 unless the provider asked for is the first of those taken."""
    wanted = GPU_PROVIDERS[provider][0][0]
    if not taken or taken[0] != wanted:
        raise EdgeError(
            f"--provider {provider}: ONNX Runtime could not load {wanted} and would use"
            f" {', '.join(taken) or 'nothing'}; fix CUDA and cuDNN, or take --provider cpu",
            EXIT_MISSING,
        )


def optimize(model: bytes, name: str, suffix: str = ".onnx") -> bytes:
    """The model as ONNX Runtime optimizes it for this processor: it opens in half the time.

    With the suffix `.ort` it is in ONNX Runtime's own format, which opens sooner and takes less
    memory. EdgeError if it cannot be opened, or if its contract is another.
    """
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"optimized{suffix}")
        onnxruntime = import_onnxruntime()
        _refuse_fp16(model, name, onnxruntime.__version__)
        refuse_external_data(model, name)
        settings = onnxruntime.SessionOptions()
        settings.optimized_model_filepath = str(path)
        _share_cores(settings, ALL_CORES)
        _check_contract(_open(model, name, settings), name)
        return path.read_bytes()


def open_model(model: bytes, name: str) -> ort.InferenceSession:
    """Any ONNX model, of whatever contract; EdgeError if it cannot be opened.

    It runs beside others, so its threads do not spin while they wait.
    """
    refuse_external_data(model, name)
    settings = import_onnxruntime().SessionOptions()
    _share_cores(settings, ALL_CORES)
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return _open(model, name, settings)


def _share_cores(settings: ort.SessionOptions, threads: Threads) -> None:
    """Set the threads of a call; they spin while they wait only if nothing else wants the cores.

    Between calls they sleep: those that go on spinning take a core from what is done with a face,
    and waking them costs a face 0.01 to 0.03 ms (dev/LOG.md).
    """
    cores = usable_cores()
    if threads.each is not None:
        settings.intra_op_num_threads = threads.each
    elif cores < (os.cpu_count() or 1):  # it would take all, and pin threads to them
        settings.intra_op_num_threads = cores
    settings.add_session_config_entry("session.force_spinning_stop", "1")
    if not threads.spin or threads.callers > 1 or (threads.each or cores) < cores:
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")


def _open(model: bytes | str, name: str, settings: ort.SessionOptions) -> ort.InferenceSession:
    settings.log_severity_level = SILENT
    try:
        return import_onnxruntime().InferenceSession(
            model, settings, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # a dozen kinds, without a base of their own
        raise EdgeError(
            f"{name}: ONNX Runtime cannot open it ({_first_line(error)}). {FIX}"
        ) from error


def import_onnxruntime() -> ModuleType:
    """Import ONNX Runtime without its telemetry; EdgeError with status 5 if it is missing."""
    disable_telemetry()
    try:
        import onnxruntime
    except ImportError as error:
        raise EdgeError(
            "backend onnxruntime is not installed; pip install onnxruntime", EXIT_MISSING
        ) from error
    except Exception as error:
        raise EdgeError(
            f"backend onnxruntime cannot be loaded ({_first_line(error)}); pip install"
            " --force-reinstall onnxruntime",
            EXIT_MISSING,
        ) from error
    return onnxruntime


def _check_contract(session: ort.InferenceSession, name: str) -> int:
    """S of the input lr (batch, 3, S, S); output sr (batch, 3, 128, 128), float32, any batch."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    lr_side = contract_side(inputs[0].shape if inputs else ())
    sides = (("input", inputs, "lr", lr_side), ("output", outputs, "sr", SR_SIDE))
    for kind, tensors, expected_name, side in sides:
        found = ", ".join(f"{tensor.name} {tensor.type} {tensor.shape}" for tensor in tensors)
        fits = (
            len(tensors) == 1
            and tensors[0].name == expected_name
            and tensors[0].type == "tensor(float)"
            and tensors[0].shape[1:] == [3, side, side]
            and not isinstance(tensors[0].shape[0], int)
        )
        if not fits:
            raise EdgeError(
                f"{name}: {kind} is {found}, expected {expected_name} tensor(float)"
                f" (batch, 3, {side}, {side}). {FIX}"
            )
    return lr_side


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
