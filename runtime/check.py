"""Check an artifact on this machine: `python -m runtime.check artifacts/aminet-edge/fp32.onnx`.

The probes always run, whatever is remembered. With --data, real faces of 128x128 are shrunk,
upscaled and compared with themselves: the quality that the artifact really loses against FP32.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from runtime.arguments import add_artifact_arguments
from runtime.artifact import Artifact, make_command, read_artifact
from runtime.backends.open import AUTO, Runner, open_backend, with_provider
from runtime.cpu import processor
from runtime.dataset import load_faces
from runtime.drift import expected_drift_db
from runtime.errors import EXIT_DRIFT, EXIT_USAGE, EdgeError, run_command
from runtime.evaluation import Evaluator, psnr_each, upscale_faces
from runtime.image import shrink
from runtime.manifest import probes_path
from runtime.places import find_artifacts, find_routes
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
    model: str
    backend: str
    backend_version: str
    processor: str
    precision: str
    executes_as: str
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


def check(
    artifact: str | None = None, backend: str = AUTO, data: Sequence[str] = ()
) -> CheckReport:
    """Run an artifact's probes, and the faces in `data` (tars or folders), in a backend.

    `artifact` is a file, a folder (of which the first is taken that infer would try) or None, as in
    open_session. A report that did not pass is returned; EdgeError is for what could not be
    checked.
    """
    read = read_artifact(_find(artifact, backend))
    manifest = read.manifest
    if data and manifest.network is not None:
        raise EdgeError(
            f"{read.path}: is another network than AMINet, and --data measures on faces of 128x128;"
            " leave it out",
            EXIT_USAGE,
        )
    with open_backend(backend, read) as runner:
        verdict = measure(runner, read)
        real = _real_drift(runner, read, data) if data else None
    fidelity, fp32_psnr_y = verdict.fidelity, manifest.psnr_y
    drift_db = real.drift_db if real else None
    return CheckReport(
        artifact=str(read.path),
        model=manifest.model,
        backend=runner.name,
        backend_version=runner.version,
        processor=processor(),
        precision=manifest.computed_in,
        executes_as=manifest.executes_as,
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


def _find(artifact: str | None, backend: str) -> Path:
    paths, _ = find_artifacts(artifact, backend)
    return paths[0] if backend == AUTO else find_routes(paths, [backend])[0][0]


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
    print(json.dumps(asdict(report)) if arguments.json else "\n".join(_lines(report)))
    if report.passed:
        return 0
    path = Path(report.artifact)
    print(
        f"error: {path}: drifts from FP32 further than it may. Create it again with:"
        f" {make_command(path, report.model, report.precision)}",
        file=sys.stderr,
    )
    return EXIT_DRIFT


def _lines(report: CheckReport) -> list[str]:
    lines = [
        f"{report.artifact} ({report.executes_as}) in {report.backend}"
        f" {report.backend_version} on {report.processor}",
        f"faces     {report.fidelity_db:6.1f} dB to FP32, at least {report.limit_db:.1f};"
        f" worst {report.worst_fidelity_db:.1f}",
        f"stress    {report.extremes_fidelity_db:6.1f} dB to FP32,"
        f" at least {report.extremes_limit_db:.1f}",
    ]
    if report.data is None:
        return lines
    lines.append(f"real      {report.data.psnr_y:6.2f} dB PSNR-Y over {report.data.faces} faces")
    if report.data.drift_db is None:
        return [*lines, "drift     not known: fp32.onnx is not beside the artifact"]
    return [
        *lines,
        f"drift     {report.data.drift_db:6.3f} dB lost against FP32, at most {report.max_drop_db};"
        f" worst {report.data.worst_drift_db:.3f}",
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runtime.check",
        description="Run an artifact's probes on this machine and compare them with FP32.",
    )
    add_artifact_arguments(parser, positional=True)
    parser.add_argument(
        "--data",
        nargs="+",
        default=(),
        metavar="TAR_OR_DIR",
        help="faces of 128x128: measure the drift on them too (default: probes only)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
