"""Compare the INT8 engines of quantize.int8 under its budget, and NNCF's own accuracy control.

    python -m benchmarks.studies.engines [--data celeba-val.tar] [--out docs/measured/engines.json]

Each engine quantizes for each target as much as the target's budget allows, in a folder of its own
that is thrown away. nncf.quantize_with_accuracy_control gets the same faces and, as its metric, the
drift that the fidelity of the held-out ones lets expect; it works on OpenVINO's format.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness.machine import versions
from benchmarks.harness.study import report, study_parser
from benchmarks.harness.table import markdown_table
from quantize.options import ARTIFACT, CALIBRATION, ENGINES, Int8Options
from runtime.cpu import processor
from runtime.errors import needs, run_command
from runtime.manifest import manifest_path, probes_path
from runtime.progress import Progress, Steps, silent

if TYPE_CHECKING:
    from quantize.calibration import CalibrationSet
    from quantize.source import SourceModel

OUT = Path("docs", "measured", "engines.json")
TOOLS = ("onnx", "onnxruntime", "openvino", "nncf")
ACCURACY_CONTROL = "nncf with accuracy control"


@dataclass(frozen=True)
class EngineRow:
    """An engine's file for a target; the failure in its place where it misses the budget."""

    engine: str
    target: str
    backend: str
    fidelity_db: float | None = None
    worst_fidelity_db: float | None = None
    expected_drift_db: float | None = None
    drift_db: float | None = None
    worst_drift_db: float | None = None
    int8_mac_share: float | None = None
    reverted: int | None = None
    bytes: int | None = None
    failure: str | None = None


@dataclass(frozen=True)
class EngineComparison:
    rows: tuple[EngineRow, ...]
    model: str
    checkpoint_sha256: str
    processor: str
    versions: Mapping[str, str]


def compare_engines(
    artifact: str | Path = ARTIFACT,
    calib: Sequence[str | Path] = (CALIBRATION,),
    data: Sequence[str] = (),
    progress: Progress = silent,
    *,
    accuracy_control: bool = True,
) -> EngineComparison:
    """Let each engine quantize an FP32 artifact within the budgets."""
    from quantize.calibration import read_calibration
    from quantize.source import read_source

    source = read_source(artifact)
    rows = [row for engine in ENGINES for row in _rows(engine, source, calib, data, progress)]
    if accuracy_control:
        calibration = read_calibration(calib, source.reads)
        rows.append(_with_accuracy_control(source, calibration, progress))
    return EngineComparison(
        rows=tuple(rows),
        model=source.manifest.model,
        checkpoint_sha256=source.manifest.checkpoint_sha256,
        processor=processor(),
        versions=versions(TOOLS),
    )


def _rows(
    engine: str,
    source: "SourceModel",
    calib: Sequence[str | Path],
    data: Sequence[str],
    progress: Progress,
) -> Iterator[EngineRow]:
    """What quantize.int8 makes with an engine, for each target."""
    from quantize.int8 import quantize

    with tempfile.TemporaryDirectory() as folder:
        fp32 = Path(folder, "fp32.onnx")
        for of in (Path, manifest_path, probes_path):
            shutil.copy(of(source.path), of(fp32))
        options = Int8Options(data=tuple(data), engine=engine)
        made = quantize(fp32, calib, None, options, lambda step: progress(f"{engine}: {step}"))
    for one in made.artifacts:
        yield row_of(asdict(one))
    for failure in made.failures:
        target, _, reason = failure.partition(": ")
        yield EngineRow(engine, target, "", failure=reason)


def row_of(made: Mapping[str, Any]) -> EngineRow:
    """The row of an artifact, as quantize.int8 --json prints it."""
    name = Path(made["artifact"]).name
    proxy = ", as a proxy" if made["emulated"] else ""
    return EngineRow(
        engine=made["engine"],
        target=f"{made['target']}, {name}",
        backend=f"{made['measured_on'].split()[0]}{proxy}",
        fidelity_db=made["fidelity_db"],
        worst_fidelity_db=made["worst_fidelity_db"],
        expected_drift_db=made["expected_drift_db"],
        drift_db=made["drift_db"],
        worst_drift_db=made["worst_drift_db"],
        int8_mac_share=made["int8_mac_share"],
        reverted=len(made["reverted"]),
        bytes=made["bytes"],
    )


