"""Formats for TensorRT beside INT8: FP8 (E4M3) and INT4 weights, by size, fidelity and builder.

    python -m benchmarks.studies.formats [--out docs/measured/formats.json]

Each file has all layers that the project quantizes in its format, whatever that does to the budget;
ONNX Runtime stands in for TensorRT. TensorRT-RTX is asked to build each for a GPU class. INT4 is
for weights alone (benchmarks.studies.int4_weights).
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness.machine import versions
from benchmarks.harness.study import report, study_parser
from benchmarks.harness.table import markdown_table
from quantize.arguments import add_inputs
from quantize.options import ARTIFACT, CALIBRATION
from quantize.targets import FP8, TARGETS
from runtime.atomic import write_bytes
from runtime.errors import EdgeError, needs, run_command
from runtime.progress import Progress, Steps, silent

if TYPE_CHECKING:
    from onnx import ModelProto

    from quantize.calibration import CalibrationSet
    from quantize.source import SourceModel

OUT = Path("docs", "measured", "formats.json")
TOOLS = ("onnx", "onnxruntime", "tensorrt-rtx-cu13")
GPU_CLASSES = {"8.6": "Ampere", "8.9": "Ada", "12.0": "Blackwell RTX"}
BLOCK = 32  # INT4 weights that share a scale
BATCHES, WORKSPACE_MIB, TIMEOUT_S = (1, 4, 16), 1024, 300.0


@dataclass(frozen=True)
class FormatRow:
    """A file with all layers in a format. `bytes` are the file's; the fidelity is ONNX Runtime's.

    `engines`: what TensorRT-RTX makes of it for each compute capability, the engine's bytes or the
    error. `use`: what the format is for.
    """

    format: str
    use: str
    bytes: int
    fidelity_db: float
    worst_fidelity_db: float
    expected_drift_db: float | None
    engines: Mapping[str, int | str]


@dataclass(frozen=True)
class FormatComparison:
    rows: tuple[FormatRow, ...]
    model: str
    checkpoint_sha256: str
    versions: Mapping[str, str]


Make = Callable[[], "ModelProto"]


def compare_formats(
    artifact: str | Path = ARTIFACT,
    calib: Sequence[str | Path] = (CALIBRATION,),
    progress: Progress = silent,
) -> FormatComparison:
    """Write an FP32 artifact in each format, evaluate it and have it built."""
    from quantize.calibration import read_calibration
    from quantize.source import read_source

    source = read_source(artifact)
    calibration = read_calibration(calib, source.reads)
    return FormatComparison(
        rows=tuple(_rows(source, calibration, progress)),
        model=source.manifest.model,
        checkpoint_sha256=source.manifest.checkpoint_sha256,
        versions=versions(TOOLS),
    )


def _formats(
    source: "SourceModel", calibration: "CalibrationSet"
) -> Iterator[tuple[str, str, Make]]:
    """What each is called and for, and how it is made."""
    from benchmarks.studies.int4_weights import store_weights_in_int4
    from quantize.engines.native import NativeEngine
    from quantize.fp16_passes import to_half

    engine, layers = NativeEngine(source, calibration.faces), source.layers
    int8, fp8 = (lambda t=t: engine.quantize(layers, t) for t in (TARGETS["tensorrt"], FP8))
    int4 = {
        block: lambda b=block: store_weights_in_int4(source.model, layers, b)
        for block in (None, BLOCK)
    }
    yield "FP16", "the default on GPUs", lambda: to_half(source.model)
    yield "INT8", "Ampere to Hopper, Jetson", int8
    yield "INT8, rest FP16", "Ampere to Hopper, Jetson", lambda: to_half(int8())
    yield "FP8", "GPUs whose INT8 is slower than FP8 (B300)", fp8
    yield "FP8, rest FP16", "GPUs whose INT8 is slower than FP8 (B300)", lambda: to_half(fp8())
    yield "INT4 weights, a scale a channel", "nothing: drifts", int4[None]
    yield f"INT4 weights, a scale for {BLOCK}", "nothing: drifts", int4[BLOCK]


def _rows(
    source: "SourceModel", calibration: "CalibrationSet", progress: Progress
) -> Iterator[FormatRow]:
    from runtime.drift import expected_drift_db
    from runtime.evaluation import Evaluator

    psnr_y = source.manifest.psnr_y
    with source.open(source.content) as fp32:
        evaluator = Evaluator(fp32.run, calibration.held_out)
    for name, use, make in _formats(source, calibration):
        progress(name)
        model = make()
        content = source.serialize(model)
        with source.open(content) as runner:
            found = evaluator.evaluate(runner.run)
        drift_db = expected_drift_db(psnr_y, found.fidelity_db) if psnr_y else None
        engines = {capability: _build(model, content, capability) for capability in GPU_CLASSES}
        yield FormatRow(
            *(name, use, len(content), found.fidelity_db, found.worst_fidelity_db, drift_db),
            engines,
        )


def _build(model: "ModelProto", content: bytes, capability: str) -> int | str:
    """The bytes of TensorRT-RTX's engine, or its error."""
    from export.gate import types_of
    from export.trt.subprocess import ask
    from export.trt.worker import ENGINE, SOURCE, Request

    request = Request("tensorrt-rtx", (capability,), BATCHES, WORKSPACE_MIB, types_of(model))
    with tempfile.TemporaryDirectory() as folder:
        write_bytes(Path(folder, SOURCE), content)
        try:
            ask(Path(folder), {"build": asdict(request)}, capability, TIMEOUT_S, silent)
        except EdgeError as error:
            return str(error)
        return Path(folder, ENGINE).stat().st_size


def formats_table(found: FormatComparison) -> str:
    """Markdown: a row for each format, errors below."""
    classes = [f"{name}, {capability}" for capability, name in GPU_CLASSES.items()]
    columns = (
        *("format", "file MB", "fidelity dB", "worst face dB", "expected drift dB"),
        *(f"engine MB, {each}" for each in classes),
        "for",
    )
    lines = []
    for row in found.rows:
        engines = [row.engines[capability] for capability in GPU_CLASSES]
        drift = "" if row.expected_drift_db is None else f"{row.expected_drift_db:.3f}"
        lines.append(
            (
                *(row.format, f"{row.bytes / 1e6:.1f}", f"{row.fidelity_db:.1f}"),
                *(f"{row.worst_fidelity_db:.1f}", drift),
                *("none" if isinstance(e, str) else f"{e / 1e6:.1f}" for e in engines),
                row.use,
            )
        )
    errors: dict[str, list[str]] = {}
    for row in found.rows:
        for engine in row.engines.values():
            if isinstance(engine, str):
                errors.setdefault(engine, []).append(row.format)
    builder = f"tensorrt-rtx {found.versions['tensorrt-rtx-cu13']}"
    notes = [f"\n{' and '.join(formats)}: {error}." for error, formats in errors.items()]
    head = f"{found.model}, all layers, in ONNX Runtime; engines by {builder}, not run.\n"
    return "\n".join([head, markdown_table(columns, lines), *notes])


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    with needs("quantize,tensorrt-rtx"):
        import onnx  # noqa: F401
        import polygraphy  # noqa: F401
    with Steps() as steps:
        result = compare_formats(arguments.artifact, arguments.calib, steps)
    return report(arguments, asdict(result), formats_table(result))


def _parser() -> argparse.ArgumentParser:
    parser = study_parser("formats", __doc__, OUT)
    add_inputs(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
