"""Measure the drift of models' FP16 and INT8 files on real faces, in each of their backends.

    python -m benchmarks.studies.real_faces --artifact artifacts/aminet-edge artifacts/aminet-real
        --data celeba-test.tar [--calib celeba-train-0.tar] [--out docs/measured/drift.json]

Each file of a folder is compared with its fp32.onnx, on the faces shrunk to what the model reads
(for degraded ones: benchmarks.wild). With `--calib` the INT8 files are made once more, calibrated
with 128 of those faces instead of synthetic ones, measured and deleted: it shows what real
calibration faces would gain. Not those whose ranges were trained.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from benchmarks.harness.study import add_models, report, study_parser
from benchmarks.harness.table import text_table
from runtime.backends import openvino
from runtime.check import check
from runtime.dataset import iter_faces
from runtime.errors import EdgeError, needs, run_command
from runtime.image import fit_face, write_image
from runtime.manifest import manifest_path, probes_path, read_manifest
from runtime.progress import Progress, Steps, silent

OUT = Path("docs", "measured", "drift.json")
REAL = 128  # real faces to calibrate with
FILES = (  # and the backends that they are for; int8-trt in the proxy of quantize.int8
    ("fp16.onnx", ("onnxruntime", "openvino")),
    ("fp16-trt.onnx", ("onnxruntime",)),
    ("int8.onnx", ("onnxruntime", "openvino")),
    ("int8-openvino.onnx", ("openvino",)),
    ("int8-trt.onnx", ("onnxruntime",)),
    ("int8-trt-fp16.onnx", ("onnxruntime",)),
)
SYNTHETIC, REAL_CALIBRATION = "synthetic faces", f"{REAL} real faces"
TRAINED = "training"  # quantization-aware: nothing is calibrated


@dataclass(frozen=True)
class DriftRow:
    """One file in one backend. `share_of_bytes`: of fp32.onnx's; `int8_mac_share`: None in FP16."""

    artifact: str
    backend: str
    emulated: bool
    calibrated_with: str
    faces: int
    fidelity_db: float
    drift_db: float
    worst_drift_db: float
    int8_mac_share: float | None
    reverted: int
    share_of_bytes: float


@dataclass(frozen=True)
class RealFaceDrift:
    rows: tuple[DriftRow, ...]


def drift(
    data: Sequence[str],
    folder: Path,
    calib: Sequence[str] = (),
    progress: Progress = silent,
) -> Iterator[DriftRow]:
    """Measure the files of a folder; EdgeError if fp32.onnx is not among them."""
    from quantize.int8 import quantize

    fp32 = folder / "fp32.onnx"
    if not fp32.is_file():
        raise EdgeError(f"{fp32}: not found. Create it with: python -m export.onnx")
    is_trained = read_manifest(fp32).flags.get("quantization_aware", False)
    yield from measure(folder, data, TRAINED if is_trained else SYNTHETIC, progress)
    if calib and not is_trained:
        with tempfile.TemporaryDirectory() as other:
            for of in (Path, manifest_path, probes_path):
                shutil.copy(of(fp32), other)
            progress(f"quantizing, calibrated with {REAL_CALIBRATION}")
            faces = write_faces(calib, Path(other, "faces"), read_manifest(fp32).lr_side)
            for failure in quantize(Path(other, fp32.name), [faces]).failures:
                print(f"note: {REAL_CALIBRATION}: {failure}", file=sys.stderr)
            yield from measure(Path(other), data, REAL_CALIBRATION, progress)


def measure(
    folder: Path, data: Sequence[str], calibrated_with: str, progress: Progress
) -> Iterator[DriftRow]:
    """Measure each file in the backends that it is for."""
    fp32_bytes = (folder / "fp32.onnx").stat().st_size
    for name, backends in FILES:
        path = folder / name
        if not path.is_file():
            continue
        manifest = read_manifest(path)
        for backend in backends:
            if backend == "openvino" and not openvino.is_installed():
                continue
            progress(f"{manifest.model}/{name} in {backend}")
            real = check(str(path), backend, data).data
            assert real is not None  # for data were given
            yield DriftRow(
                artifact=f"{manifest.model}/{name}",
                backend=backend,
                emulated=manifest.target == "tensorrt",
                calibrated_with=calibrated_with if manifest.precision == "int8" else "",
                faces=real.faces,
                fidelity_db=_known(real.fidelity_db),
                drift_db=_known(real.drift_db),
                worst_drift_db=_known(real.worst_drift_db),
                int8_mac_share=manifest.flags.get("int8_mac_share"),
                reverted=len(manifest.flags.get("reverted", ())),
                share_of_bytes=path.stat().st_size / fp32_bytes,
            )


def _known(decibels: float | None) -> float:
    assert decibels is not None  # for fp32.onnx is there
    return decibels


def write_faces(sources: Sequence[str], folder: Path, side: int) -> Path:
    """Write so many faces of side x side that REAL calibrate and the rest are held out."""
    from quantize.calibration import HELD_OUT

    count = REAL * HELD_OUT // (HELD_OUT - 1) + 1
    for number, face in enumerate(islice(iter_faces(sources), count)):
        lr = fit_face(face.pixels, face.name, side=side, reduce=True)
        write_image(folder / f"{number:03}.png", lr)
    return folder


def table(rows: Sequence[DriftRow]) -> str:
    cells = [
        (
            row.artifact,
            row.backend + (" (proxy)" if row.emulated else ""),
            row.calibrated_with,
            f"{row.drift_db:.3f}",
            f"{row.worst_drift_db:.3f}",
            "" if row.int8_mac_share is None else f"{row.int8_mac_share:.1%}",
            f"{row.share_of_bytes:.2f}x",
        )
        for row in rows
    ]
    columns = ("file", "backend", "ranges from", "drift dB", "worst dB", "in INT8", "size")
    return text_table(columns, cells)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    with needs("quantize"), Steps() as steps:
        rows = [
            row
            for folder in arguments.artifact
            for row in drift(arguments.data, folder, arguments.calib, steps)
        ]
    return report(arguments, asdict(RealFaceDrift(tuple(rows))), table(rows))


def _parser() -> argparse.ArgumentParser:
    parser = study_parser("real_faces", __doc__, OUT)
    add = parser.add_argument
    add("--data", nargs="+", required=True, metavar="TAR_OR_DIR", help="128x128 faces (required)")
    add_models(parser)
    add(
        "--calib",
        nargs="+",
        default=(),
        metavar="TAR_OR_DIR",
        help="real faces to calibrate INT8 files with once more (default: none)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
