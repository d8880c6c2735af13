"""Compare the INT8 engines of quantize.int8 under its budget, step by step, and NNCF's own loop.

    python -m benchmarks.studies.engines [--data celeba-val.tar] [--out docs/measured/engines.json]

Each engine quantizes for each target as much as the target's budget allows, and `auto` chooses.
Then each step of both recipes is changed alone, with the same layers in INT8
(benchmarks.studies.engine_steps). Last comes nncf.quantize_with_accuracy_control, with our drift
as its metric (benchmarks.studies.accuracy_control). One run makes the whole file; nothing is
written beside the artifact.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness.machine import versions
from benchmarks.harness.study import report, study_parser
from benchmarks.studies.engine_tables import engines_table, steps_table
from quantize.arguments import add_inputs
from quantize.options import ARTIFACT, CALIBRATION, Int8Options
from quantize.targets import TARGETS, Target
from runtime.backends import openvino
from runtime.cpu import processor
from runtime.errors import EXIT_USAGE, EdgeError, needs, run_command
from runtime.progress import Progress, Steps, silent
from runtime.telemetry import disable_telemetry

if TYPE_CHECKING:
    from benchmarks.studies.engine_steps import StepRow
    from quantize.budget import Int8Candidate
    from quantize.calibration import CalibrationSet
    from quantize.quantizer import Quantizer
    from quantize.source import SourceModel

OUT = Path("docs", "measured", "engines.json")
TOOLS = ("onnx", "onnxruntime", "openvino", "nncf")
NATIVE = "native"


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
    """`choices`: what `auto` keeps for each target, and why. `minutes`: of the whole run."""

    rows: tuple[EngineRow, ...]
    model: str
    checkpoint_sha256: str
    processor: str
    versions: Mapping[str, str]
    steps: "tuple[StepRow, ...]" = ()
    choices: Mapping[str, str] = field(default_factory=dict)
    calibration_faces: int | None = None
    minutes: float | None = None


@dataclass(frozen=True)
class EngineStudyOptions:
    """`faces`: how many of the calibration set calibrate, None for all."""

    calib: Sequence[str | Path] = (CALIBRATION,)
    data: tuple[str, ...] = ()
    faces: int | None = None
    accuracy_control: bool = True


def compare_engines(
    artifact: str | Path = ARTIFACT,
    options: EngineStudyOptions | None = None,
    progress: Progress = silent,
) -> EngineComparison:
    """Let each engine quantize an FP32 artifact within the budgets."""
    from benchmarks.studies.engine_steps import compare_steps
    from quantize.calibration import read_calibration
    from quantize.quantizer import Quantizer
    from quantize.source import read_source

    started, options = time.monotonic(), options or EngineStudyOptions()
    source = read_source(artifact)
    calibration = read_calibration(options.calib, source.reads)
    calibration = replace(calibration, faces=calibration.faces[: options.faces])
    quantizer = Quantizer(
        source, calibration, Int8Options(data=options.data, engine="auto"), progress
    )
    study = _Study(source, quantizer)
    targets = [t for t in TARGETS.values() if t.backend != "openvino" or openvino.is_installed()]
    rows = [row for target in targets for row in study.compete(target)]
    steps = tuple(compare_steps(source, calibration, quantizer, study.native_layers))
    if options.accuracy_control:
        rows += _with_accuracy_control(source, calibration, quantizer, targets, progress)
    return EngineComparison(
        rows=tuple(rows),
        steps=steps,
        choices=study.choices,
        model=source.manifest.model,
        checkpoint_sha256=source.manifest.checkpoint_sha256,
        calibration_faces=len(calibration.faces),
        minutes=round((time.monotonic() - started) / 60, 1),
        processor=processor(),
        versions=versions(TOOLS),
    )


class _Study:
    """The engines on one source model; remembers whose file another target shares."""

    def __init__(self, source: "SourceModel", quantizer: "Quantizer") -> None:
        self._source, self._quantizer = source, quantizer
        self._made: dict[str, list[Int8Candidate]] = {}  # by file
        self.native_layers: dict[Target, Sequence[Any]] = {}
        self.choices: dict[str, str] = {}

    def compete(self, target: Target) -> Iterator[EngineRow]:
        """A row for each engine's files, as quantize.int8 would write them."""
        from quantize.quantizer import choose

        if target.shares:
            candidates = [self._measure(each, target) for each in self._made[target.shares]]
            files = [(each, target.shares) for each in candidates]
        else:
            made, failures = self._quantizer.compete(target)
            candidates = self._made[target.file] = [candidate for _, candidate in made]
            files = [(each, target.file) for each in candidates]
            files += [(half, target.half_file or "") for half in self._halves(target, made)]
            for engine, failure in failures:
                yield EngineRow(engine.name, target.name, "", failure=str(failure))
        for candidate, file in files:
            fault = self._quantizer.budget(target).fault(candidate)
            yield _row(self._source, target, candidate, file, fault)
        if len(candidates) > 1:
            times_ms = self._quantizer.times_ms(target, candidates)
            self.choices[target.name] = choose(candidates, times_ms)[1]
        for candidate in candidates:
            if candidate.engine == NATIVE:
                self.native_layers[target] = candidate.layers

    def _measure(self, made: "Int8Candidate", target: Target) -> "Int8Candidate":
        here = self._quantizer.evaluate(target, made.content, made.layers)
        return replace(here, engine=made.engine, engine_version=made.engine_version)

    def _halves(self, target: Target, made: Sequence[tuple[Any, Any]]) -> Iterator["Int8Candidate"]:
        """The files whose rest is FP16."""
        from quantize.fp16_passes import to_half

        for engine, candidate in made if target.half_file else ():
            yield self._quantizer.meet_budget(engine, target, candidate.layers, to_half)


