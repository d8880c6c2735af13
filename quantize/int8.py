"""INT8 within a drift budget: `python -m quantize.int8 --calib calib_data/`.

Each target gets a file in which all that its backend can fuse is INT8, judged in that backend on
faces that did not calibrate; while it drifts too far, layers are given back (quantize.budget).
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from runtime.errors import EXIT_DRIFT, EXIT_USAGE, EdgeError, needs, run_command

with needs("quantize", __name__):
    from quantize.calibration import CalibrationSet, looks_like_faces, read_faces
    from quantize.quantizer import Builder, Options
    from quantize.record import Int8Artifact, describe
    from quantize.sensitivity import MINUTES, show_step
    from quantize.source import ARTIFACT, Subject, read_subject
    from quantize.targets import TARGETS, WEIGHT_LIMIT, Target, for_processor, parse_targets

from runtime.backends import openvino
from runtime.cpu import processor

Progress = Callable[[str], None]
BUDGETS = ", ".join(f"{target.max_drop_db} {name}" for name, target in TARGETS.items())


@dataclass(frozen=True)
class Int8Result:
    """The files, why some targets have none, and what else is to be known."""

    artifacts: tuple[Int8Artifact, ...]
    failures: tuple[str, ...]
    notes: tuple[str, ...]


def quantize(
    artifact: str | Path = ARTIFACT,
    calib: Sequence[str | Path] = ("calib_data",),
    targets: Sequence[Target] | None = None,
    options: Options | None = None,
    progress: Progress = lambda step: None,
) -> Int8Result:
    """Quantize an FP32 artifact for each target (None: all that are possible here), beside it.

    A target whose budget cannot be held is among the failures and has no file. EdgeError for what
    cannot be read, and for a backend that is not installed.
    """
    subject, faces = read_subject(artifact), read_faces(calib)
    notes = _notes(subject, faces)
    if targets is None:
        targets = tuple(TARGETS.values())
        if not openvino.is_installed():
            targets = tuple(target for target in targets if target.backend != "openvino")
            notes.append("target openvino: left out, openvino is not installed")
    builder = Builder(subject, faces, options or Options(), progress)
    artifacts: list[Int8Artifact] = []
    failures: list[str] = []
    for target in (for_processor(target, processor()) for target in targets):
        if target.weight_limit < WEIGHT_LIMIT:
            notes.append(f"target {target.name}: weights of 7 bits, this processor lacks VNNI")
        try:
            artifacts += builder.make(target)
        except EdgeError as error:
            if error.status != EXIT_DRIFT:
                raise
            failures.append(f"{target.name}: {error}")
    return Int8Result(tuple(artifacts), tuple(failures), tuple(notes))


def _notes(subject: Subject, faces: CalibrationSet) -> list[str]:
    notes = [f"skipped: {reason}" for reason in faces.skipped]
    probes = subject.probes
    if not looks_like_faces(faces.faces, probes.lr[: probes.faces]):
        notes.append("the calibration set does not look like aligned faces; the drift may be wrong")
    return notes


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    return run_command(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    if arguments.max_drop_db is not None and not 0 < arguments.max_drop_db <= 10:
        raise EdgeError("--max-drop-db: expected a number over 0, up to 10", EXIT_USAGE)
    result = quantize(
        arguments.artifact,
        arguments.calib,
        parse_targets(arguments.target) if arguments.target else None,
        Options(
            max_drop_db=arguments.max_drop_db,
            data=tuple(arguments.data),
            minutes=arguments.minutes,
            require_precision=arguments.require_precision,
        ),
        show_step if sys.stderr.isatty() else lambda step: None,
    )
    if arguments.json:
        print(json.dumps(asdict(result)))
    else:
        for made in result.artifacts:
            print(describe(made), file=sys.stderr)
    for note in result.notes:
        print(f"note: {note}", file=sys.stderr)
    for failure in result.failures:
        print(f"error: {failure}", file=sys.stderr)
    return EXIT_DRIFT if result.failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m quantize.int8",
        description="Quantize an FP32 artifact to INT8, within a drift budget on each target.",
    )
    parser.add_argument("--artifact", default=ARTIFACT, metavar="F", help=f"default: {ARTIFACT}")
    parser.add_argument(
        "--calib",
        nargs="+",
        default=["calib_data"],
        metavar="P",
        help="folders, tars or patterns of face pictures (default: calib_data)",
    )
    parser.add_argument("--target", metavar="T", help=f"some of {','.join(TARGETS)} (default: all)")
    parser.add_argument(
        "--max-drop-db",
        type=float,
        metavar="X",
        help=f"PSNR-Y that may be lost, a face five times that (default: {BUDGETS})",
    )
    parser.add_argument(
        "--data",
        nargs="+",
        default=(),
        metavar="TAR_OR_DIR",
        help="real faces of 128x128: the drift is measured on them instead of expected",
    )
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, metavar="X", help="for finding costly layers"
    )
    parser.add_argument(
        "--require-precision",
        action="store_true",
        help="exit with 6 unless the backend computes all quantized layers in INT8",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
