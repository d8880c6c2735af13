"""What became of an input: a picture, a photo with its faces, or a video."""

from dataclasses import dataclass


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
