"""Which engine makes the best INT8 of a model: the same FP32 artifact and the same faces for all.

    python -m benchmarks.studies.quantizers --data celeba-val.tar [--out docs/measured/engines.json]

NNCF on the ONNX file and on OpenVINO's own format, onnxruntime.quantization with each of its
observers, and our recipe: each file is judged in ONNX Runtime and in OpenVINO, on calibration faces
kept out and on real ones. benchmarks.results writes the JSON as a table into docs/quantization.md.
"""

import argparse
import contextlib
import io
import json
import logging
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import EXIT_MISSING, EdgeError, needs, run_command

with needs("quantize,bench", __name__):
    from benchmarks.studies.ratios import times_as_fast
    from quantize.calibration import read_calibration
    from quantize.int8 import quantize
    from quantize.options import ARTIFACT
    from quantize.precision import int8_layers
    from quantize.source import SourceModel, read_source
    from quantize.targets import TARGETS

from runtime.atomic import read_bytes, write_bytes
from runtime.backends.onnxruntime import OnnxRuntimeSession
from runtime.backends.open import Runner
from runtime.backends.openvino import OpenVinoSession, import_openvino
from runtime.cpu import processor
from runtime.dataset import load_faces
from runtime.evaluation import Evaluation, Evaluator
from runtime.image import Tensor, shrink, to_tensor
from runtime.manifest import manifest_path, probes_path
from runtime.timing import take_turns

OUT, DOC = Path("docs", "measured", "engines.json"), Path("docs", "quantization.md")
BEGIN, END = "<!-- benchmarks.studies.quantizers -->", "<!-- end -->"
BACKENDS = ("onnxruntime", "openvino")
TURNS = 20
TOOLS = ("onnx", "onnxruntime", "openvino", "nncf")
MAX_BYTES = 1 << 30
OBSERVERS = ("MinMax", "Percentile", "Entropy")  # of onnxruntime.quantization
NNCF_OBSERVERS = ("MINMAX", "MEAN_NO_OUTLIERS_MINMAX")

Say = Callable[[str], None]


@dataclass(frozen=True)
class File:
    """What an engine made; OpenVINO's own format has its `weights` apart and runs only there."""

    engine: str
    observer: str
    content: bytes
    weights: bytes = b""

    @property
    def backends(self) -> tuple[str, ...]:
        return ("openvino",) if self.weights else BACKENDS

    def open(self, backend: str) -> Runner:
        if backend == "openvino":
            return OpenVinoSession(self.content, self.engine, self.weights)
        return OnnxRuntimeSession(self.content, self.engine)


@dataclass(frozen=True)
class Row:
    """One file in one backend. `speed`: times as fast as FP32 in that backend, in turns."""

    engine: str
    observer: str
    backend: str
    bytes: int
    fidelity_db: float
    worst_fidelity_db: float
    drift_db: float | None
    worst_drift_db: float | None
    int8_mac_share: float
    speed: float


@dataclass(frozen=True)
class Engines:
    """`calibration_faces` calibrated all of them, `real_faces` others judged their drift."""

    rows: tuple[Row, ...]
    model: str
    checkpoint_sha256: str
    calibration_faces: int
    real_faces: int
    processor: str
    versions: Mapping[str, str]


def engines(
    artifact: str | Path = ARTIFACT,
    calib: Sequence[str | Path] = ("calib_data",),
    data: Sequence[str] = (),
    turns: int = TURNS,
    say: Say = lambda step: None,
) -> Engines:
    """Let each engine quantize an FP32 artifact, and judge what it makes."""
    source, faces = read_source(artifact), read_calibration(calib)
    real = load_faces(data) if data else None
    fp32 = File("none", "", source.content)
    with fp32.open("onnxruntime") as runner:
        evaluators = [Evaluator(runner.run, faces.held_out)]
        if real is not None:
            lr = np.stack([shrink(face, source.lr_side) for face in real])
            evaluators.append(Evaluator(runner.run, lr, real))
    files = [fp32]
    for make in (ours, with_onnxruntime, with_nncf):
        files += make(source, to_tensor(faces.faces), calib, say)
    rows = [
        row
        for backend in BACKENDS
        for row in compare(source, files, backend, evaluators, turns, say)
    ]
    return Engines(
        rows=tuple(rows),
        model=source.manifest.model,
        checkpoint_sha256=source.manifest.checkpoint_sha256,
        calibration_faces=len(faces.faces),
        real_faces=0 if real is None else len(real),
        processor=processor(),
        versions=dict(_versions()),
    )


