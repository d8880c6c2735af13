"""The work itself: several workers each read, upscale and write some images, in their order.

A network for faces does not split well over cores, so each worker calls it on its own. A file of
its own waits for the disk, several milliseconds, so writers do that. Results come in the order of
the jobs; each output is whole or not there.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, islice
from threading import Lock
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from runtime.errors import EXIT_ERROR, EdgeError, FullDiskError
from runtime.image import (
    LR_SIDE,
    MAX_ASPECT,
    MAX_LR_SIDE,
    Pixels,
    decode_image,
    fit_face,
    read_image,
)
from runtime.media import centerface
from runtime.media.jobs import FaceResult, Job, failure
from runtime.media.models import Models, OpeningError
from runtime.media.outputs import FileOutput, RowOutput
from runtime.session import Session

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

    from runtime.media.detector import Detector
    from runtime.media.video import Watch

CHUNK = 8  # images that a worker takes at once, after the first of each
AHEAD = 2  # chunks for each worker that wait for an earlier one to be done
WRITERS = 4  # for each worker; a disk that flushes several files flushes them together


@dataclass(frozen=True)
class MediaOptions:
    """How images are taken (auto, face, photo), and what is written of a photo.

    Without a `scale` it is chosen by the size.
    """

    mode: str = "auto"
    reduce: bool = False
    scale: int | None = None
    faces_only: bool = False
    draw_boxes: bool = False
    overwrite: bool = False


@dataclass(frozen=True, eq=False)
class UpscaledFace:
    """A face that was read, as the network takes it (S, S, 3), and the ms that this took."""

    job: Job
    lr: Pixels
    ms: float


Made: TypeAlias = "FaceResult | Future[FaceResult]"


class Pipeline:
    """Upscales jobs with `workers` threads; `watch` hears of each frame of a video."""

    def __init__(
        self,
        models: Models,
        options: MediaOptions,
        workers: int = 1,
        watch: Watch = lambda done, total: None,
    ) -> None:
        self.models = models
        self.options = options
        self._workers = workers
        self._watch = watch
        self.started = time.time()
        self._lock = Lock()

    @cached_property
    def _opened_detector(self) -> Detector:
        from runtime.media.detector import Detector  # which faces alone do without

        return Detector()

    @property
    def detector(self) -> Detector:
        with self._lock:
            return self._opened_detector

    def run(self, jobs: Iterable[Job], done_since: float | None = None) -> Iterator[FaceResult]:
        """The result of each job; with `done_since`, in seconds, what was done since is skipped."""
        rest = iter(jobs)
        first_two = list(islice(rest, 2))
        if len(first_two) < 2:  # a start without threads is faster and takes less memory
            for job in first_two:
                yield from map(_wait, self._work([job], done_since, None))
        else:
            yield from self._run_at_once(chain(first_two, rest), done_since)

    def _run_at_once(self, jobs: Iterable[Job], done_since: float | None) -> Iterator[FaceResult]:
        from concurrent.futures import ThreadPoolExecutor  # which one image does without

        pool = ThreadPoolExecutor(self._workers)
        writers = ThreadPoolExecutor(WRITERS * self._workers)
        pending: deque[tuple[Sequence[Job], Future[list[Made]]]] = deque()
        targets: set[str] = set()  # of the jobs that are pending

        def first() -> list[FaceResult]:
            jobs, future = pending.popleft()
            results = [_wait(made) for made in future.result()]
            targets.difference_update(job.output.name for job in jobs if job.output)
            return results

        try:
            for chunk in _chunks(jobs, self._workers):
                distinct = [_refuse_twice(job, targets) for job in chunk]
                pending.append((distinct, pool.submit(self._work, distinct, done_since, writers)))
                while len(pending) > AHEAD * self._workers or (pending and pending[0][1].done()):
                    yield from first()
            while pending:
                yield from first()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            writers.shutdown(wait=True, cancel_futures=True)

    def _work(
        self, jobs: Sequence[Job], done_since: float | None, writers: Executor | None
    ) -> list[Made]:
        results: dict[int, Made] = {}
        faces: list[UpscaledFace] = []
        for job in jobs:
            read = self._read(job, done_since)
            if isinstance(read, UpscaledFace):
                faces.append(read)
            else:
                results[id(job)] = read
        while faces:
            session = self.models.for_faces()
            some, faces = faces[: session.batch], faces[session.batch :]
            results.update(self._upscale_faces(session, some, writers))
        return [results[id(job)] for job in jobs]

    def _read(self, job: Job, done_since: float | None) -> UpscaledFace | FaceResult:
        """Read a face; anything else is done at once."""
        started = time.perf_counter()
        if job.error or job.output is None:
            return failure(job, job.error or "")
        if done_since is not None and job.is_done(done_since):
            return FaceResult(job.name, job.output.name, skipped=True)
        kind, pixels = "video" if job.is_video else "face", None
        try:
            if not (job.is_video and job.path):
                name = job.name if job.path or job.name != "-" else "standard input"
                pixels = read_image(job.path) if job.path else decode_image(job.data or b"", name)
                kind = "photo" if self.is_photo(pixels) else "face"
            read_ms = _ms_since(started)
            lr = self._fit_face(job, pixels) if pixels is not None and kind == "face" else None
            job.output.claim(job.origin, self.options.overwrite, self.started)
            if lr is not None:
                return UpscaledFace(job, lr, read_ms)
            if pixels is not None:
                from runtime.media.photo_jobs import upscale_photo_job  # no photo, no import

                return upscale_photo_job(self, job, pixels, read_ms)
            return self._upscale_video(job)
        except (OpeningError, FullDiskError):
            raise
        except EdgeError as error:
            hint = self._hint(pixels) if kind == "face" else ""
            return failure(job, f"{error}{hint}", kind, error.status)

    def _fit_face(self, job: Job, pixels: Pixels) -> Pixels:
        if self.options.scale and not job.listed:
            raise EdgeError(
                f"{job.name}: is a face, which becomes 128x128; --scale is for photos and videos"
            )
        session = self.models.for_faces()
        return fit_face(pixels, job.name, side=session.lr_side, reduce=self.options.reduce)

    def is_photo(self, pixels: Pixels) -> bool:
        """An image too large for a face, or of another shape, where faces can be found in it."""
        if self.options.mode != "auto":
            return self.options.mode == "photo"
        shorter, longer = sorted(pixels.shape[:2])
        fits = longer <= MAX_LR_SIDE or self.options.reduce
        is_face = longer <= MAX_ASPECT * shorter and fits
        return not is_face and shorter >= LR_SIDE and centerface.is_installed()

    def _hint(self, pixels: Pixels | None) -> str:
        if pixels is None or self.options.mode != "auto" or centerface.is_installed():
            return ""
        return f"; a photo's faces are found after {centerface.INSTALL}"

    def _upscale_faces(
        self, session: Session, faces: Sequence[UpscaledFace], writers: Executor | None
    ) -> dict[int, Made]:
        """Run them at once; if that fails, one by one, to see which it was."""
        started = time.perf_counter()
        try:
            sr = session.upscale_faces(np.stack([face.lr for face in faces]))
        except EdgeError as error:
            if len(faces) == 1:
                return {id(faces[0].job): failure(faces[0].job, str(error), status=error.status)}
            alone = [self._upscale_faces(session, [face], writers) for face in faces]
            return {job: result for results in alone for job, result in results.items()}
        ms = _ms_since(started) / len(faces)
        return {
            id(face.job): _write_face(face, pixels, ms, writers)
            for face, pixels in zip(faces, sr, strict=True)
        }

    def upscale_many(self, session: Session, lr: Pixels) -> Pixels:
        """The faces of one image (N, S, S, 3), in batches, by several callers if there are many."""
        if len(lr) <= session.batch or self._workers == 1:
            return session.upscale_faces(lr)
        from concurrent.futures import ThreadPoolExecutor

        batches = [lr[at : at + session.batch] for at in range(0, len(lr), session.batch)]
        with ThreadPoolExecutor(self._workers) as pool:
            return np.concatenate(list(pool.map(session.upscale_faces, batches)))

    def _upscale_video(self, job: Job) -> FaceResult:
        """A frame without small faces is upscaled all the same; small frames are faces."""
        from runtime.media import video  # which faces alone do without
        from runtime.media.frames import Frames

        if self.options.faces_only:
            raise EdgeError(f"{job.name}: is a video; --faces-only is for photos")
        if not isinstance(job.output, FileOutput) or job.path is None:
            raise EdgeError(f"{job.name}: is a video, which is written to a file; give a folder")
        frames = Frames(self)
        started = time.perf_counter()
        written = video.upscale_video(
            job.path, job.output.path, frames.upscale, self._watch, job.origin
        )
        return FaceResult(
            job.name,
            job.output.name,
            faces=frames.faces,
            ms=_ms_since(started),
            error=f"{job.name}: {written.shortfall}" if written.shortfall else None,
            kind="video",
            scale=frames.scale,
            left_alone=frames.left_alone,
            status=EXIT_ERROR if written.shortfall else 0,
            sound=written.sound,
            note=written.left_out,
        )


def _chunks(jobs: Iterable[Job], workers: int) -> Iterator[list[Job]]:
    """One job for each worker first, so that few jobs are spread over all; then CHUNK each."""
    rest = iter(jobs)
    for job in islice(rest, 2 * workers):
        yield [job]
    while chunk := list(islice(rest, CHUNK)):
        yield chunk


def _refuse_twice(job: Job, targets: set[str]) -> Job:
    """The job, or an error in its place if another that is under way writes its result there."""
    if job.output is None or job.error or isinstance(job.output, RowOutput):
        return job
    if job.output.name in targets:
        error = f"{job.output.name}: is already the result of another input; give another --out"
        return replace(job, output=None, error=error)
    targets.add(job.output.name)
    return job


def _wait(made: Made) -> FaceResult:
    return made if isinstance(made, FaceResult) else made.result()


def _write_face(face: UpscaledFace, sr: Pixels, ms: float, writers: Executor | None) -> Made:
    """Encode and write it; what waits for a disk is left to the writers, if there are any."""
    started, output = time.perf_counter(), face.job.output
    assert output  # _read took those without
    try:
        if writers and isinstance(output, FileOutput):
            data = output.encode(sr, face.job.origin)
            return writers.submit(_store_face, face, output, data, ms + _ms_since(started))
        output.write(sr, face.job.origin)
    except FullDiskError:
        raise
    except EdgeError as error:
        return failure(face.job, str(error), status=error.status)
    return _done(face, ms + _ms_since(started))


def _store_face(face: UpscaledFace, output: FileOutput, data: bytes, ms: float) -> FaceResult:
    started = time.perf_counter()
    try:
        output.store(data)
    except FullDiskError:
        raise
    except EdgeError as error:
        return failure(face.job, str(error), status=error.status)
    return _done(face, ms + _ms_since(started))


def _done(face: UpscaledFace, ms: float) -> FaceResult:
    assert face.job.output
    return FaceResult(face.job.name, face.job.output.name, faces=1, ms=round(face.ms + ms, 2))


def _ms_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1e3, 2)
