"""Compare post-training INT8 quantizers on one network: same FP32 artifact, same faces.

    python -m benchmarks.studies.quantizers --data celeba-val.tar
        [--out docs/measured/quantizers.json]

NNCF on the ONNX file and on OpenVINO's own format, onnxruntime.quantization with each of its
observers, and quantize.int8: each file is evaluated in ONNX Runtime and in OpenVINO, on calibration
faces that were held out and on real ones. Speed is measured by benchmarks.latency alone.
"""

import argparse
import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.harness.machine import versions
from benchmarks.harness.study import report, study_parser
from quantize.arguments import add_inputs
from quantize.options import ARTIFACT
from runtime.cpu import processor
from runtime.dataset import load_faces
from runtime.errors import needs, run_command
from runtime.image import shrink, to_tensor
from runtime.progress import Progress, Steps, silent

if TYPE_CHECKING:
    from benchmarks.studies.quantized_files import QuantizedFile
    from quantize.source import SourceModel
    from runtime.evaluation import Evaluator

OUT = Path("docs", "measured", "quantizers.json")
BACKENDS = ("onnxruntime", "openvino")
TOOLS = ("onnx", "onnxruntime", "openvino", "nncf")


@dataclass(frozen=True)
class QuantizerRow:
    """One quantizer's file in one backend; the drift is None without real faces."""

    quantizer: str
    observer: str
    backend: str
    bytes: int
    fidelity_db: float
    worst_fidelity_db: float
    drift_db: float | None
    worst_drift_db: float | None
    int8_mac_share: float


@dataclass(frozen=True)
class QuantizerComparison:
    """`calibration_faces` calibrated all files, on `real_faces` others their drift was measured."""

    rows: tuple[QuantizerRow, ...]
    model: str
    checkpoint_sha256: str
    calibration_faces: int
    real_faces: int
    processor: str
    versions: Mapping[str, str]


def compare_quantizers(
    artifact: str | Path = ARTIFACT,
    calib: Sequence[str | Path] = ("calib_data",),
    data: Sequence[str] = (),
    progress: Progress = silent,
) -> QuantizerComparison:
    """Let each quantizer convert an FP32 artifact, and evaluate what it makes."""
    from benchmarks.studies.quantized_files import QuantizedFile, quantize_with_all
    from quantize.calibration import read_calibration
    from quantize.source import read_source
    from runtime.evaluation import Evaluator

    source = read_source(artifact)
    faces = read_calibration(calib, source.manifest.lr_side)
    real = load_faces(data) if data else None
    fp32 = QuantizedFile("none", "", source.content)
    with fp32.open("onnxruntime") as runner:
        evaluators = [Evaluator(runner.run, faces.held_out)]
        if real is not None:
            lr = np.stack([shrink(face, source.manifest.lr_side) for face in real])
            evaluators.append(Evaluator(runner.run, lr, real))
    files = [fp32, *quantize_with_all(source, to_tensor(faces.faces), calib, progress)]
    rows = [row for name in BACKENDS for row in evaluate(source, files, name, evaluators, progress)]
    return QuantizerComparison(
        rows=tuple(rows),
        model=source.manifest.model,
        checkpoint_sha256=source.manifest.checkpoint_sha256,
        calibration_faces=len(faces.faces),
        real_faces=0 if real is None else len(real),
        processor=processor(),
        versions=versions(TOOLS),
    )


def evaluate(
    source: "SourceModel",
    files: "Sequence[QuantizedFile]",
    backend: str,
    evaluators: "Sequence[Evaluator]",
    progress: Progress,
) -> Iterator[QuantizerRow]:
    """Evaluate the files that a backend runs: fidelity on synthetic faces, drift on real ones."""
    from quantize.precision import int8_layers

    for file in files:
        if backend not in file.backends:
            continue
        progress(f"{file.quantizer}, {file.observer}: evaluating in {backend}")
        with contextlib.closing(file.open(backend)) as runner:
            names = int8_layers(runner, file.content, source.layers)
            computed = sum(layer.macs for layer in source.layers if layer.name in names)
            found = [evaluator.evaluate(runner.run) for evaluator in evaluators]
            yield QuantizerRow(
                quantizer=file.quantizer,
                observer=file.observer,
                backend=backend,
                bytes=len(file.content) + len(file.weights),
                fidelity_db=found[0].fidelity_db,
                worst_fidelity_db=found[0].worst_fidelity_db,
                drift_db=found[-1].drift_db,
                worst_drift_db=found[-1].worst_drift_db,
                int8_mac_share=computed / source.macs,
            )


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    with needs("train,export,quantize,eval,bench"):
        from benchmarks.results import quantizers_table
    with Steps() as steps:
        result = compare_quantizers(arguments.artifact, arguments.calib, arguments.data, steps)
    return report(arguments, asdict(result), quantizers_table(result))


def _parser() -> argparse.ArgumentParser:
    parser = study_parser("quantizers", __doc__, OUT)
    add_inputs(parser)
    parser.add_argument(
        "--data",
        nargs="+",
        default=(),
        metavar="TAR_OR_DIR",
        help="real 128x128 faces to measure the drift on (default: none)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
