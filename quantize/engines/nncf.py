"""NNCF as the engine: nncf.quantize on the ONNX model, its own statistics and bias correction.

The layers kept in FP32, and all operators that the project never quantizes, are its ignored scope.
Its OpenVINO format has no way back to ONNX, which is what an artifact is; a pass on the zero points
makes its ONNX file exact in OpenVINO too (quantize.engines.zero_points).
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any, Literal

from onnx import ModelProto

from quantize.activations import find_extremes
from quantize.engines.zero_points import make_signed, make_unsigned
from quantize.layers import Layer
from quantize.qdq import Range, copy, quantize_results
from quantize.source import SourceModel
from quantize.targets import Target
from runtime.errors import EXIT_MISSING, EdgeError
from runtime.image import Pixels, Tensor
from runtime.telemetry import disable_telemetry

EXTRA = "pip install 'aminet-edge[nncf]'"
# What a version of NNCF raises whose interface is another.
OTHER_API = (AttributeError, ImportError, TypeError)


@dataclass(frozen=True)
class NncfOptions:
    """`smooth_quant`: its strength for convolutions, None without; `bias_correction`: None without.

    `per_channel`: of depthwise convolutions, a scale for each channel of the input; no target can
    compute that in INT8.
    """

    smooth_quant: float | None = None
    bias_correction: Literal["fast", "accurate"] | None = "fast"
    per_channel: bool = False


class NncfEngine:
    """NNCF with one set of options; collects its statistics anew for each set of layers."""

    name = "nncf"
    quick = False

    def __init__(
        self, source: SourceModel, faces: Pixels, options: NncfOptions = NncfOptions()
    ) -> None:
        self._nncf = import_nncf()
        self.version: str = self._nncf.__version__.partition("+")[0]
        self._source, self._options = source, options
        self._faces, self._lr = faces, source.feed(faces)

    def quantize(self, layers: Sequence[Layer], target: Target) -> ModelProto:
        model = name_operators(self._source.model)
        chosen = {layer.node for layer in layers}
        ignored = [node.name for node in model.graph.node if node.name not in chosen]
        try:
            with _quiet():
                quantized = self._quantize(model, ignored, target)
        except OTHER_API as error:
            raise _other_api(self.version, error) from error
        if target.signed:
            return make_signed(quantized)
        quantized = make_unsigned(quantized)
        if target.quantized_results:  # NNCF quantizes inputs only
            return quantize_results(quantized, layers, self._result_ranges)
        return quantized

    @cached_property
    def _result_ranges(self) -> dict[str, Range]:
        found = find_extremes(
            self._source.model, self._source.layers, self._faces, self._source.feed
        )
        return {name: extremes.range for name, extremes in found.items()}

    def _quantize(self, model: ModelProto, ignored: list[str], target: Target) -> ModelProto:
        nncf, options = self._nncf, self._options
        from nncf.quantization.advanced_parameters import (
            AdvancedSmoothQuantParameters,
            QuantizationParameters,
        )

        preset, strength = nncf.QuantizationPreset, options.smooth_quant
        advanced = nncf.AdvancedQuantizationParameters(
            activations_quantization_params=QuantizationParameters(
                per_channel=None if options.per_channel else False
            ),
            smooth_quant_alphas=AdvancedSmoothQuantParameters(
                convolution=-1.0 if strength is None else strength, matmul=-1.0
            ),
            disable_bias_correction=options.bias_correction is None,
        )
        return nncf.quantize(
            model,
            nncf.Dataset([{model.graph.input[0].name: face} for face in _one_by_one(self._lr)]),
            preset=preset.PERFORMANCE if target.signed else preset.MIXED,
            subset_size=len(self._lr),
            fast_bias_correction=options.bias_correction != "accurate",
            # NNCF leaves SmoothQuant out of any other kind of model, whatever its strength.
            model_type=None if strength is None else nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(names=ignored),
            advanced_parameters=advanced,
        )


def import_nncf() -> ModuleType:
    """Import NNCF without its telemetry; EdgeError with status 5 if it is absent or another."""
    disable_telemetry()
    try:
        with _quiet():
            import nncf
    except ImportError as error:
        raise EdgeError(
            f"--engine nncf: {error.name} is not installed; {EXTRA}", EXIT_MISSING
        ) from error
    try:
        nncf.set_log_level(logging.ERROR)
        _ = (nncf.quantize, nncf.Dataset, nncf.IgnoredScope, nncf.QuantizationPreset.MIXED)
    except OTHER_API as error:
        raise _other_api(getattr(nncf, "__version__", "unknown"), error) from error
    return nncf


def _other_api(version: str, error: Exception) -> EdgeError:
    return EdgeError(
        f"--engine nncf: nncf {version} has another API ({error}), expected 2.17 or newer; {EXTRA}",
        EXIT_MISSING,
    )


def name_operators(model: ModelProto) -> ModelProto:
    """A copy in which each operator has a name: its own, else that of its first output."""
    model = copy(model)
    for node in model.graph.node:
        node.name = node.name or node.output[0]
    return model


def _one_by_one(lr: Tensor) -> Iterator[Any]:
    return (face[None] for face in lr)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence NNCF's progress bars, which would stand in our JSON, and its advice."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
