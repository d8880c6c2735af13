"""Jobs: what is to be upscaled and where each result goes; and the result of each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from runtime.errors import EXIT_ERROR
from runtime.media.names import is_archive_name, is_video_name
from runtime.media.origin import origin_of, read_origin
from runtime.media.outputs import FileOutput, Output, lacks_some


@dataclass(frozen=True)
class Job:
    """One image or video to upscale, or an input that holds none, and why.

    It is a file at `path`, or its content is `data`: of an archive, a tar or a parquet file, or
    standard input. `listed`: it was found in a folder, an archive or by a glob, not named itself.
    """

    name: str
    output: Output | None = None
    path: Path | None = None
    data: bytes | None = None
    error: str | None = None
    note: str | None = None
    listed: bool = False

    @cached_property
    def is_video(self) -> bool:
        return is_video_name(self.path or self.name)

    @property
    def is_archive(self) -> bool:
        return self.path is not None and is_archive_name(self.path) and not self.error

    @cached_property
    def origin(self) -> str:
        """What its result has in its metadata."""
        return origin_of(self.path or self.name)

    def is_done(self, since: float) -> bool:
        """Whether its result is whole, newer than its source and than `since`, in seconds."""
        if not (self.path and isinstance(self.output, FileOutput)):
            return False
        if not (self.listed or self.is_archive):
            return False
        done = self.output.path
        try:
            fresh = done.stat().st_mtime >= max(since, self.path.stat().st_mtime)
        except OSError:
            return False
        if not (fresh and read_origin(done) == self.origin):
            return False
        return not (self.is_archive and lacks_some(done))


@dataclass(frozen=True)
class Box:
    """A face found in a photo, in its pixels: left, top, right, bottom; its score and its output.

    `upscaled` is False for one that was too small or too large, and left as it was.
    """

    box: tuple[float, ...]
    score: float
    upscaled: bool
    output: str | None = None


@dataclass(frozen=True)
class FaceResult:
    """What became of one input: its output, or the error with its exit `status`; both if partial.

    `ms` is the time that it took itself, from reading to writing, without waiting for others.
    `faces` were upscaled, `left_alone` were not; a `note` says why there was nothing to do, or what
    is worth knowing. A `skipped` input was done by an earlier run. `sound` says what became of
    that of a video.
    """

    input: str
    output: str | None = None
    faces: int = 0
    ms: float | None = None
    error: str | None = None
    kind: str = "face"
    scale: int | None = None
    left_alone: int = 0
    boxes: tuple[Box, ...] = ()
    skipped: bool = False
    status: int = 0
    sound: str | None = None
    note: str | None = None


def failure(job: Job, error: str, kind: str = "face", status: int = EXIT_ERROR) -> FaceResult:
    return FaceResult(job.name, error=error, kind=kind, status=status)
