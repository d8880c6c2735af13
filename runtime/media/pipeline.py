"""The work itself: pictures are read, enlarged and written at the same time, in their order.

One thread reads ahead, the caller's runs the network, others write. Results come in the order of
the jobs; each output is whole or not there.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from runtime.errors import EXIT_ERROR, EdgeError
from runtime.image import (
    LR_SIDE,
    MAX_ASPECT,
    MAX_LR_SIDE,
    Pixels,
    fit_face,
    read_image,
    to_pixels,
    to_tensor,
    write_image,
)
from runtime.media import detector
from runtime.media.detector import Detector
from runtime.media.jobs import Box, FaceResult, Job
from runtime.media.photo import MAX_FACE, MIN_FACE, EnlargedPhoto, upscale_photo
from runtime.session import Session

if TYPE_CHECKING:
    from runtime.media.video import Watch

AHEAD = 16  # pictures read before it is their turn, of at most AHEAD_PIXELS together
AHEAD_PIXELS = 16 << 20
WRITERS = 2


@dataclass(frozen=True)
class MediaOptions:
    """How pictures are taken (auto, face, photo), and what is written of a photo.

    Without a `scale` it is chosen by the size.
    """

    mode: str = "auto"
    reduce: bool = False
    scale: int | None = None
    faces_only: bool = False
    draw_boxes: bool = False


@dataclass(frozen=True, eq=False)
class Picture:
    """What was read: the network's (16, 16, 3) of a face, a photo as it is, or the result already.

    None of them: a video, which is read while it is enlarged.
    """

    job: Job
    started: float
    lr: Pixels | None = None
    photo: Pixels | None = None
    result: FaceResult | None = None


class Pipeline:
    """Enlarges jobs with a session; `watch` hears of each frame of a video."""

    def __init__(
        self, session: Session, manner: MediaOptions, watch: Watch = lambda done, total: None
    ) -> None:
        self._session = session
        self._manner = manner
        self._watch = watch

    @cached_property
    def _detector(self) -> Detector:
        return Detector()

    def enlarge(self, jobs: Sequence[Job], done_since: float | None = None) -> Iterator[FaceResult]:
        """The result of each job; with `done_since`, in seconds, what was done since is skipped."""
        reader, writers = ThreadPoolExecutor(1), ThreadPoolExecutor(WRITERS)
        results: deque[Future[FaceResult]] = deque()
        faces: list[Picture] = []
        try:
            for picture in self._read_ahead(jobs, reader, done_since):
                if picture.lr is not None:
                    faces.append(picture)
                if len(faces) == self._session.batch or picture.lr is None:
                    results += self._enlarge_faces(faces, writers)
                    faces.clear()
                if picture.lr is None:
                    results.append(_known(self._enlarge_other(picture)))
                while len(results) > (AHEAD if picture.lr is not None else 0):
                    yield results.popleft().result()
            results += self._enlarge_faces(faces, writers)
            while results:
                yield results.popleft().result()
        finally:
            reader.shutdown(wait=False, cancel_futures=True)
            writers.shutdown(wait=True, cancel_futures=True)

    def _read_ahead(
        self, jobs: Sequence[Job], reader: ThreadPoolExecutor, done_since: float | None
    ) -> Iterator[Picture]:
        waiting = deque(jobs)
        reading: deque[Future[Picture]] = deque()
        while waiting or reading:
            while waiting and len(reading) < AHEAD and _pixels(reading) < AHEAD_PIXELS:
                reading.append(reader.submit(self._read, waiting.popleft(), done_since))
            yield reading.popleft().result()

    def _read(self, job: Job, done_since: float | None) -> Picture:
        started = time.perf_counter()
        if job.target is None:
            return Picture(job, started, result=_failure(job, job.error or ""))
        if done_since is not None and job.is_done(done_since):
            done = FaceResult(str(job.source), str(job.target), 0, None, None, skipped=True)
            return Picture(job, started, result=done)
        if job.is_video:
            return Picture(job, started)
        pixels = None
        try:
            pixels = read_image(job.source)
            if self._is_photo(pixels):
                return Picture(job, started, photo=pixels)
            lr = fit_face(pixels, str(job.source), reduce=self._manner.reduce)
            return Picture(job, started, lr=lr)
        except EdgeError as error:
            return Picture(job, started, result=_failure(job, f"{error}{self._hint(pixels)}"))

    def _is_photo(self, pixels: Pixels) -> bool:
        """A picture too large for a face, or of another shape, where faces can be found in it."""
        if self._manner.mode != "auto":
            return self._manner.mode == "photo"
        shorter, longer = sorted(pixels.shape[:2])
        is_face = longer <= MAX_ASPECT * shorter and (longer <= MAX_LR_SIDE or self._manner.reduce)
        return not is_face and shorter >= LR_SIDE and detector.is_installed()

    def _hint(self, pixels: Pixels | None) -> str:
        if pixels is None or self._manner.mode != "auto" or detector.is_installed():
            return ""
        return f"; a photo's faces are found after {detector.INSTALL}"

    def _enlarge_faces(
        self, faces: Sequence[Picture], writers: ThreadPoolExecutor
    ) -> list[Future[FaceResult]]:
        """Run them at once; if that fails, one by one, to see which it was."""
        if not faces:
            return []
        lr = np.stack([face.lr for face in faces if face.lr is not None])
        try:
            sr = to_pixels(self._session.run(to_tensor(lr)))
        except EdgeError as error:
            if len(faces) == 1:
                return [_known(_failure(faces[0].job, str(error)))]
            return [result for face in faces for result in self._enlarge_faces([face], writers)]
        return [
            writers.submit(_write_face, face, pixels)
            for face, pixels in zip(faces, sr, strict=True)
        ]

    def _enlarge_other(self, picture: Picture) -> FaceResult:
        job, started = picture.job, time.perf_counter()
        if picture.result:
            return picture.result
        assert job.target  # _read took those without
        try:
            if picture.photo is None:
                result = self._enlarge_video(job.source, job.target)
            else:
                result = self._enlarge_photo(job.source, job.target, picture.photo)
        except EdgeError as error:
            kind = "photo" if picture.photo is not None else "video"
            return replace(_failure(job, str(error), kind), status=error.status)
        return replace(result, ms=_ms_since(started))

    def _enlarge_photo(self, source: Path, target: Path, pixels: Pixels) -> FaceResult:
        manner = self._manner
        photo = upscale_photo(pixels, self._session, self._detector, manner.scale)
        boxes = [
            Box(
                tuple(round(side, 1) for side in f.face.box),
                round(f.face.score, 3),
                f.sr is not None,
            )
            for f in photo.faces
        ]
        if not photo.enlarged:
            raise EdgeError(f"{source}: {_no_face(photo)}")
        if manner.faces_only:
            boxes = [
                replace(box, output=_write_one(target, index, face.sr))
                for index, (box, face) in enumerate(zip(boxes, photo.faces, strict=True))
            ]
        else:
            write_image(target, photo.with_boxes() if manner.draw_boxes else photo.pixels)
        return FaceResult(
            input=str(source),
            output=str(target.parent if manner.faces_only else target),
            faces=photo.enlarged,
            ms=None,
            error=None,
            kind="photo",
            scale=photo.scale,
            left_alone=len(photo.faces) - photo.enlarged,
            boxes=tuple(boxes),
        )

    def _enlarge_video(self, source: Path, target: Path) -> FaceResult:
        """Each frame as a picture of its own; a frame without small faces is enlarged all the same.

        Frames of the size of a face picture are faces.
        """
        from runtime.media import video  # faces alone do without it

        if self._manner.faces_only:
            raise EdgeError(f"{source}: is a video; --faces-only is for photos")
        faces = left_alone = 0

        def enlarge(frame: Pixels) -> Pixels:
            nonlocal faces, left_alone
            if not self._is_photo(frame):
                faces += 1
                return self._session.upscale(frame, reduce=self._manner.reduce)
            scale = self._manner.scale or video.largest_scale(*frame.shape[:2])
            photo = upscale_photo(frame, self._session, self._detector, scale)
            faces += photo.enlarged
            left_alone += len(photo.faces) - photo.enlarged
            return photo.with_boxes() if self._manner.draw_boxes else photo.pixels

        written = video.upscale_video(source, target, enlarge, self._watch)
        return FaceResult(
            input=str(source),
            output=str(target),
            faces=faces,
            ms=None,
            error=None,
            kind="video",
            left_alone=left_alone,
            sound=written.sound,
        )


def _write_face(face: Picture, sr: Pixels) -> FaceResult:
    job = face.job
    assert job.target  # _read took those without
    try:
        write_image(job.target, sr)
    except EdgeError as error:
        return _failure(job, str(error))
    return FaceResult(str(job.source), str(job.target), 1, _ms_since(face.started), None)


def _write_one(target: Path, index: int, sr: Pixels | None) -> str | None:
    """One face of a photo: `x_sr.png` gives `x_face0_sr.png`."""
    if sr is None:
        return None
    path = target.with_name(f"{target.stem.removesuffix('_sr')}_face{index}_sr{target.suffix}")
    write_image(path, sr)
    return str(path)


def _no_face(photo: EnlargedPhoto) -> str:
    if not photo.faces:
        return "no face was found in it, expected a photo with faces of 8 to 32 px"
    widths = ", ".join(f"{face.face.width:.0f}" for face in photo.faces[:5])
    return (
        f"none of its {len(photo.faces)} faces is {MIN_FACE} to {MAX_FACE} px across ({widths});"
        " shrink the photo, or crop it to a face and give --reduce"
    )


def _failure(job: Job, error: str, kind: str = "face") -> FaceResult:
    return FaceResult(str(job.source), None, 0, None, error, kind, status=EXIT_ERROR)


def _known(result: FaceResult) -> Future[FaceResult]:
    future: Future[FaceResult] = Future()
    future.set_result(result)
    return future


def _pixels(reading: deque[Future[Picture]]) -> int:
    """Of the photos that were read and wait."""
    read = [future.result().photo for future in reading if future.done()]
    return sum(photo.size // 3 for photo in read if photo is not None)


def _ms_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1e3, 2)