def _with_accuracy_control(
    source: "SourceModel", calibration: "CalibrationSet", progress: Progress
) -> EngineRow:
    """NNCF reverts layers until its metric, minus the expected drift, is within the budget."""
    from benchmarks.harness.baselines import quietly
    from quantize.engines.nncf import import_nncf
    from quantize.targets import TARGETS
    from runtime.backends.openvino import OpenVinoSession, import_openvino
    from runtime.drift import BUDGET_PSNR_Y_DB, expected_drift_db
    from runtime.evaluation import Evaluator

    nncf, openvino = import_nncf(), import_openvino()
    progress(ACCURACY_CONTROL)
    with source.open(source.content) as fp32:
        evaluator = Evaluator(fp32.run, calibration.held_out)
    psnr_y = source.manifest.psnr_y or BUDGET_PSNR_Y_DB

    def metric(compiled: Any, _: Any) -> tuple[float, None]:
        result = evaluator.evaluate(lambda lr: next(iter(compiled(lr).values())))
        return -expected_drift_db(psnr_y, result.fidelity_db), None

    lr = source.feed(calibration.faces)
    dataset = nncf.Dataset([face[None] for face in lr])
    with quietly():
        model = openvino.Core().read_model(source.content)
        quantized = nncf.quantize_with_accuracy_control(
            model,
            dataset,
            dataset,
            metric,
            max_drop=TARGETS["openvino"].max_drop_db,
            drop_type=nncf.DropType.ABSOLUTE,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(lr),
        )
    with tempfile.TemporaryDirectory() as folder:
        xml = Path(folder, "int8.xml")
        openvino.save_model(quantized, xml, compress_to_fp16=False)
        content, weights = xml.read_bytes(), xml.with_suffix(".bin").read_bytes()
    with OpenVinoSession(content, ACCURACY_CONTROL, weights) as session:
        found = evaluator.evaluate(session.run)
        computed = session.convolutions()
    int8 = sum(layer.macs for layer in source.layers if computed.get(layer.node) in ("u8", "i8"))
    return EngineRow(
        engine=ACCURACY_CONTROL,
        target="openvino, its own format",
        backend="openvino",
        fidelity_db=found.fidelity_db,
        worst_fidelity_db=found.worst_fidelity_db,
        expected_drift_db=expected_drift_db(psnr_y, found.fidelity_db),
        int8_mac_share=int8 / source.macs,
        bytes=len(content) + len(weights),
    )


def engines_table(found: EngineComparison) -> str:
    """Markdown: a row for each file, the failures below."""

    def decibels(value: float | None, digits: int) -> str:
        return "" if value is None else f"{value:.{digits}f}"

    lines = [
        (
            *(row.engine, row.target, row.backend),
            *(decibels(row.fidelity_db, 1), decibels(row.worst_fidelity_db, 1)),
            *(decibels(row.expected_drift_db, 4), decibels(row.drift_db, 4)),
            decibels(row.worst_drift_db, 3),
            "" if row.int8_mac_share is None else f"{row.int8_mac_share:.1%}",
            "" if row.reverted is None else str(row.reverted),
        )
        for row in found.rows
        if row.failure is None
    ]
    columns = (
        *("engine", "target, file", "measured in", "fidelity dB", "worst face dB"),
        *("expected drift dB", "measured drift dB", "worst drift dB", "in INT8", "kept in FP32"),
    )
    failed = [
        f"\n{row.engine} has no file for {row.target}: {row.failure}."
        for row in found.rows
        if row.failure
    ]
    return "\n".join(
        [f"{found.model}, {found.processor}.\n", markdown_table(columns, lines), *failed]
    )


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    with needs("quantize,bench"):
        import nncf  # noqa: F401
        import onnx  # noqa: F401
    with Steps() as steps:
        result = compare_engines(
            arguments.artifact,
            arguments.calib,
            arguments.data,
            steps,
            accuracy_control=not arguments.no_accuracy_control,
        )
    return report(arguments, asdict(result), engines_table(result))


def _parser() -> argparse.ArgumentParser:
    parser = study_parser("engines", __doc__, OUT)
    add = parser.add_argument
    add("--artifact", default=ARTIFACT, metavar="F", help=f"(default: {ARTIFACT})")
    add(
        "--calib",
        nargs="+",
        default=[CALIBRATION],
        metavar="P",
        help=f"calibration faces (default: {CALIBRATION})",
    )
    add(
        "--data",
        nargs="+",
        default=(),
        metavar="TAR_OR_DIR",
        help="real 128x128 faces to meet the budget on (default: expected drift)",
    )
    add(
        "--no-accuracy-control",
        action="store_true",
        help="leave NNCF's own loop out, which takes hours (default: with it)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
