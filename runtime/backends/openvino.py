"""OpenVINO on the CPU: an extra (`pip install aminet-edge[openvino]`), fast on x86 processors."""

from __future__ import annotations

import importlib.util
import os
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from runtime.backends.base import ALL_CORES, Closing, Threads, check_lr, contract_side
from runtime.backends.onnx_bytes import refuse_external_data
from runtime.cpu import usable_cores
from runtime.errors import EXIT_MISSING, EdgeError
from runtime.image import SR_SIDE, Tensor
from runtime.telemetry import disable_telemetry

if TYPE_CHECKING:
    from openvino import CompiledModel

FIX = "Create it again with: python -m export.onnx"
# Left to itself, OpenVINO computes FP32 models in BF16 where the processor can.
SETTINGS = {"INFERENCE_PRECISION_HINT": "f32"}


class OpenVinoSession(Closing):
    """An ONNX model of the project's contract, open in OpenVINO.

    `model` is the content of the file, so that what was hashed is what runs; `name` is for
    messages. OpenVINO's own format has its `weights` in a second file. Raises EdgeError if OpenVINO
    is missing or cannot open it, or if the contract is another.
    """

    name = "openvino"

    def __init__(
        self, model: bytes, name: str, weights: bytes = b"", threads: Threads = ALL_CORES
    ) -> None:
        openvino = import_openvino()
        if not weights:
            refuse_external_data(model, name)
        self._file = name
        self.options = f"cpu, float32 where not quantized, {threads}"
        self.version: str = openvino.__version__.partition("-")[0]
        try:
            core = openvino.Core()
            self._compiled = core.compile_model(
                core.read_model(model, weights), "CPU", _settings(threads)
            )
        except Exception as error:  # RuntimeError and others, from C++
            raise EdgeError(
                f"{name}: OpenVINO cannot open it ({_last_line(error)}). {FIX}"
            ) from error
        self.lr_side = _check_contract(self._compiled, name)

    def run(self, lr: Tensor) -> Tensor:
        """Upscale lr (N, 3, S, S), float32 in [0, 1], to (N, 3, 128, 128), not clipped."""
        check_lr(lr, self.lr_side)
        try:  # a request of its own for each call: threads share the session
            results = self._compiled.create_infer_request().infer({"lr": lr})
        except Exception as error:
            raise EdgeError(
                f"{self._file}: OpenVINO cannot run it ({_last_line(error)}). {FIX}"
            ) from error
        return np.array(results["sr"])

    def convolutions(self) -> dict[str, str]:
        """The precision that each convolution really runs in, by its name in the file: 'u8'."""
        precisions = {}
        for operation in self._compiled.get_runtime_model().get_ops():
            facts = operation.get_rt_info()
            if facts["layerType"].astype(str) == "Convolution":
                for name in facts["originalLayersNames"].astype(str).split(","):
                    precisions[name] = facts["runtimePrecision"].astype(str)
        return precisions

    def close(self) -> None:
        """Give the model's memory back; OpenVINO does so when the model is forgotten."""
        del self._compiled


def _settings(threads: Threads) -> dict[str, str]:
    """One stream of work for each call at once; alone, a call is to be done as soon as it can."""
    hint = "LATENCY" if threads.callers == 1 else "THROUGHPUT"
    settings = {**SETTINGS, "PERFORMANCE_HINT": hint}
    if threads.callers > 1:
        settings["NUM_STREAMS"] = str(threads.callers)
    each = threads.each
    if each is None and usable_cores() < (os.cpu_count() or 1):  # by a quota, which it may not know
        each = usable_cores()
    if each is not None:
        settings["INFERENCE_NUM_THREADS"] = str(each * threads.callers)
    return settings


def is_installed() -> bool:
    """Whether OpenVINO is there; it is not imported."""
    return importlib.util.find_spec("openvino") is not None


def import_openvino() -> ModuleType:
    """Import OpenVINO without its telemetry, which reports the import and writes under the home."""
    disable_telemetry()
    try:
        import openvino
    except ImportError as error:
        raise EdgeError(
            "backend openvino is not installed; pip install 'aminet-edge[openvino]'", EXIT_MISSING
        ) from error
    except Exception as error:
        raise EdgeError(
            f"backend openvino cannot be loaded ({_last_line(error)}); pip install"
            " --force-reinstall openvino",
            EXIT_MISSING,
        ) from error
    # pybind11 looks NumPy up at the first array: two threads that both bring the first one wait for
    # each other for ever, one with its lock and one with Python's.
    openvino.Tensor(np.zeros(1, np.float32)).data  # noqa: B018
    return openvino


def _check_contract(compiled: CompiledModel, name: str) -> int:
    """S of the input lr (batch, 3, S, S); output sr (batch, 3, 128, 128), float32, any batch."""
    shape = compiled.inputs[0].partial_shape if compiled.inputs else ()
    lr_side = contract_side([size.get_length() if size.is_static else None for size in shape])
    sides = (("input", compiled.inputs, "lr", lr_side), ("output", compiled.outputs, "sr", SR_SIDE))
    for kind, tensors, expected_name, side in sides:
        found = [
            (t.any_name, t.element_type.get_type_name(), str(t.partial_shape)) for t in tensors
        ]
        if found != [(expected_name, "f32", f"[?,3,{side},{side}]")]:
            listed = ", ".join(" ".join(tensor) for tensor in found)
            raise EdgeError(
                f"{name}: {kind} is {listed}, expected {expected_name} f32 [?,3,{side},{side}];"
                f" {FIX}"
            )
    return lr_side


def _last_line(error: Exception) -> str:
    """OpenVINO's messages begin with a trace of its own source."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
