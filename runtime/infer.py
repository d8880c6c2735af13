"""Enlarge faces: `python -m runtime.infer face.png` writes face_sr.png beside it.

Pictures over 32 px are taken for photos, whose faces are found, enlarged and pasted back.

numpy, Pillow and the backend are imported when the work starts, so that --help answers at once.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from runtime.errors import (
    EXIT_ERROR,
    EXIT_INTERRUPTED,
    EXIT_PRECISION,
    EdgeError,
    run_command,
)
from runtime.manifest import PRECISIONS
from runtime.media.jobs import plan

if TYPE_CHECKING:
    from runtime.media.jobs import FaceResult
    from runtime.media.video import Watch
    from runtime.session import Session

BAR_WIDTH = 30  # characters
LISTED_RESULTS = 20  # more than these are counted, not listed


@dataclass(frozen=True)
class Options:
    """How to enlarge; what is not given is chosen by open_session, or by the picture's size."""

    artifact: str | None = None
    backend: str = "auto"
    out: str | None = None
    mode: str = "auto"
    reduce: bool = False
    scale: int | None = None
    faces_only: bool = False
    draw_boxes: bool = False
    overwrite: bool = False
    require_precision: str | None = None
    fallback: bool = False


@dataclass(frozen=True)
class InferReport:
    """The results, and what made them; fidelity_db is to FP32, on the probes.

    `choice` is why `auto` took this artifact in this backend; `batch` faces were run at once.
    """

    results: tuple[FaceResult, ...]
    backend: str
    backend_version: str
    artifact: str
    precision: str
    fidelity_db: float
    limit_db: float
    verdict_remembered: bool
    choice: str | None
    batch: int
    passed_over: tuple[str, ...]


Progress = Callable[[int, int], None]


def infer(
    inputs: Sequence[str],
    options: Options | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda line: None,
    watch: Watch = lambda done, total: None,
) -> InferReport:
    """Enlarge the faces in pictures, folders, globs, photos and videos and write them.

    An input that cannot be enlarged becomes a result with an error; the others are written. Raises
    EdgeError if nothing can be: no sound model, no such backend, colliding outputs.
    `progress(done, total)` is called after each, and `watch(done, total)` after each frame of a
    video, whose total may be None; `say` hears what takes long at a first start.
    """
    from runtime.media.pipeline import MediaOptions, Pipeline
    from runtime.session import open_session

    options = options or Options()
    jobs = plan(inputs, options.out)
    results: list[FaceResult] = []
    with open_session(
        options.artifact, options.backend, fallback=options.fallback, say=say
    ) as session:
        _require_precision(session, options.require_precision)
        chosen = {name: getattr(options, name) for name in MediaOptions.__dataclass_fields__}
        done_since = None if options.overwrite else session.artifact.stat().st_mtime
        try:
            pipeline = Pipeline(session, MediaOptions(**chosen), watch)
            for result in pipeline.enlarge(jobs, done_since):
                results.append(result)
                if progress:
                    progress(len(results), len(jobs))
        except KeyboardInterrupt as interrupt:
            raise EdgeError(
                f"interrupted after {len(results)} of {len(jobs)}; what is written is whole, run it"
                " again to go on",
                EXIT_INTERRUPTED,
            ) from interrupt
        return _report(session, results)


def _report(session: Session, results: Sequence[FaceResult]) -> InferReport:
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
        choice=session.choice.reason if session.choice else None,
        batch=session.batch,
        passed_over=session.passed_over,
    )


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
    from runtime.backends.open import with_provider

    options = {name: getattr(arguments, name) for name in Options.__dataclass_fields__}
    options["backend"] = with_provider(arguments.backend, arguments.provider)
    progress = ProgressBar() if sys.stderr.isatty() else None
    watch = progress.watch if progress else lambda done, total: None
    report = infer(arguments.inputs, Options(**options), progress, _say, watch)
    if arguments.json:
        print(json.dumps(asdict(report)))
    else:
        _describe(report)
    failed = [result for result in report.results if result.error]
    for result in failed:
        print(f"error: {result.error}", file=sys.stderr)
    statuses = {result.status for result in failed}
    return statuses.pop() if len(statuses) == 1 else EXIT_ERROR if failed else 0


