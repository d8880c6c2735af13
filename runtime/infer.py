"""Enlarge faces: `python -m runtime.infer face.png` writes face_sr.png beside it.

numpy, Pillow and the backend are imported when the work starts, so that --help answers at once.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.errors import EXIT_ERROR, EXIT_PRECISION, EdgeError, run_command
from runtime.manifest import PRECISIONS

if TYPE_CHECKING:
    from runtime.session import Session

LISTED_RESULTS = 20  # more than these are counted, not listed


@dataclass(frozen=True)
class Options:
    """How to enlarge; what is not given is chosen by open_session."""

    artifact: str | None = None
    backend: str = "auto"
    out: str | None = None
    reduce: bool = False
    require_precision: str | None = None
    fallback: bool = False


@dataclass(frozen=True)
class FaceResult:
    """What became of one input: its output, or the error. `ms` is from reading to written."""

    input: str
    output: str | None
    faces: int
    ms: float | None
    error: str | None


@dataclass(frozen=True)
class InferReport:
    """The results, and what made them; fidelity_db is to FP32, on the probes."""

    results: tuple[FaceResult, ...]
    backend: str
    backend_version: str
    artifact: str
    precision: str
    fidelity_db: float
    limit_db: float
    verdict_remembered: bool
    passed_over: tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """One picture to enlarge and where to; or an input that holds none, and why."""

    source: Path
    target: Path | None
    error: str | None = None


Progress = Callable[[int, int], None]


def infer(
    inputs: Sequence[str], options: Options | None = None, progress: Progress | None = None
) -> InferReport:
    """Enlarge the faces in pictures and folders and write them.

    An input that cannot be enlarged becomes a result with an error; the others are written. Raises
    EdgeError if nothing can be: no sound model, no such backend, colliding outputs.
    `progress(done, total)` is called after each.
    """
    from runtime.session import open_session

    options = options or Options()
    jobs = plan(inputs, options.out)
    with open_session(options.artifact, options.backend, fallback=options.fallback) as session:
        _require_precision(session, options.require_precision)
        results = []
        for job in jobs:
            results.append(_enlarge(job, session, options.reduce))
            if progress:
                progress(len(results), len(jobs))
        assert session.verdict  # open_session verifies
        return InferReport(
            results=tuple(results),
            backend=session.backend,
            backend_version=session.backend_version,
            artifact=str(session.artifact),
            precision=session.manifest.executes_as,
            fidelity_db=session.verdict.fidelity_db,
            limit_db=session.verdict.limit_db,
            verdict_remembered=session.verdict.remembered,
            passed_over=session.passed_over,
        )


def plan(inputs: Sequence[str], out: str | None) -> list[Job]:
    """One job for each picture: `x.jpg` becomes `x_sr.png`, beside it or in the folder `out`.

    `out` with a suffix names the file for a single picture. Folders are searched through, their
    tree is kept under `out`, and pictures called *_sr in them are taken for results. Raises
    EdgeError if two pictures would be written to one file, or one over an input.
    """
    sources = [Path(source) for source in inputs]
    if out and Path(out).suffix and not Path(out).is_dir():
        if len(sources) > 1 or sources[0].is_dir():
            raise EdgeError(
                f"{out}: names one picture for several; give a folder, without a suffix"
            )
        jobs = [Job(sources[0], Path(out))]
    else:
        folder = Path(out) if out else None
        jobs = [job for source in sources for job in _jobs(source, folder)]
    _refuse_collisions(jobs)
    return jobs


def _jobs(source: Path, out: Path | None) -> list[Job]:
    from runtime.faces import list_pictures

    if not source.is_dir():
        return [Job(source, _target(source, out or source.parent))]
    try:
        pictures = [path for path in list_pictures(source) if not path.stem.endswith("_sr")]
    except EdgeError as error:
        return [Job(source, None, str(error))]
    if not pictures:
        return [Job(source, None, f"{source}: holds no picture to enlarge")]
    return [_folder_job(path, source, out) for path in pictures]


def _folder_job(path: Path, source: Path, out: Path | None) -> Job:
    folder = out / path.parent.relative_to(source) if out else path.parent
    return Job(path, _target(path, folder))


def _target(source: Path, folder: Path) -> Path:
    return folder / f"{source.stem}_sr.png"


def _refuse_collisions(jobs: Sequence[Job]) -> None:
    inputs = {os.path.realpath(job.source) for job in jobs}
    writers: dict[str, Job] = {}
    for job in jobs:
        if job.target is None:
            continue
        place = os.path.realpath(job.target)
        if place in inputs:
            raise EdgeError(f"{job.target}: is an input, and would be overwritten; give --out")
        first = writers.setdefault(place, job)
        if first is not job:
            raise EdgeError(
                f"{first.source} and {job.source} would both be written to {job.target};"
                " enlarge them apart, each with its --out"
            )


def _enlarge(job: Job, session: Session, reduce: bool) -> FaceResult:
    from runtime.image import fit_face, read_picture, to_pixels, to_tensor, write_picture

    source = str(job.source)
    if job.target is None:
        return FaceResult(source, None, 0, None, job.error)
    started = time.perf_counter()
    try:
        lr = fit_face(read_picture(job.source), source, reduce=reduce)
        write_picture(job.target, to_pixels(session.run(to_tensor(lr[None])))[0])
    except EdgeError as error:
        return FaceResult(source, None, 0, None, str(error))
    ms = round((time.perf_counter() - started) * 1e3, 2)
    return FaceResult(source, str(job.target), 1, ms, None)


def _require_precision(session: Session, precision: str | None) -> None:
    manifest = session.manifest
    if precision and manifest.computed_in != precision:
        raise EdgeError(
            f"{session.artifact}: runs as {manifest.executes_as}, --require-precision says"
            f" {precision}; give an --artifact of it",
            EXIT_PRECISION,
        )


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    return run_command(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    from runtime.session import with_provider

    options = {name: getattr(arguments, name) for name in Options.__dataclass_fields__}
    options["backend"] = with_provider(arguments.backend, arguments.provider)
    progress = _show_progress if sys.stderr.isatty() else None
    report = infer(arguments.inputs, Options(**options), progress)
    if arguments.json:
        print(json.dumps(asdict(report)))
    else:
        _describe(report)
    failed = [result for result in report.results if result.error]
    for result in failed:
        print(f"error: {result.error}", file=sys.stderr)
    return EXIT_ERROR if failed else 0


def _describe(report: InferReport) -> None:
    for reason in report.passed_over:
        print(f"passed over: {reason}", file=sys.stderr)
    written = [result for result in report.results if result.output]
    if not written:
        return
    remembered = ", remembered" if report.verdict_remembered else ""
    print(
        f"{report.artifact} ({report.precision}) in {report.backend} {report.backend_version}:"
        f" {report.fidelity_db:.1f} dB to FP32 on the probes, at least {report.limit_db:.1f}"
        f"{remembered}",
        file=sys.stderr,
    )
    if len(written) > LISTED_RESULTS:
        print(f"{len(written)} faces written", file=sys.stderr)
        return
    for result in written:
        print(f"{result.input} -> {result.output}  {result.ms:.1f} ms", file=sys.stderr)


def _show_progress(done: int, total: int) -> None:
    if total > 1:
        end = "\n" if done == total else ""
        print(f"\r{done}/{total} faces", end=end, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runtime.infer",
        description="Enlarge 16x16 faces to 128x128. The result of x.png is x_sr.png.",
    )
    parser.add_argument("inputs", nargs="+", metavar="IMG_OR_DIR", help="face pictures, folders")
    parser.add_argument("--artifact", metavar="F", help="an ONNX file, or a folder of them")
    parser.add_argument(
        "--backend", default="auto", metavar="B", help="auto, onnxruntime, openvino or tensorrt"
    )
    parser.add_argument(
        "--provider",
        choices=("cpu", "cuda", "tensorrt"),
        help="what ONNX Runtime computes with (default: cpu)",
    )
    parser.add_argument("--out", metavar="P", help="a folder, or the file for a single picture")
    parser.add_argument(
        "--reduce", action="store_true", help="make faces of more than 32 px 16x16 first"
    )
    parser.add_argument(
        "--require-precision", choices=PRECISIONS, help="exit with 6 unless this is computed in"
    )
    parser.add_argument(
        "--fallback", action="store_true", help="take the next artifact if one cannot be used"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
