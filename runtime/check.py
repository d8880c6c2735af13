"""Check an artifact on this machine: `python -m runtime.check artifacts/aminet-edge/fp32.onnx`.

The probes always run, whatever is remembered. With --data, real faces of 128x128 are shrunk,
enlarged and compared with themselves: the quality that the artifact really loses against FP32.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from runtime.artifact import Artifact, read_artifact
from runtime.backends.open import PROVIDERS, Runner, open_backend, with_provider
from runtime.cpu import processor
from runtime.dataset import load_faces
from runtime.drift import expected_drift_db
from runtime.errors import EXIT_DRIFT, run_command
from runtime.image import Pixels, mse_y, psnr_of_mse, psnr_y, shrink, to_pixels, to_tensor
from runtime.manifest import probes_path
from runtime.verification import measure

BATCH = 8  # faces run at a time


@dataclass(frozen=True)
class RealDrift:
    """What real faces show: the artifact's PSNR-Y, and what it lost against FP32.

    In dB, means over the faces; a positive drift is worse. The drift and the fidelity are None if
    fp32.onnx is not beside the artifact.
    """

    faces: int
    psnr_y: float
    fidelity_db: float | None
    drift_db: float | None
    worst_drift_db: float | None


@dataclass(frozen=True)
class CheckReport:
    """The fidelity to FP32 on the probes with its limits, and the drift on real faces if given."""

    artifact: str
    backend: str
    backend_version: str
    processor: str
    precision: str
    finite: bool
    fidelity_db: float
    worst_fidelity_db: float
    extremes_fidelity_db: float
    limit_db: float
    extremes_limit_db: float
    expected_drift_db: float | None
    max_drop_db: float
    data: RealDrift | None
    passed: bool


def check(artifact: str, backend: str = "auto", data: Sequence[str] = ()) -> CheckReport:
    """Run an artifact's probes, and the faces in `data` (tars or folders), in a backend.

    A report that did not pass is returned; EdgeError is for what could not be checked.
    """
    subject = read_artifact(Path(artifact))
    manifest = subject.manifest
    with open_backend(backend, subject) as runner:
        verdict = measure(runner, subject)
        real = _real_drift(runner, subject, data) if data else None
    fidelity, fp32_psnr_y = verdict.fidelity, manifest.psnr_y
    drift_db = real.drift_db if real else None
    return CheckReport(
        artifact=artifact,
        backend=runner.name,
        backend_version=runner.version,
        processor=processor(),
        precision=manifest.executes_as,
        finite=fidelity.finite,
        fidelity_db=fidelity.fidelity_db,
        worst_fidelity_db=fidelity.worst_fidelity_db,
        extremes_fidelity_db=fidelity.extremes_fidelity_db,
        limit_db=verdict.limit.fidelity_db,
        extremes_limit_db=verdict.limit.extremes_fidelity_db,
        expected_drift_db=(
            expected_drift_db(fp32_psnr_y, fidelity.fidelity_db) if fp32_psnr_y else None
        ),
        max_drop_db=manifest.max_drop_db,
        data=real,
        passed=verdict.passed and (drift_db is None or drift_db <= manifest.max_drop_db),
    )


def _real_drift(runner: Runner, subject: Artifact, data: Sequence[str]) -> RealDrift:
    faces = load_faces(data)
    sr = _enlarge(runner, faces)
    each_db = _psnr_each(sr, faces)
    reference_sr = _enlarge_in_fp32(subject, faces)
    if reference_sr is None:
        return RealDrift(len(faces), _mean(each_db), None, None, None)
    reference_db = _psnr_each(reference_sr, faces)
    drops_db = [before - after for before, after in zip(reference_db, each_db, strict=True)]
    return RealDrift(
        faces=len(faces),
        psnr_y=_mean(each_db),
        fidelity_db=_fidelity_db(sr, reference_sr),
        drift_db=_mean(drops_db),
        worst_drift_db=max(drops_db),
    )


def _enlarge_in_fp32(subject: Artifact, faces: Pixels) -> Pixels | None:
    """What fp32.onnx, beside the artifact, makes of the faces; None if it is not there."""
    path = probes_path(subject.path).with_name("fp32.onnx")
    if not path.is_file():
        return None
    with open_backend("onnxruntime", read_artifact(path)) as reference:
        return _enlarge(reference, faces)


def _enlarge(runner: Runner, faces: Pixels) -> Pixels:
    """Faces (N, 128, 128, 3), shrunk and enlarged again; what is not finite becomes black."""
    sr = np.empty_like(faces)
    for start in range(0, len(faces), BATCH):
        batch = slice(start, start + BATCH)
        lr = np.stack([shrink(face, runner.lr_side) for face in faces[batch]])
        sr[batch] = to_pixels(np.nan_to_num(runner.run(to_tensor(lr)), posinf=0, neginf=0))
    return sr


def _psnr_each(sr: Pixels, faces: Pixels) -> list[float]:
    """PSNR-Y in dB of each face, one by one: the luma of a whole set takes gigabytes."""
    return [psnr_y(enlarged, face) for enlarged, face in zip(sr, faces, strict=True)]


def _fidelity_db(sr: Pixels, reference_sr: Pixels) -> float:
    """By the mean of the error over the faces, not of their dB."""
    pairs = zip(sr, reference_sr, strict=True)
    return psnr_of_mse(_mean([float(mse_y(a[None], b[None])[0]) for a, b in pairs]))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    return run_command(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    backend = with_provider(arguments.backend, arguments.provider)
    report = check(arguments.artifact, backend, arguments.data)
    if arguments.json:
        print(json.dumps(asdict(report)))
    else:
        _describe(report)
    if report.passed:
        return 0
    print(
        f"error: {report.artifact}: drifts from FP32 further than it may; make it again, or take"
        " fp32.onnx",
        file=sys.stderr,
    )
    return EXIT_DRIFT


def _describe(report: CheckReport) -> None:
    lines = [
        f"{report.artifact} ({report.precision}) in {report.backend}"
        f" {report.backend_version} on {report.processor}",
        f"faces     {report.fidelity_db:6.1f} dB to FP32, at least {report.limit_db:.1f};"
        f" worst {report.worst_fidelity_db:.1f}",
        f"extremes  {report.extremes_fidelity_db:6.1f} dB to FP32,"
        f" at least {report.extremes_limit_db:.1f}",
    ]
    if report.data:
        lines += _describe_data(report.data, report.max_drop_db)
    print("\n".join(lines), file=sys.stderr)


def _describe_data(data: RealDrift, max_drop_db: float) -> list[str]:
    lines = [f"real      {data.psnr_y:6.2f} dB PSNR-Y over {data.faces} faces"]
    if data.drift_db is None:
        return [*lines, "drift     not known: fp32.onnx is not beside the artifact"]
    return [
        *lines,
        f"drift     {data.drift_db:6.3f} dB lost against FP32, at most {max_drop_db};"
        f" worst {data.worst_drift_db:.3f}",
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runtime.check",
        description="Run an artifact's probes on this machine and compare them with FP32.",
    )
    parser.add_argument(
        "artifact",
        metavar="ARTIFACT",
        help="an ONNX file, a LiteRT file or an engine, with its manifest",
    )
    parser.add_argument(
        "--backend",
        default="auto",
        metavar="B",
        help="onnxruntime, openvino, litert or tensorrt; auto: by the kind of file, onnxruntime"
        " for ONNX",
    )
    parser.add_argument(
        "--provider", choices=PROVIDERS, help="what ONNX Runtime computes with (default: cpu)"
    )
    parser.add_argument(
        "--data",
        nargs="+",
        default=(),
        metavar="TAR_OR_DIR",
        help="faces of 128x128: the drift on them too",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