def _row(
    source: "SourceModel",
    target: Target,
    candidate: "Int8Candidate",
    file: str,
    fault: str | None = None,
) -> EngineRow:
    from quantize.record import record

    row = row_of(asdict(record(source, target, Path(file), candidate, {})))
    return replace(row, failure=f"misses the budget: {fault}") if fault else row


def _with_accuracy_control(
    source: "SourceModel",
    calibration: "CalibrationSet",
    quantizer: "Quantizer",
    targets: Sequence[Target],
    progress: Progress,
) -> Iterator[EngineRow]:
    """NNCF's own loop for each target; its budget is the mean's alone, so misses are no failure."""
    from benchmarks.studies.accuracy_control import AccuracyControl

    control = AccuracyControl(source, calibration, quantizer, progress)
    for target in targets:
        made = control.quantize(target)
        row = _row(source, target, made.candidate, made.format)
        yield replace(row, bytes=made.bytes)


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


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.faces is not None and arguments.faces < 1:
        raise EdgeError("--faces: expected at least 1", EXIT_USAGE)
    disable_telemetry()
    with needs("quantize,bench"):
        import nncf  # noqa: F401
        import onnx  # noqa: F401
    with Steps() as steps:
        result = compare_engines(
            arguments.artifact,
            EngineStudyOptions(
                calib=arguments.calib,
                data=tuple(arguments.data),
                faces=arguments.faces,
                accuracy_control=not arguments.no_accuracy_control,
            ),
            steps,
        )
    return report(arguments, asdict(result), f"{engines_table(result)}\n\n{steps_table(result)}")


def _parser() -> argparse.ArgumentParser:
    parser = study_parser("engines", __doc__, OUT)
    add = parser.add_argument
    add_inputs(parser)
    add(
        "--data",
        nargs="+",
        default=(),
        metavar="TAR_OR_DIR",
        help="real 128x128 faces to meet the budget on (default: expected drift)",
    )
    add(
        "--faces",
        type=int,
        metavar="N",
        help="calibrate with so many only, for a short run (default: all)",
    )
    add(
        "--no-accuracy-control",
        action="store_true",
        help="leave NNCF's own loop out (default: with it)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
