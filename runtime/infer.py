"""Upscale faces: `python -m runtime.infer face.png` writes face_sr.png beside it.

Images over 32 px are taken for photos, whose faces are found, upscaled and pasted back.

numpy, Pillow and the backend are imported when the work starts, so that --help answers at once.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from runtime.cpu import usable_cores
from runtime.errors import EXIT_ERROR, EXIT_INTERRUPTED, EXIT_USAGE, EdgeError, run_command
from runtime.media.arguments import make_parser
from runtime.startup import importing

if TYPE_CHECKING:
    from runtime.media.jobs import FaceResult
    from runtime.media.video import Watch
    from runtime.session import Session
    from runtime.shapes import Shape

COUNTED = 10_000  # jobs: of more the number is not counted beforehand


@dataclass(frozen=True)
class InferOptions:
    """How to upscale; what is not given is chosen by open_session, or by the image's size."""

    artifact: str | None = None
    backend: str = "auto"
    out: str | None = None
    mode: str = "auto"
    style: str = "natural"
    reduce: bool = False
    scale: int | None = None
    faces_only: bool = False
    draw_boxes: bool = False
    overwrite: bool = False
    require_precision: str | None = None
    fallback: bool = False
    workers: int | None = None
    shard: str | None = None
    image_column: str | None = None


@dataclass(frozen=True)
class InferReport:
    """The results, and the first model that made them; fidelity_db is to FP32, on the probes.

    `choice` is how `auto` calls this artifact in this backend; `batch` faces were run at once.
    `artifacts` are all models that ran; all of this is None, or empty, if none was needed. Files
    that are no images or videos by their names are `ignored`, counted by suffix.
    """

    results: tuple[FaceResult, ...]
    backend: str | None = None
    backend_version: str | None = None
    artifact: str | None = None
    artifacts: tuple[str, ...] = ()
    precision: str | None = None
    executes_as: str | None = None
    fidelity_db: float | None = None
    limit_db: float | None = None
    verdict_remembered: bool | None = None
    choice: Shape | None = None
    batch: int | None = None
    passed_over: tuple[str, ...] = ()
    inputs: int = 0
    faces: int = 0
    skipped: int = 0
    failed: int = 0
    seconds: float = 0.0
    faces_per_s: float | None = None
    workers: int = 1
    ignored: Mapping[str, int] | None = None
    status: int = 0


Progress = Callable[[int, "int | None"], None]


def infer(
    inputs: Sequence[str],
    options: InferOptions | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda line: None,
    watch: Watch = lambda done, total: None,
) -> InferReport:
    """Upscale the faces in images, photos, videos, folders, globs, tars and parquet files.

    An input that cannot be upscaled becomes a result with an error; the others are written. Raises
    EdgeError if nothing can be: no sound model, no such backend, colliding outputs.
    `progress(done, total)` is called after each, and `watch(done, total)` after each frame of a
    video, whose totals may be None; `say` hears what takes long at a first start.
    """
    results: list[FaceResult] = []
    report = infer_each(inputs, results.append, options, progress, say, watch)
    return replace(report, results=tuple(results))


