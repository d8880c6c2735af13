"""INT8 within a drift budget: `python -m quantize.int8 --calib calib_data/`.

Each target gets a file in which every layer that its backend can fuse is INT8, evaluated in that
backend on held-out faces and on the probes' synthetic ones. While it drifts too far, sensitive
layers are kept in FP32 (quantize.budget).
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantize.arguments import add_budget, add_inputs, check_drop
from quantize.options import ARTIFACT, CALIBRATION, ENGINES, MINUTES, Int8Options, NetworkOptions
from quantize.targets import BUDGETS, TARGETS, WEIGHT_LIMIT, Target, for_processor, parse_targets
from runtime.backends import openvino
from runtime.cpu import processor
from runtime.drift import budget_psnr_y
from runtime.errors import EXIT_DRIFT, EXIT_USAGE, EdgeError, needs, run_command
from runtime.manifest import manifest_path, read_manifest
from runtime.network import MAX_RANGE, MAX_SIDE
from runtime.progress import Progress, Steps, silent

if TYPE_CHECKING:
    from quantize.calibration import CalibrationSet
    from quantize.record import Int8Artifact
    from quantize.source import SourceModel


@dataclass(frozen=True)
class Int8Result:
    """The files, why some targets have none, and what else is to be known."""

    artifacts: tuple["Int8Artifact", ...]
    failures: tuple[str, ...]
    notes: tuple[str, ...]


def quantize(
    artifact: str | Path = ARTIFACT,
    calib: Sequence[str | Path] = (CALIBRATION,),
    targets: Sequence[Target] | None = None,
    options: Int8Options | None = None,
    progress: Progress = silent,
) -> Int8Result:
    """Quantize an FP32 artifact for each target (None: all that are possible here), beside it.

    An ONNX file without a manifest, of one image in and one out, is imported first as another
    network than AMINet; `options.network` says of it what its graph does not. A target whose budget
    cannot be met is among the failures and has no file: one of an earlier export, which could not
    run any more, is deleted. Raises EdgeError for what cannot be read,
    for a calibration set that does not fit the model, and with status 5 for a backend or an engine
    that is not installed.
    """
    with needs("quantize"):
        from quantize.calibration import read_calibration
        from quantize.drift_record import read_records, record_path, write_records
        from quantize.network_import import import_network, is_other_network
        from quantize.quantizer import Quantizer
        from quantize.source import read_source

    options, notes = options or Int8Options(), []
    drift_path = record_path(calib) if options.record else None
    if is_other_network(Path(artifact)):
        artifact, imported = import_network(Path(artifact), calib, options.network, progress)
        notes.append(imported)
    source = read_source(artifact)
    notes += _check_ranges(source, options)
    calibration = read_calibration(calib, source.reads)
    notes += [f"skipped: {reason}" for reason in calibration.skipped]
    if source.manifest.network is None:  # whose probes are of this very set
        notes += _check_resemblance(source, calibration, options.force)
    if targets is None:
        targets = tuple(TARGETS.values())
        if not openvino.is_installed():
            targets = tuple(target for target in targets if target.backend != "openvino")
            notes.append("target openvino: left out, openvino is not installed")
    recorded = read_records(calib, source.manifest.checkpoint_sha256)
    quantizer = Quantizer(source, calibration, options, progress, recorded)
    artifacts: list[Int8Artifact] = []
    failures: list[str] = []
    for target in (for_processor(target, processor()) for target in targets):
        if target.weight_limit < WEIGHT_LIMIT:
            notes.append(f"target {target.name}: weights of 7 bits, this processor lacks VNNI")
        try:
            artifacts += quantizer.make(target)
        except EdgeError as error:
            if error.status != EXIT_DRIFT:
                raise
            failures.append(f"{target.name}: {error}{_delete_outdated(source, target)}")
    if source.manifest.psnr_y is None and source.manifest.network is None:
        notes.append(
            "the PSNR-Y of the FP32 model is not known, and the budget takes"
            f" {budget_psnr_y(source.manifest):g} dB; a checkpoint of aminet.train --val records it"
        )
    if drift_path:
        write_records(drift_path, quantizer.measured)
        notes.append(f"{drift_path}: has the drift of {len(quantizer.measured)} files")
    if any(made.drift_db is None for made in artifacts):
        notes.append(
            "the budget was met by expectation only, from the fidelity on synthetic faces; --data"
            " with real faces of 128x128 measures the drift instead, and mostly allows more INT8"
        )
    return Int8Result(tuple(artifacts), tuple(failures), tuple(notes))


def _delete_outdated(source: "SourceModel", target: Target) -> str:
    """Delete the target's files of another export, which no start would accept; says which."""
    deleted = []
    for name in filter(None, (target.file, target.half_file)):
        path = source.path.with_name(name)
        if not (path.is_file() and manifest_path(path).is_file()):
            continue
        if read_manifest(path).probes_sha256 != source.manifest.probes_sha256:
            for file in (path, manifest_path(path)):
                file.unlink()
            deleted.append(name)
    return f"; deleted {', '.join(deleted)} of an earlier {source.path.name}" if deleted else ""