def compare(
    source: SourceModel,
    files: Sequence[File],
    backend: str,
    evaluators: Sequence[Evaluator],
    turns: int,
    say: Say,
) -> Iterator[Row]:
    """Evaluate the files that run in a backend, FP32 first, and time them interleaved."""
    with contextlib.ExitStack() as stack:
        fitting = [file for file in files if backend in file.backends]
        runners = [file.open(backend) for file in fitting]
        for runner in runners:
            stack.callback(runner.close)
        lr = to_tensor(source.probes.lr[:1])
        say(f"timing {len(runners)} files in {backend}")
        times = take_turns([runner.run for runner in runners], lr, turns)
        for file, runner, own_ms in zip(fitting, runners, times, strict=True):
            say(f"{file.engine}, {file.observer}: judging in {backend}")
            seen = [evaluator.evaluate(runner.run) for evaluator in evaluators]
            yield _row(source, file, runner, seen, times_as_fast(own_ms, times[0]))


def _row(
    source: SourceModel, file: File, runner: Runner, seen: Sequence[Evaluation], speed: float
) -> Row:
    names = int8_layers(runner, file.content, source.layers)
    computed = sum(layer.macs for layer in source.layers if layer.name in names)
    return Row(
        engine=file.engine,
        observer=file.observer,
        backend=runner.name,
        bytes=len(file.content) + len(file.weights),
        fidelity_db=seen[0].fidelity_db,
        worst_fidelity_db=seen[0].worst_fidelity_db,
        drift_db=seen[-1].drift_db,
        worst_drift_db=seen[-1].worst_drift_db,
        int8_mac_share=computed / source.macs,
        speed=speed,
    )


def ours(source: SourceModel, lr: Tensor, calib: Sequence[str | Path], say: Say) -> Iterator[File]:
    """Each target's own file, as `quantize.int8` writes it without real faces."""
    for target in TARGETS.values():
        say(f"our recipe for {target.name}")
        with tempfile.TemporaryDirectory() as folder:
            fp32 = Path(folder, "fp32.onnx")
            for of in (Path, manifest_path, probes_path):
                shutil.copy(of(source.path), of(fp32))
            made = quantize(fp32, calib, [target])
            if made.failures:
                say(made.failures[0])
                continue
            content = read_bytes(Path(folder, target.file), MAX_BYTES)
        yield File(f"quantize.int8, {target.name}", "min/max, harsher faces", content)


def with_onnxruntime(
    source: SourceModel, lr: Tensor, calib: Sequence[str | Path], say: Say
) -> Iterator[File]:
    """Its static quantization of the convolutions: U8S8 with each observer, and S8S8."""
    from onnxruntime.quantization import CalibrationMethod, QuantType

    signed = {"ActivationSymmetric": True, "WeightSymmetric": True}
    for observer in OBSERVERS:
        say(f"onnxruntime.quantization, {observer}")
        method = getattr(CalibrationMethod, observer)
        content = _quantize_static(source, lr, method, QuantType.QUInt8, {})
        yield File("onnxruntime.quantization, U8S8", observer, content)
    say("onnxruntime.quantization, S8S8")
    content = _quantize_static(source, lr, CalibrationMethod.MinMax, QuantType.QInt8, signed)
    yield File("onnxruntime.quantization, S8S8", "MinMax", content)


def _quantize_static(
    source: SourceModel, lr: Tensor, method: Any, activations: Any, options: dict[str, Any]
) -> bytes:
    from onnxruntime.quantization import QuantType, quantize_static

    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder, "int8.onnx")
        quantize_static(
            source.path,
            path,
            _Faces(lr),
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=activations,
            weight_type=QuantType.QInt8,
            calibrate_method=method,
            extra_options=options,
        )
        return read_bytes(path, MAX_BYTES)


class _Faces:
    """What onnxruntime.quantization calls a CalibrationDataReader: a face at a time."""

    def __init__(self, lr: Tensor) -> None:
        self._faces = iter(lr)

    def get_next(self) -> dict[str, Tensor] | None:
        face = next(self._faces, None)
        return None if face is None else {"lr": face[None]}


