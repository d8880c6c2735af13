"""Another image network than AMINet, open in ONNX Runtime or OpenVINO by its own contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from runtime.backends.onnx_bytes import refuse_external_data
from runtime.backends.onnxruntime import OnnxRuntimeSession, import_onnxruntime, open_model
from runtime.backends.openvino import SETTINGS, OpenVinoSession, import_openvino
from runtime.errors import EXIT_USAGE, EdgeError
from runtime.network import Network

if TYPE_CHECKING:
    from runtime.image import Tensor


class OnnxRuntimeNetwork(OnnxRuntimeSession):
    """The network in ONNX Runtime on the CPU; images one by one where its batch is fixed."""

    def __init__(self, model: bytes, name: str, network: Network) -> None:
        self.version = import_onnxruntime().__version__
        self.options = "cpu, all graph optimizations"
        self._file, self._network = name, network
        self._session = open_model(model, name)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        _check_names([i.name for i in inputs], [o.name for o in outputs], network, name)
        self._any_batch = not isinstance(inputs[0].shape[0], int)

    def run(self, lr: Tensor) -> Tensor:
        """Run RGB images (N, 3, H, W), float32 in [0, 1], to RGB (N, 3, H', W'), not clipped."""
        fed = self._network.feed(lr)
        batches = [fed] if self._any_batch else np.split(fed, len(fed))
        try:
            made = [
                self._session.run([self._network.output], {self._network.input: batch})[0]
                for batch in batches
            ]
        except Exception as error:
            raise _cannot_run(self._file, "ONNX Runtime", error) from error
        return self._network.read(np.concatenate(made))


class OpenVinoNetwork(OpenVinoSession):
    """The network in OpenVINO on the CPU."""

    def __init__(self, model: bytes, name: str, network: Network) -> None:
        openvino = import_openvino()
        refuse_external_data(model, name)
        self.version = openvino.__version__.partition("-")[0]
        self.options = "cpu, float32 where not quantized"
        self._file, self._network = name, network
        try:
            core = openvino.Core()
            self._compiled = core.compile_model(core.read_model(model), "CPU", SETTINGS)
        except Exception as error:  # RuntimeError and others, from C++
            raise EdgeError(f"{name}: OpenVINO cannot open it ({_last_line(error)})") from error
        inputs, outputs = self._compiled.inputs, self._compiled.outputs
        _check_names([i.any_name for i in inputs], [o.any_name for o in outputs], network, name)
        self._any_batch = not inputs[0].partial_shape[0].is_static

    def run(self, lr: Tensor) -> Tensor:
        """Run RGB images (N, 3, H, W), float32 in [0, 1], to RGB (N, 3, H', W'), not clipped."""
        fed = self._network.feed(lr)
        batches = [fed] if self._any_batch else np.split(fed, len(fed))
        try:
            made = [
                self._compiled.create_infer_request().infer({self._network.input: batch})
                for batch in batches
            ]
        except Exception as error:
            raise _cannot_run(self._file, "OpenVINO", error) from error
        return self._network.read(np.concatenate([each[self._network.output] for each in made]))


Opener = Callable[[bytes, str, Network], "OnnxRuntimeNetwork | OpenVinoNetwork"]
OPENERS: Mapping[str, Opener] = {"onnxruntime": OnnxRuntimeNetwork, "openvino": OpenVinoNetwork}


def open_network(
    backend: str, model: bytes, name: str, network: Network
) -> OnnxRuntimeNetwork | OpenVinoNetwork:
    """Open another network's ONNX file; EdgeError for a backend that runs AMINet only."""
    if backend not in OPENERS:
        raise EdgeError(
            f"{name}: is another network than AMINet, which --backend {backend} does not run;"
            f" expected {' or '.join(OPENERS)}",
            EXIT_USAGE,
        )
    return OPENERS[backend](model, name, network)


def _check_names(inputs: list[str], outputs: list[str], network: Network, name: str) -> None:
    if (inputs, outputs) != ([network.input], [network.output]):
        raise EdgeError(
            f"{name}: reads {', '.join(inputs)} and makes {', '.join(outputs)}, and its manifest"
            f" says {network.input} and {network.output}; make it again: python -m quantize.int8"
        )


def _cannot_run(name: str, library: str, error: Exception) -> EdgeError:
    return EdgeError(f"{name}: {library} cannot run it ({_last_line(error)})")


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