def infer_each(
    inputs: Sequence[str],
    on_result: Callable[[FaceResult], None],
    options: InferOptions | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda line: None,
    watch: Watch = lambda done, total: None,
) -> InferReport:
    """As infer, with each result handed to `on_result` as it comes, and none kept."""
    from runtime.backends.open import check_backend
    from runtime.media.models import ModelOptions, Models
    from runtime.media.pipeline import MediaOptions, Pipeline
    from runtime.media.plan import Plan, Shard
    from runtime.media.run import results

    options = options or InferOptions()
    check_backend(options.backend)
    if options.scale and options.mode == "face":
        raise EdgeError("--scale is for photos and videos; a face becomes 128x128", EXIT_USAGE)
    if options.artifact is not None and options.style != InferOptions.style:
        raise EdgeError("--style chooses a model, --artifact names one; give either", EXIT_USAGE)
    shard = Shard.parse(options.shard) if options.shard else Shard()
    plan = Plan(inputs, options.out, shard, options.image_column)
    jobs = plan.count(COUNTED)
    workers = options.workers or (1 if jobs == 1 else usable_cores())
    count = Count()
    # The decoder, the encoder and the detector of a video want cores too.
    callers = options.workers or (1 if jobs == 1 and not plan.has_video else None)
    with Models(_part(ModelOptions, options), say, callers, one_image=jobs == 1) as models:
        pipeline = Pipeline(models, _part(MediaOptions, options), workers, watch)
        try:
            for result in results(plan, pipeline, None if options.overwrite else models.newest()):
                count.add(result)
                on_result(result)
                if progress:
                    progress(count.inputs, jobs)
        except KeyboardInterrupt as interrupt:
            raise EdgeError(
                f"interrupted after {count.inputs} of {jobs or 'the inputs'}; what is written is"
                " whole, run it again to go on",
                EXIT_INTERRUPTED,
            ) from interrupt
        return _report(count, models.opened, workers, dict(plan.ignored))


@dataclass
class Count:
    """What was done so far."""

    started: float = field(default_factory=time.perf_counter)
    inputs: int = 0
    faces: int = 0
    skipped: int = 0
    statuses: Counter[int] = field(default_factory=Counter)

    def add(self, result: FaceResult) -> None:
        self.inputs += 1
        self.faces += result.faces
        self.skipped += result.skipped
        if result.error:
            self.statuses[result.status] += 1

    @property
    def status(self) -> int:
        """That of the errors if they have one in common."""
        return (
            next(iter(self.statuses))
            if len(self.statuses) == 1
            else EXIT_ERROR * any(self.statuses)
        )


def _report(
    count: Count, opened: Sequence[Session], workers: int, ignored: Mapping[str, int]
) -> InferReport:
    seconds = time.perf_counter() - count.started
    report = InferReport(
        results=(),
        inputs=count.inputs,
        faces=count.faces,
        skipped=count.skipped,
        failed=sum(count.statuses.values()),
        seconds=round(seconds, 3),
        faces_per_s=round(count.faces / seconds, 1) if count.faces else None,
        workers=workers,
        ignored=ignored,
        status=count.status,
    )
    if not opened:
        return report
    session = opened[0]
    assert session.verdict  # open_session verifies
    return replace(
        report,
        backend=session.backend,
        backend_version=session.backend_version,
        artifact=str(session.artifact),
        artifacts=tuple(str(each.artifact) for each in opened),
        precision=session.manifest.computed_in,
        executes_as=session.manifest.executes_as,
        fidelity_db=session.verdict.fidelity_db,
        limit_db=session.verdict.limit_db,
        verdict_remembered=session.verdict.remembered,
        choice=session.choice.shape if session.choice else None,
        batch=session.batch,
        passed_over=tuple(line for each in opened for line in each.passed_over),
    )


def _part(kind: Any, options: InferOptions) -> Any:
    """The fields that a dataclass shares with the options."""
    return kind(**{each.name: getattr(options, each.name) for each in fields(kind)})


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(make_parser(), _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    with importing():
        import runtime.media.run  # noqa: F401
        from runtime.backends.open import with_provider
        from runtime.media.console import Console

    options = {each.name: getattr(arguments, each.name) for each in fields(InferOptions)}
    options["backend"] = with_provider(arguments.backend, arguments.provider)
    to_stderr = "-" in arguments.inputs and arguments.out in (None, "-")
    if to_stderr and (arguments.json or arguments.json_lines):
        raise EdgeError("--json: stdout has the image of -; give --out", EXIT_USAGE)
    form = "json" if arguments.json else "lines" if arguments.json_lines else "text"
    with Console(form, to_stderr=to_stderr) as console:
        report = infer_each(
            arguments.inputs,
            console.result,
            InferOptions(**options),
            console.progress,
            console.say,
            console.watch,
        )
        console.end(report)
    return report.status


if __name__ == "__main__":
    sys.exit(main())
