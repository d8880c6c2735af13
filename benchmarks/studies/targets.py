"""Check the models' files for every kind of device, and write the rows of the table of targets.

    python -m benchmarks.studies.targets [--data celeba-val.tar] [--out docs/measured/targets.json]

`--artifact artifacts/aminet-edge artifacts/aminet-real` writes the rows of both models. Each file
runs its probes in the runtime it was made for, and the faces of `--data` if given, shrunk to the
size that the model reads. What cannot run here (Core ML, TensorRT without a GPU) gets a row that
says so.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.harness.machine import machine
from benchmarks.harness.study import add_models
from benchmarks.harness.targets import TargetRow, targets_table, write_rows
from runtime.backends.engine_files import PLACES
from runtime.check import check
from runtime.errors import EdgeError, run_command
from runtime.formats import format_of
from runtime.manifest import Manifest, read_manifest
from runtime.places import FOLDER
from runtime.progress import Progress, Steps, silent

OUT = Path("docs", "measured", "targets.json")
FILES = (  # of the model's folder, and the backend that each is made for
    ("fp32.onnx", "onnxruntime"),
    ("fp16.onnx", "onnxruntime"),
    ("int8.onnx", "onnxruntime"),
    ("int8-openvino.onnx", "openvino"),
    ("litert/fp32.tflite", "litert"),
    ("litert/fp16.tflite", "litert"),
    ("litert/int8.tflite", "litert"),
    ("ncnn/fp32.param", "ncnn"),
    ("ncnn/fp16.param", "ncnn"),
    ("ncnn/int8.param", "ncnn"),
)
NOT_RUN = {  # by the folder's patterns: the target's name, and why it does not run here
    "coreml/*.mlpackage": ("Core ML", "needs a Mac"),
    PLACES: ("TensorRT", "no GPU here"),
}
NAMES = {
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "litert": "LiteRT",
    "ncnn": "ncnn",
}


def measure_targets(
    folder: Path = FOLDER, data: Sequence[str] = (), progress: Progress = silent
) -> list[TargetRow]:
    """A row for each file of the folder; EdgeError if there is none, or if one drifts."""
    rows = []
    for name, backend in FILES:
        if (folder / name).is_file():
            progress(f"{folder.name}/{name}")
            rows.append(_measured(folder, name, backend, data))
    for pattern, (target, reason) in NOT_RUN.items():
        rows += [_not_run(folder, path, target, reason) for path in sorted(folder.glob(pattern))]
    if not rows:
        raise EdgeError(
            f"{folder}: holds none of {', '.join(name for name, _ in FILES)}; make them:"
            f" python -m export.onnx, then export.litert, ncnn and coreml --artifact {folder}"
        )
    return rows


def _measured(folder: Path, name: str, backend: str, data: Sequence[str]) -> TargetRow:
    path = folder / name
    report = check(str(path), backend, data)
    if not report.passed:
        raise EdgeError(f"{path}: drifts from FP32 in {backend} on this machine; make it again")
    row = TargetRow(
        target=f"{NAMES[backend]} {report.backend_version}",
        file=f"{folder.name}/{name}",
        bytes=_bytes(path, read_manifest(path)),
        precision=report.executes_as,
        fidelity_db=report.fidelity_db,
        worst_fidelity_db=report.worst_fidelity_db,
        extremes_fidelity_db=report.extremes_fidelity_db,
        ran_on=report.processor,
        command=_command(path, backend, data),
    )
    real = report.data
    if real is None or real.drift_db is None:
        return row
    return replace(
        row, faces=real.faces, drift_db=real.drift_db, worst_drift_db=real.worst_drift_db
    )


def _command(path: Path, backend: str, data: Sequence[str]) -> str:
    """What repeats the measurement, wherever the faces are."""
    command = f"python -m runtime.check {path.as_posix()} --backend {backend}"
    faces = " ".join(Path(source).name for source in data)
    return f"{command} --data {faces}" if faces else command


def _not_run(folder: Path, path: Path, target: str, reason: str) -> TargetRow:
    """What is only converted and checked without running; its manifest says how far."""
    manifest = read_manifest(path)
    emulated = [f"{m.backend}: {m.fidelity_db:.1f} dB" for m in manifest.measured_on if m.emulated]
    return TargetRow(
        target=target,
        file=path.relative_to(folder.parent).as_posix(),
        bytes=_bytes(path, manifest),
        precision=manifest.executes_as,
        fidelity_db=None,
        worst_fidelity_db=None,
        extremes_fidelity_db=None,
        ran_on=None,
        command=format_of(path).make,
        not_run="; ".join([reason, *emulated]),
    )


def _bytes(path: Path, manifest: Manifest) -> int:
    """Of the file and its parts, or of all files of a package."""
    if path.is_dir():
        return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
    parts = [path.with_name(name) for name in dict(manifest.flags.get("parts", {}))]
    return sum(each.stat().st_size for each in (path, *parts))


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    with Steps() as steps:
        rows = [
            row
            for folder in arguments.artifact
            for row in measure_targets(folder, arguments.data, steps)
        ]
    write_rows(arguments.out, rows, {"machine": asdict(machine())})
    if arguments.json:
        print(json.dumps({"rows": [asdict(row) for row in rows], "out": str(arguments.out)}))
    else:
        print(targets_table(rows))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.targets",
        description="Check models' files for every device; write the table of targets' rows.",
    )
    add_models(parser)
    parser.add_argument(
        "--data", nargs="+", default=(), metavar="TAR_OR_DIR", help="faces of 128x128: the drift"
    )
    parser.add_argument("--out", default=str(OUT), metavar="F", help=f"default: {OUT}")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