def _check_ranges(source: "SourceModel", options: Int8Options) -> list[str]:
    """A note on trained ranges; EdgeError (status 2) where they are missing, or unwanted."""
    if source.trained is None:
        if options.trained_ranges:
            raise EdgeError(
                f"{source.path}: carries no trained ranges, expected an export of a checkpoint of"
                " aminet.train --qat; or leave out --qat",
                EXIT_USAGE,
            )
        return []
    if options.engine == "nncf":
        if options.trained_ranges:
            raise EdgeError("--qat: nncf does not take trained ranges; leave it out", EXIT_USAGE)
        return ["the trained ranges are left out: nncf finds its own on the calibration set"]
    if options.engine == "auto":
        return ["native takes the trained ranges; nncf finds its own on the calibration set"]
    return ["the ranges are trained ones; the calibration set evaluates only"]


def _check_resemblance(
    source: "SourceModel", calibration: "CalibrationSet", force: bool
) -> list[str]:
    """A note on how the set differs from the model's probes; EdgeError for it unless `force`."""
    from quantize.resemblance import misfits

    probes = source.probes
    found = misfits(calibration.all, probes.lr[: probes.faces])
    if not found:
        return []
    misfit = f"the calibration set does not fit the model: {'; '.join(found)}"
    if force:
        return [f"{misfit}; the drift may be larger than expected"]
    raise EdgeError(
        f"{misfit}; expected images like those that it will be given; take others, or --force"
    )


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    check_drop(arguments.max_drop_db)
    if arguments.record and not arguments.data:
        raise EdgeError(
            "--record: needs --data, real faces that the drift is measured on", EXIT_USAGE
        )
    if not 0 <= arguments.minutes < float("inf"):
        raise EdgeError("--minutes: expected a number of at least 0", EXIT_USAGE)
    if arguments.side is not None and not 16 <= arguments.side <= MAX_SIDE:
        raise EdgeError(f"--side: expected 16 to {MAX_SIDE} px", EXIT_USAGE)
    with Steps() as steps:
        result = quantize(
            arguments.artifact,
            arguments.calib,
            parse_targets(arguments.target) if arguments.target else None,
            Int8Options(
                max_drop_db=arguments.max_drop_db,
                data=tuple(arguments.data),
                record=arguments.record,
                minutes=arguments.minutes,
                require_precision=arguments.require_precision,
                engine=arguments.engine,
                force=arguments.force,
                trained_ranges=arguments.qat,
                network=NetworkOptions(
                    arguments.side, _parse_range(arguments.range), arguments.out
                ),
            ),
            steps,
        )
    report(result, as_json=arguments.json)
    return EXIT_DRIFT if result.failures else 0


def _parse_range(text: str | None) -> tuple[float, float] | None:
    """Black and white of "0,255"; EdgeError for anything else."""
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = 0.0
    if not -MAX_RANGE <= low < high <= MAX_RANGE:
        raise EdgeError(f"--range {text}: expected black and white, such as 0,255", EXIT_USAGE)
    return low, high


def report(result: Int8Result, *, as_json: bool) -> None:
    from quantize.record import describe

    if as_json:
        print(json.dumps(asdict(result)))
    else:
        for made in result.artifacts:
            print(describe(made))
    for note in result.notes:
        print(f"note: {note}", file=sys.stderr)
    for failure in result.failures:
        print(f"error: {failure}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m quantize.int8",
        description="Quantize an FP32 artifact to INT8, within a drift budget on each target.",
    )
    add_inputs(parser, "the FP32 model, or another ONNX network of images")
    parser.add_argument("--target", metavar="T", help=f"some of {','.join(TARGETS)} (default: all)")
    parser.add_argument(
        "--engine",
        choices=(*ENGINES, "auto"),
        default=ENGINES[0],
        help=f"what quantizes; auto keeps the better of both (default: {ENGINES[0]})",
    )
    add_budget(parser, BUDGETS)
    parser.add_argument(
        "--record",
        action="store_true",
        help="keep the drift on --data in the calibration folder, for runs without real faces",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=MINUTES,
        metavar="X",
        help=f"for measuring the layers' sensitivity (default: {MINUTES:g})",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="take a calibration set that does not fit the model (default: refused)",
    )
    parser.add_argument(
        "--qat",
        action="store_true",
        help="refuse a model without ranges of quantization-aware training (default: calibrate)",
    )
    other = parser.add_argument_group("another network than AMINet (an ONNX file without manifest)")
    other.add_argument(
        "--side", type=int, metavar="N", help="px of its images, where its graph leaves it open"
    )
    other.add_argument(
        "--range", metavar="LOW,HIGH", help="its black and white, such as 0,255 (default: found)"
    )
    other.add_argument(
        "--out", type=Path, metavar="DIR", help="for its files (default: artifacts/<its name>)"
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
