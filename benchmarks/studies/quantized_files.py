"""INT8 files of one network by each post-training quantizer, ours among them."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness.baselines import FaceReader, import_nncf, quietly
from quantize.int8 import quantize
from quantize.source import SourceModel
from quantize.targets import TARGETS
from runtime.atomic import read_bytes
from runtime.backends.onnxruntime import OnnxRuntimeSession, import_onnxruntime
from runtime.backends.open import Runner
from runtime.backends.openvino import OpenVinoSession, import_openvino
from runtime.image import Tensor
from runtime.manifest import manifest_path, probes_path
from runtime.progress import Progress

MAX_BYTES = 1 << 30
OUR_OBSERVER = "min/max, contrast-augmented"
OBSERVERS = ("MinMax", "Percentile", "Entropy")  # of onnxruntime.quantization
NNCF_OBSERVERS = ("MINMAX", "MEAN_NO_OUTLIERS_MINMAX")


@dataclass(frozen=True)
class QuantizedFile:
    """A quantizer's file; OpenVINO's own format has `weights` apart and runs only there."""

    quantizer: str
    observer: str
    content: bytes
    weights: bytes = b""

    @property
    def backends(self) -> tuple[str, ...]:
        return ("openvino",) if self.weights else ("onnxruntime", "openvino")

    def open(self, backend: str) -> Runner:
        if backend == "openvino":
            return OpenVinoSession(self.content, self.quantizer, self.weights)
        return OnnxRuntimeSession(self.content, self.quantizer)


def quantize_with_all(
    source: SourceModel, lr: Tensor, calib: Sequence[str | Path], progress: Progress
) -> Iterator[QuantizedFile]:
    """Quantize a source model with every quantizer, calibrated with faces lr (N, 3, S, S)."""
    yield from _with_int8(source, calib, progress)
    yield from _with_onnxruntime(source, lr, progress)
    yield from _with_nncf(source, lr, progress)


def _with_int8(
    source: SourceModel, calib: Sequence[str | Path], progress: Progress
) -> Iterator[QuantizedFile]:
    """Each target's file, as `quantize.int8` writes it without real faces."""
    for target in TARGETS.values():
        progress(f"quantize.int8 for {target.name}")
        with tempfile.TemporaryDirectory() as folder:
            fp32 = Path(folder, "fp32.onnx")
            for of in (Path, manifest_path, probes_path):
                shutil.copy(of(source.path), of(fp32))
            made = quantize(fp32, calib, [target])
            if made.failures:
                progress(made.failures[0])
                continue
            content = read_bytes(Path(folder, target.file), MAX_BYTES)
        yield QuantizedFile(f"quantize.int8, {target.name}", OUR_OBSERVER, content)


def _with_onnxruntime(
    source: SourceModel, lr: Tensor, progress: Progress
) -> Iterator[QuantizedFile]:
    """onnxruntime.quantization of the convolutions: U8S8 with each observer, and S8S8."""
    import_onnxruntime()  # with its telemetry disabled
    from onnxruntime.quantization import CalibrationMethod, QuantType

    signed = {"ActivationSymmetric": True, "WeightSymmetric": True}
    for observer in OBSERVERS:
        progress(f"onnxruntime.quantization, {observer}")
        method = getattr(CalibrationMethod, observer)
        content = _quantize_static(source, lr, method, QuantType.QUInt8, {})
        yield QuantizedFile("onnxruntime.quantization, U8S8", observer, content)
    progress("onnxruntime.quantization, S8S8")
    content = _quantize_static(source, lr, CalibrationMethod.MinMax, QuantType.QInt8, signed)
    yield QuantizedFile("onnxruntime.quantization, S8S8", "MinMax", content)


def _quantize_static(
    source: SourceModel, lr: Tensor, method: Any, activations: Any, options: dict[str, Any]
) -> bytes:
    from onnxruntime.quantization import QuantType, quantize_static

    with tempfile.TemporaryDirectory() as folder, quietly():
        path = Path(folder, "int8.onnx")
        quantize_static(
            source.path,
            path,
            FaceReader(lr),
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=activations,
            weight_type=QuantType.QInt8,
            calibrate_method=method,
            extra_options=options,
        )
        return read_bytes(path, MAX_BYTES)


def _with_nncf(source: SourceModel, lr: Tensor, progress: Progress) -> Iterator[QuantizedFile]:
    """NNCF's post-training quantization, mixed preset, of ONNX and of OpenVINO's format."""
    openvino, nncf = import_openvino(), import_nncf()
    for observer in NNCF_OBSERVERS:
        progress(f"NNCF on the ONNX file, {observer}")
        with quietly():
            quantized = _quantize_with_nncf(nncf, source.model, lr, observer)
        yield QuantizedFile("NNCF on ONNX", observer, quantized.SerializeToString())
        progress(f"NNCF on OpenVINO's format, {observer}")
        with tempfile.TemporaryDirectory() as folder, quietly():
            model = openvino.Core().read_model(source.content)
            xml = Path(folder, "int8.xml")
            quantized = _quantize_with_nncf(nncf, model, lr, observer)
            openvino.save_model(quantized, xml, compress_to_fp16=False)
            parts = [read_bytes(path, MAX_BYTES) for path in (xml, xml.with_suffix(".bin"))]
        yield QuantizedFile("NNCF on OpenVINO", observer, *parts)


def _quantize_with_nncf(nncf: Any, model: Any, lr: Tensor, observer: str) -> Any:
    from nncf.quantization.advanced_parameters import QuantizationParameters
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    advanced = nncf.AdvancedQuantizationParameters(
        activations_range_estimator_params=getattr(RangeEstimatorParametersSet, observer),
        activations_quantization_params=QuantizationParameters(per_channel=False),
    )
    return nncf.quantize(
        model,
        nncf.Dataset([{"lr": face[None]} for face in lr]),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(lr),
        advanced_parameters=advanced,
    )
