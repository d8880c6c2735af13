"""Jobs: what is to be upscaled and where each result goes; and the result of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runtime.dataset import is_tar_name
from runtime.errors import EXIT_ERROR
from runtime.media.origin import origin_of, read_origin
from runtime.media.outputs import FileOutput, Output, lacks_some

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".mkv", ".webm", ".avi"),
    *(".mts", ".m2ts", ".mpg", ".mpeg", ".wmv", ".flv"),
)


@dataclass(frozen=True)
class Job:
    """One image or video to upscale, or an input that holds none, and why.

    It is a file at `path`, or its content is `data`: a tar's member, or standard input. `listed`:
    it was found in a folder, a tar or by a glob, not named itself.
    """

    name: str
    output: Output | None = None
    path: Path | None = None
    data: bytes | None = None
    error: str | None = None
    note: str | None = None
    listed: bool = False

    @property
    def is_video(self) -> bool:
        return is_video_name(self.name)

    @property
    def is_tar(self) -> bool:
        return self.path is not None and is_tar_name(self.path) and not self.error

    @property
    def origin(self) -> str:
        """What its result has in its metadata."""
        return origin_of(self.path or self.name)

    def is_done(self, since: float) -> bool:
        """Whether its result is whole, newer than its source and than `since`, in seconds."""
        if not (self.path and isinstance(self.output, FileOutput)):
            return False
        if not (self.listed or self.is_tar):
            return False
        done = self.output.path
        try:
            fresh = done.stat().st_mtime >= max(since, self.path.stat().st_mtime)
        except OSError:
            return False
        return fresh and read_origin(done) == self.origin and not (self.is_tar and lacks_some(done))


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


def is_video_name(name: str | Path) -> bool:
    """Whether a file is taken for a video: its suffix says so, and it is not hidden."""
    path = Path(name)
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")