def _describe(report: InferReport) -> None:
    for reason in report.passed_over:
        print(f"passed over: {reason}", file=sys.stderr)
    written = [result for result in report.results if result.output and not result.skipped]
    skipped = sum(result.skipped for result in report.results)
    if skipped:
        print(f"{skipped} were done before; --overwrite makes them again", file=sys.stderr)
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
        print(f"{sum(result.faces for result in written)} faces written", file=sys.stderr)
        return
    for result in written:
        print(f"{result.input} -> {result.output}  {_describe_one(result)}", file=sys.stderr)


def _describe_one(result: FaceResult) -> str:
    if result.kind == "face":
        return f"{result.ms:.1f} ms"
    alone = f", {result.left_alone} left alone" if result.left_alone else ""
    sound = f", sound {result.sound}" if result.sound not in (None, "none") else ""
    return f"{result.faces} faces{alone}{sound}, {result.ms:.0f} ms"


def _say(line: str) -> None:
    print(line, file=sys.stderr)


class ProgressBar:
    """A line on the terminal: how many are done, and how many a second; also of a video's frames.

    A single picture has none.
    """

    def __init__(self) -> None:
        self._started = self._video_started = time.perf_counter()

    def __call__(self, done: int, total: int) -> None:
        if total > 1:
            self._draw(done, total, self._started, "")

    def watch(self, done: int, total: int | None) -> None:
        if done == 1:
            self._video_started = time.perf_counter()
        self._draw(done, total, self._video_started, "frames ")

    def _draw(self, done: int, total: int | None, started: float, what: str) -> None:
        rate = done / max(time.perf_counter() - started, 1e-9)
        share = min(done / total, 1) if total else 0
        bar = "#" * round(BAR_WIDTH * share)
        end = "\n" if done == total else ""
        line = f"\r[{bar:{BAR_WIDTH}}] {what}{done}/{total or '?'}, {rate:.1f}/s "
        print(line, end=end, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runtime.infer",
        description="Enlarge 16x16 faces to 128x128, alone, in photos or in videos. The result of"
        " x.png is x_sr.png.",
    )
    parser.add_argument(
        "inputs", nargs="+", metavar="IMG_OR_DIR", help="faces, photos, videos, folders, globs"
    )
    parser.add_argument("--artifact", metavar="F", help="an ONNX file, an engine, or a folder")
    parser.add_argument(
        "--backend",
        default="auto",
        metavar="B",
        help="auto, onnxruntime, openvino, litert or tensorrt",
    )
    parser.add_argument(
        "--provider",
        choices=("cpu", "cuda", "tensorrt"),
        help="what ONNX Runtime computes with (default: cpu)",
    )
    parser.add_argument("--out", metavar="P", help="a folder, or the file for a single picture")
    parser.add_argument(
        "--mode",
        choices=("auto", "face", "photo"),
        default="auto",
        help="auto takes what is square and at most 32 px for a face, the rest for photos",
    )
    parser.add_argument(
        "--scale", type=int, choices=range(1, 9), metavar="1-8", help="of photos and videos"
    )
    parser.add_argument(
        "--faces-only", action="store_true", help="write each face of a photo by itself"
    )
    parser.add_argument("--draw-boxes", action="store_true", help="show what was found in a photo")
    parser.add_argument(
        "--overwrite", action="store_true", help="make again what folders hold done already"
    )
    parser.add_argument(
        "--reduce", action="store_true", help="make faces of more than 32 px 16x16 first"
    )
    parser.add_argument(
        "--require-precision", choices=PRECISIONS, help="exit with 6 unless this is computed in"
    )
    parser.add_argument(
        "--fallback", action="store_true", help="take the next backend or artifact if one fails"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