def with_nncf(
    source: SourceModel, lr: Tensor, calib: Sequence[str | Path], say: Say
) -> Iterator[File]:
    """Its post-training quantization, mixed preset, of the ONNX file and of OpenVINO's format."""
    openvino = import_openvino()
    try:
        import nncf
    except ImportError as error:
        raise EdgeError(
            "nncf is not installed; pip install 'aminet-edge[bench]'", EXIT_MISSING
        ) from error
    nncf.set_log_level(logging.ERROR)
    for observer in NNCF_OBSERVERS:
        say(f"NNCF on the ONNX file, {observer}")
        with _quiet():
            quantized = _quantize_with_nncf(nncf, source.model, lr, observer)
        yield File("NNCF on ONNX", observer, quantized.SerializeToString())
        say(f"NNCF on OpenVINO's format, {observer}")
        with tempfile.TemporaryDirectory() as folder, _quiet():
            model = openvino.Core().read_model(source.content)
            xml = Path(folder, "int8.xml")
            quantized = _quantize_with_nncf(nncf, model, lr, observer)
            openvino.save_model(quantized, xml, compress_to_fp16=False)
            parts = [read_bytes(path, MAX_BYTES) for path in (xml, xml.with_suffix(".bin"))]
        yield File("NNCF on OpenVINO", observer, *parts)


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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the engines' progress bars, which would stand in our JSON, and their advice."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _versions() -> Iterator[tuple[str, str]]:
    for tool in TOOLS:
        with contextlib.suppress(PackageNotFoundError):
            yield tool, version(tool)


def table(found: Mapping[str, Any]) -> str:
    """Markdown, of what `--json` prints."""
    real = f"{found['real_faces']} real faces" if found["real_faces"] else "no real faces"
    lines = [
        f"{found['model']}, calibrated with {found['calibration_faces']} faces, drift on {real},"
        f" {found['processor']},",
        ", ".join(f"{tool} {number}" for tool, number in found["versions"].items()) + ":",
        "",
        "| engine | observer | backend | fidelity | worst face | drift | worst drift | in INT8"
        " | speed to FP32 | size |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in found["rows"]:
        drift, worst = (_decibels(row[key]) for key in ("drift_db", "worst_drift_db"))
        lines.append(
            f"| {row['engine']} | {row['observer']} | {row['backend']} | {row['fidelity_db']:.1f}"
            f" | {row['worst_fidelity_db']:.1f} | {drift} | {worst}"
            f" | {row['int8_mac_share']:.1%} | {row['speed']:.2f}x"
            f" | {row['bytes'] / 2**20:.1f} MiB |"
        )
    return "\n".join(lines)


def _decibels(drift_db: float | None) -> str:
    return "" if drift_db is None else f"{drift_db:.3f}"


def write_table(doc: Path, table: str) -> None:
    """Replace what stands between the marks in a Markdown page; EdgeError if it has none."""
    text = read_bytes(doc, MAX_BYTES).decode()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise EdgeError(f"{doc}: has no {BEGIN} and {END} for the table to stand between")
    write_bytes(doc, f"{before}{BEGIN}\n{table}\n{END}{after}".encode())


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    return run_command(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    result = engines(
        arguments.artifact,
        arguments.calib,
        arguments.data,
        arguments.turns,
        say=lambda step: print(step, file=sys.stderr),
    )
    text = json.dumps(asdict(result))
    if arguments.out:
        write_bytes(arguments.out, f"{text}\n".encode())
    print(text if arguments.json else table(json.loads(text)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.quantizers",
        description="Compare engines that quantize to INT8, on one model and one set of faces.",
    )
    parser.add_argument("--artifact", default=ARTIFACT, metavar="F", help=f"default: {ARTIFACT}")
    parser.add_argument("--calib", nargs="+", default=["calib_data"], metavar="P")
    parser.add_argument(
        "--data", nargs="+", default=(), metavar="TAR_OR_DIR", help="real faces, for the drift"
    )
    parser.add_argument("--turns", type=int, default=TURNS, help=f"timed (default: {TURNS})")
    parser.add_argument("--out", metavar="F.json", help=f"write it too, such as {OUT}")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
