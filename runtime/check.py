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
from runtime.evaluation import Evaluator, psnr_each, upscale_faces
from runtime.image import shrink
from runtime.manifest import probes_path
from runtime.verification import measure


@dataclass(frozen=True)
class RealDrift:
    """What real faces show: the artifact's PSNR-Y, and what it lost against FP32.

    As in an Evaluation, but the drift and the fidelity are None if fp32.onnx is not beside the
    artifact.
    """

    faces: int
    psnr_y: float
    fidelity_db: float | None
    worst_fidelity_db: float | None
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
    read = read_artifact(Path(artifact))
    manifest = read.manifest
    with open_backend(backend, read) as runner:
        verdict = measure(runner, read)
        real = _real_drift(runner, read, data) if data else None
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


def _real_drift(runner: Runner, artifact: Artifact, data: Sequence[str]) -> RealDrift:
    hr = load_faces(data)
    lr = np.stack([shrink(face, runner.lr_side) for face in hr])
    path = probes_path(artifact.path).with_name("fp32.onnx")
    if not path.is_file():
        psnr_y = psnr_each(upscale_faces(runner.run, lr), hr).mean()
        return RealDrift(len(hr), float(psnr_y), None, None, None, None)
    with open_backend("onnxruntime", read_artifact(path)) as fp32:
        evaluator = Evaluator(fp32.run, lr, hr)
    return RealDrift(**asdict(evaluator.evaluate(runner.run)))


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


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
