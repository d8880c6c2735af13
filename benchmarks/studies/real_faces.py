"""What each file of a model loses on real faces, in each backend that it is for.

    python -m benchmarks.studies.real_faces --data celeba-test.tar [--calib celeba-train-0.tar]
        [--out docs/measured/drift.json]

Each file of the folder that is smaller than fp32.onnx, against it. With `--calib`, INT8 files are
made once more, calibrated with 128 of those faces in place of faces of nobody, to see how much that
would gain; they are measured and forgotten.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from runtime.errors import EdgeError, needs, run_command

with needs("quantize", __name__):
    from quantize.calibration import HELD_OUT
    from quantize.int8 import quantize
    from quantize.options import Int8Options

from runtime.atomic import write_bytes
from runtime.backends import openvino
from runtime.check import check
from runtime.dataset import iter_faces
from runtime.image import fit_face, write_image
from runtime.manifest import manifest_path, probes_path, read_manifest
from runtime.session import DEFAULT_MODEL

FOLDER = Path("artifacts", DEFAULT_MODEL)
OUT = Path("docs", "measured", "drift.json")
REAL = 128  # faces that calibrate
FILES = (  # and the backends that they are for; int8-trt is judged where quantize.int8 judges it
    ("fp16.onnx", ("onnxruntime", "openvino")),
    ("fp16-trt.onnx", ("onnxruntime",)),
    ("int8.onnx", ("onnxruntime", "openvino")),
    ("int8-openvino.onnx", ("openvino",)),
    ("int8-trt.onnx", ("onnxruntime",)),
    ("int8-trt-fp16.onnx", ("onnxruntime",)),
)
NOBODY, OTHERS = "its own set", f"{REAL} real faces"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Row:
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
class Drift:
    rows: tuple[Row, ...]


def drift(
    data: Sequence[str],
    folder: str | Path = FOLDER,
    calib: Sequence[str] = (),
    say: Say = lambda step: None,
) -> Drift:
    """Measure the files of a folder; EdgeError if fp32.onnx is not among them."""
    folder = Path(folder)
    fp32 = folder / "fp32.onnx"
    if not fp32.is_file():
        raise EdgeError(f"{fp32}: is not there; make it: python -m export.onnx")
    rows = list(measure(folder, data, NOBODY, say))
    if calib:
        with tempfile.TemporaryDirectory() as other:
            for of in (Path, manifest_path, probes_path):
                shutil.copy(of(fp32), other)
            say(f"quantizing, calibrated with {OTHERS}")
            faces = write_faces(calib, Path(other, "faces"))
            quantize(Path(other, fp32.name), [faces], options=Int8Options())
            rows += measure(Path(other), data, OTHERS, say)
    return Drift(tuple(rows))


def measure(folder: Path, data: Sequence[str], calibrated_with: str, say: Say) -> Iterator[Row]:
    fp32_bytes = (folder / "fp32.onnx").stat().st_size
    for name, backends in FILES:
        path = folder / name
        if not path.is_file():
            continue
        manifest = read_manifest(path)
        for backend in backends:
            if backend == "openvino" and not openvino.is_installed():
                continue
            say(f"{name} in {backend}")
            real = check(str(path), backend, data).data
            assert real is not None  # for data were given
            yield Row(
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


def write_faces(sources: Sequence[str], folder: Path) -> Path:
    """So many faces at 16x16 that REAL of them calibrate and the others judge."""
    count = REAL * HELD_OUT // (HELD_OUT - 1) + 1
    for number, face in enumerate(islice(iter_faces(sources), count)):
        lr = fit_face(face.pixels, face.name, reduce=True)
        write_image(folder / f"{number:03}.png", lr)
    return folder


def table(rows: Sequence[Row]) -> str:
    lines = ["| file | backend | calibrated with | drift, mean | worst face | in INT8 | size |"]
    lines.append("| --- | --- | --- | ---: | ---: | ---: | ---: |")
    for row in rows:
        share = "" if row.int8_mac_share is None else f"{row.int8_mac_share:.1%}"
        lines.append(
            f"| {Path(row.artifact).name} | {row.backend}{', emulating' if row.emulated else ''}"
            f" | {row.calibrated_with} | {row.drift_db:.3f} dB | {row.worst_drift_db:.3f} dB"
            f" | {share} | {row.share_of_bytes:.2f}x |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    return run_command(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    result = drift(
        arguments.data,
        arguments.artifact,
        arguments.calib,
        say=lambda step: print(step, file=sys.stderr),
    )
    text = json.dumps(asdict(result))
    if arguments.out:
        write_bytes(arguments.out, f"{text}\n".encode())
    print(text if arguments.json else table(result.rows))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.real_faces",
        description="What each file of a model loses on real faces, in each backend.",
    )
    parser.add_argument("--data", nargs="+", required=True, metavar="TAR_OR_DIR")
    parser.add_argument("--artifact", default=FOLDER, metavar="D", help=f"default: {FOLDER}")
    parser.add_argument(
        "--calib", nargs="+", default=(), metavar="TAR_OR_DIR", help="real faces to calibrate with"
    )
    parser.add_argument("--out", metavar="F.json", help=f"write it too, such as {OUT}")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
