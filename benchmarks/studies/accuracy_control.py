"""nncf.quantize_with_accuracy_control, with our expected drift as its metric: NNCF's own loop.

It quantizes all that it can, ranks the layers by what each costs, and keeps layers in FP32 until
the metric is within the budget. For cpu and tensorrt it works on the ONNX file, which then gets the
same pass on its zero points as the engine's; for openvino on OpenVINO's own format.
"""

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

from benchmarks.harness.baselines import quietly
from quantize.budget import Int8Candidate
from quantize.calibration import CalibrationSet
from quantize.engines.nncf import import_nncf, name_operators
from quantize.engines.zero_points import make_signed, make_unsigned
from quantize.layers import Layer
from quantize.precision import open_quietly
from quantize.quantizer import Quantizer
from quantize.source import SourceModel
from quantize.targets import Target
from runtime.backends.openvino import OpenVinoSession, import_openvino
from runtime.drift import budget_psnr_y, expected_drift_db
from runtime.evaluation import upscale_faces
from runtime.image import Tensor, mse_y, psnr_of_mse, to_pixels
from runtime.progress import Progress

NAME = "nncf with accuracy control"
RANKING_FACES = 16  # that rank the layers

Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class ControlledFile:
    """What NNCF's loop ended with: how it does, the bytes of its files, and the format."""

    candidate: Int8Candidate
    bytes: int
    format: str


class AccuracyControl:
    """NNCF's loop on one source model; the held-out faces are its validation set."""

    def __init__(
        self,
        source: SourceModel,
        calibration: CalibrationSet,
        quantizer: Quantizer,
        progress: Progress,
    ) -> None:
        self._source, self._quantizer, self._progress = source, quantizer, progress
        self._calibrating = source.feed(calibration.faces)
        self._validating = source.feed(calibration.held_out)
        with source.open(source.content) as fp32:
            self._expected = upscale_faces(fp32.run, calibration.held_out)

    def quantize(self, target: Target) -> ControlledFile:
        """A file for the target whose expected drift NNCF saw within the budget."""
        self._progress(f"{target.name}: {NAME}")
        if target.backend == "openvino":
            return self._in_openvino(target)
        model = name_operators(self._source.model)
        quantized = self._control(target, model, lambda model: _open_onnx(model))
        quantized = (make_signed if target.signed else make_unsigned)(quantized)
        content = self._source.serialize(quantized)
        layers = _quantized_layers(quantized, self._source.layers)
        candidate = self._quantizer.evaluate(target, content, layers)
        return ControlledFile(_named(candidate), len(content), "ONNX")

    def _in_openvino(self, target: Target) -> ControlledFile:
        openvino = import_openvino()
        model = openvino.Core().read_model(self._source.content)
        quantized = self._control(target, model, _run_compiled)
        with tempfile.TemporaryDirectory() as folder:
            xml = Path(folder, "int8.xml")
            openvino.save_model(quantized, xml, compress_to_fp16=False)
            content, weights = xml.read_bytes(), xml.with_suffix(".bin").read_bytes()
        with OpenVinoSession(content, NAME, weights) as session:
            computed = session.convolutions()
            layers = [
                layer for layer in self._source.layers if computed.get(layer.node) in ("u8", "i8")
            ]
            candidate = self._quantizer.evaluate_open(target, session, content, layers)
        candidate = replace(candidate, computed=frozenset(layer.name for layer in layers))
        return ControlledFile(
            _named(candidate), len(content) + len(weights), "OpenVINO's own format"
        )

    def _control(self, target: Target, model: Any, open_run: Callable[[Any], Run]) -> Any:
        nncf, psnr_y = import_nncf(), budget_psnr_y(self._source.manifest)
        preset = nncf.QuantizationPreset
        of_model = (lambda face: {model.graph.input[0].name: face}) if _is_onnx(model) else None

        def dataset(lr: Tensor) -> Any:
            return nncf.Dataset(
                range(len(lr)),
                lambda i: lr[i : i + 1] if of_model is None else of_model(lr[i : i + 1]),
            )

        def validate(opened: Any, faces: Iterable[int]) -> tuple[float, list[float]]:
            run, errors = open_run(opened), []
            for i in faces:
                sr = to_pixels(run(self._validating[i : i + 1]))
                errors.append(float(mse_y(sr, self._expected[i : i + 1])[0]))
            drifts_db = [expected_drift_db(psnr_y, psnr_of_mse(error)) for error in errors]
            whole_db = expected_drift_db(psnr_y, psnr_of_mse(float(np.mean(errors))))
            return -whole_db, [-drift_db for drift_db in drifts_db]

        with quietly():
            return nncf.quantize_with_accuracy_control(
                model,
                dataset(self._calibrating),
                dataset(self._validating),
                validate,
                max_drop=target.max_drop_db,
                drop_type=nncf.DropType.ABSOLUTE,
                preset=preset.PERFORMANCE if target.signed else preset.MIXED,
                subset_size=len(self._calibrating),
                advanced_quantization_parameters=_per_tensor() if _is_onnx(model) else None,
                advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                    ranking_subset_size=min(RANKING_FACES, len(self._validating))
                ),
            )


def _per_tensor() -> Any:
    """One scale for an activation: ONNX files with more are of no use to their targets."""
    nncf = import_nncf()
    from nncf.quantization.advanced_parameters import QuantizationParameters

    return nncf.AdvancedQuantizationParameters(
        activations_quantization_params=QuantizationParameters(per_channel=False)
    )


def _is_onnx(model: Any) -> bool:
    return isinstance(model, ModelProto)


def _open_onnx(model: ModelProto) -> Run:
    session = open_quietly(model.SerializeToString())
    name = session.get_inputs()[0].name
    return lambda lr: session.run(None, {name: lr})[0]


def _run_compiled(compiled: Any) -> Run:
    return lambda lr: next(iter(compiled(lr).values()))


def _quantized_layers(model: ModelProto, layers: Iterable[Layer]) -> list[Layer]:
    """Those whose weights the file has in 8 bits."""
    made = {name: node.op_type for node in model.graph.node for name in node.output}
    int8 = {
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and made.get(node.input[1]) == "DequantizeLinear"
    }
    return [layer for layer in layers if layer.node in int8]


def _named(candidate: Int8Candidate) -> Int8Candidate:
    return replace(candidate, engine=NAME, engine_version=import_nncf().__version__)
