"""Jobs: the inputs to upscale and where each result goes; and the result of each."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import EdgeError

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v")


@dataclass(frozen=True)
class Job:
    """One picture or video to enlarge and where to; or an input that holds none, and why.

    `listed`: it was found in a folder or by a glob, not named itself.
    """

    source: Path
    target: Path | None
    error: str | None = None
    listed: bool = False

    @property
    def is_video(self) -> bool:
        return is_video_name(self.source)

    def is_done(self, since: float) -> bool:
        """Whether the result is there, and newer than its source and than `since`, in seconds."""
        if not (self.listed and self.target):
            return False
        try:
            done = self.target.stat().st_mtime
            return done >= since and done >= self.source.stat().st_mtime
        except OSError:
            return False


@dataclass(frozen=True)
class Box:
    """A face found in a photo, in its pixels: left, top, right, bottom; how sure, and its output.

    `enlarged` is False for one that was too small or too large, and left as it was.
    """

    box: tuple[float, ...]
    score: float
    enlarged: bool
    output: str | None = None


@dataclass(frozen=True)
class FaceResult:
    """What became of one input: its output, or the error with its exit `status`.

    `ms` is the time from reading a face until it was written, without the reading for photos and
    videos. `faces` were enlarged, `left_alone` were not. A `skipped` input was done by an earlier
    run. `sound` says what became of that of a video.
    """

    input: str
    output: str | None
    faces: int
    ms: float | None
    error: str | None
    kind: str = "face"
    scale: int | None = None
    left_alone: int = 0
    boxes: tuple[Box, ...] = ()
    skipped: bool = False
    status: int = 0
    sound: str | None = None


def plan(inputs: Sequence[str], out: str | None) -> list[Job]:
    """One job for each picture: `x.jpg` becomes `x_sr.png`, beside it or in the folder `out`.

    A video `x.mkv` becomes `x_sr.mp4`. `out` with a suffix names the file for a single input.
    Folders are searched through, their tree is kept under `out`, and what is called *_sr in them
    is taken for a result. Raises EdgeError if two inputs would be written to one file, or one over
    an input.
    """
    jobs = [job for source in inputs for job in _jobs_of_input(source, out)]
    if out and names_file(out):
        if len(jobs) != 1 or jobs[0].listed:
            raise EdgeError(
                f"{out}: names one picture for several; give a folder, without a suffix"
            )
        jobs = [Job(jobs[0].source, Path(out))]
    _refuse_collisions(jobs)
    return jobs


def names_file(out: str) -> bool:
    """Whether --out is taken for a file rather than a folder."""
    return bool(Path(out).suffix) and not Path(out).is_dir()


def is_video_name(path: Path) -> bool:
    """Whether a file is taken for a video: its suffix says so, and it is not hidden."""
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")


def _jobs_of_input(source: str, out: str | None) -> Iterator[Job]:
    folder = Path(out) if out and not names_file(out) else None
    if glob.has_magic(source) and not os.path.lexists(source):
        matches = sorted(glob.glob(source, recursive=True))
        for match in map(Path, matches):
            if not match.stem.endswith("_sr"):
                yield from _jobs(match, folder, listed=True)
        if not matches:
            yield Job(Path(source), None, f"{source}: matches nothing; check the pattern")
        return
    yield from _jobs(Path(source), folder)


def _jobs(source: Path, out: Path | None, listed: bool = False) -> Iterator[Job]:
    from runtime.dataset import is_image_name, list_files

    if not source.is_dir():
        yield Job(source, _target(source, out or source.parent), listed=listed)
        return
    try:
        files = list_files(source, lambda name: is_image_name(name) or is_video_name(Path(name)))
    except EdgeError as error:
        yield Job(source, None, str(error))
        return
    found = [path for path in files if not path.stem.endswith("_sr")]
    for path in found:
        folder = out / path.parent.relative_to(source) if out else path.parent
        yield Job(path, _target(path, folder), listed=True)
    if not found:
        yield Job(source, None, f"{source}: holds no picture to enlarge")


def _target(source: Path, folder: Path) -> Path:
    suffix = ".mp4" if is_video_name(source) else ".png"
    return folder / f"{source.stem}_sr{suffix}"


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
