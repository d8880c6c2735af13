"""Reading videos: the frames as a player shows them, their times, and what the file promises."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from runtime.errors import EdgeError
from runtime.image import Pixels

if TYPE_CHECKING:
    import av

# Playlists and the like would have other files, or addresses, read in their place.
READING = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,asf,flv",
}
MAX_FRAME_PIXELS = 3840 * 2160
MAX_FRAMES = 36_000  # 20 minutes of 30 a second
MAX_SECONDS = 24 * 3600
Matrix: TypeAlias = "tuple[int, int, int, int]"
UPRIGHT: Matrix = (1, 0, 0, 1)
UNSPECIFIED = 2  # FFmpeg's, of a color space, its primaries and its transfer
BT601 = 6
HD_HEIGHT = 720  # px: untagged videos from here on are BT.709 for players, smaller ones BT.601
FORMAT = "yuv420p"


@dataclass(frozen=True)
class VideoProperties:
    """What a player goes by: size in px, shape of a pixel, colors, frame rate and time base.

    Size and shape are upright. Colors are FFmpeg's numbers: matrix, primaries, transfer, range.
    """

    width: int
    height: int
    aspect: Fraction
    matrix: int
    primaries: int
    transfer: int
    range: int
    rate: Fraction
    time_base: Fraction

    def matrix_of(self, height: int) -> int:
        """The matrix that a result of this height names, so that players take the source's."""
        if self.matrix == UNSPECIFIED and self.height < HD_HEIGHT <= height:
            return BT601
        return self.matrix


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """A frame, upright, of a known video; its time and duration are in units of the time base."""

    image: av.VideoFrame
    time: int
    duration: int
    properties: VideoProperties
    total: int | None

    @property
    def pixels(self) -> Pixels:
        """(H, W, 3), converted by the frame's own matrix and range."""
        return self.image.to_ndarray(format="rgb24").astype(np.uint8, copy=False)

    @property
    def seconds(self) -> Fraction:
        return self.time * self.properties.time_base


class VideoReader:
    """The first video track of a file; `shortfall` says, in the end, what was missing."""

    def __init__(
        self, pyav: ModuleType, source: Path, container: av.container.InputContainer
    ) -> None:
        self._av, self._source, self._container = pyav, source, container
        self._track = _first_track(pyav, source, container)
        self._damaged = False
        self._end: int | None = None  # of the last frame
        self.frames = 0
        self.total: int | None = self._track.frames or None
        self._refuse_large(self._track.codec_context.width, self._track.codec_context.height)
        self._refuse_long()

    def __iter__(self) -> Iterator[VideoFrame]:
        """Decode; damaged packets are left out, and a failure to read on is the end."""
        properties, last = None, None
        for image in self._images():
            self._refuse_large(image.width, image.height)
            properties = properties or self._properties_of(image)
            time = self._time_of(image, properties)
            if self.frames >= MAX_FRAMES or abs(time * properties.time_base) > MAX_SECONDS:
                self._damaged = True  # too many, or a time of no sense
                return
            time = time if last is None else max(time, last + 1)
            duration = image.duration or round(1 / properties.rate / properties.time_base)
            last, self._end = time, time + duration
            self.frames += 1
            upright = turn(self._av, image, matrix_of(image))
            yield VideoFrame(upright, time, duration, properties, self.total)

    @property
    def shortfall(self) -> str | None:
        """What the file promised and did not hold; None if all is there."""
        if self.frames >= MAX_FRAMES:
            return f"only its first {MAX_FRAMES:,} frames were upscaled; cut it"
        if not self._damaged and not self._ends_early():
            return None
        of = f" of {self.total}" if self.total else ""
        return f"only {self.frames}{of} frames can be read, the rest is damaged; get it again"

    def _ends_early(self) -> bool:
        promised = self._promised_end()
        if promised is None or self._end is None:
            return False
        frame = float(1 / self._rate)
        tolerance = max(2 * frame, promised / 50, 1.0 if self._is_matroska else 0.0)
        return float(self._end * self._time_base) < promised - tolerance

    def _promised_end(self) -> float | None:
        """When the last frame ends, in seconds, by the file's header."""
        track, ends = self._track, []
        start = float((track.start_time or 0) * self._time_base)
        if track.duration:
            ends.append(start + float(track.duration * self._time_base))
        if self._container.format.name == "avi" and track.frames:
            ends.append(start + float(track.frames / self._rate))
        if tag := re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", track.metadata.get("DURATION", "")):
            hours, minutes, seconds = tag.groups()
            ends.append(int(hours) * 3600 + int(minutes) * 60 + float(seconds))
        return max(ends, default=None)

    @property
    def _rate(self) -> Fraction:
        return self._track.average_rate or Fraction(25)

    @property
    def _time_base(self) -> Fraction:
        return self._track.time_base or 1 / self._rate

    @property
    def _is_matroska(self) -> bool:
        """Matroska does not say how long the last frame is shown."""
        return "matroska" in self._container.format.name

    def _images(self) -> Iterator[av.VideoFrame]:
        try:
            for packet in self._container.demux(self._track):
                try:
                    images = packet.decode()
                except (self._av.error.FFmpegError, ValueError):
                    self._damaged = True
                    continue
                yield from images
        except EdgeError:
            raise
        except Exception as error:  # FFmpeg's, and what the damage made PyAV trip over
            if not self.frames:
                raise EdgeError(
                    f"{self._source}: is no video, or damaged ({error}); get it again"
                ) from error
            self._damaged = True

    def _time_of(self, image: av.VideoFrame, properties: VideoProperties) -> int:
        time_base = properties.time_base
        if image.pts is None or image.time_base is None:
            return round(self.frames / properties.rate / time_base)
        return round(image.pts * image.time_base / time_base)

    def _properties_of(self, image: av.VideoFrame) -> VideoProperties:
        aspect = self._track.sample_aspect_ratio or Fraction(1)
        width, height = image.width, image.height
        if is_transposed(matrix_of(image)):
            width, height, aspect = height, width, 1 / aspect
        return VideoProperties(
            width,
            height,
            aspect,
            int(image.colorspace),
            int(image.color_primaries),
            int(image.color_trc),
            int(image.color_range),
            self._rate,
            self._time_base,
        )

    def _refuse_large(self, width: int, height: int) -> None:
        if width * height > MAX_FRAME_PIXELS:
            raise EdgeError(
                f"{self._source}: has frames of {width:,}x{height:,}, expected at most"
                f" {MAX_FRAME_PIXELS:,} pixels; shrink it"
            )

    def _refuse_long(self) -> None:
        promised = self._promised_end()
        frames = self.total or (round(promised * self._rate) if promised else 0)
        if frames > MAX_FRAMES:
            raise EdgeError(
                f"{self._source}: has {frames:,} frames, expected at most {MAX_FRAMES:,}; cut it"
            )


def _first_track(
    pyav: ModuleType, source: Path, container: av.container.InputContainer
) -> av.VideoStream:
    """Not the cover of a song."""
    cover = pyav.stream.Disposition.attached_pic
    tracks = [track for track in container.streams.video if not track.disposition & cover]
    if not tracks:
        raise EdgeError(f"{source}: has no images, expected a video")
    if tracks[0].codec_context is None:
        raise EdgeError(f"{source}: is of an unknown kind, or damaged; convert it to MP4")
    return tracks[0]


def matrix_of(image: av.VideoFrame) -> Matrix:
    """How a player turns and mirrors the frame: (a, b, c, d) of x' = ax + cy, y' = bx + dy."""
    for data in image.side_data:
        if data.type.name == "DISPLAYMATRIX":  # type: ignore[attr-defined]  # PyAV's stub: a key
            a, b, _, c, d, *_ = np.frombuffer(bytes(data), np.int32)  # type: ignore[arg-type]
            if abs(a) >= abs(b):
                return int(np.sign(a)), 0, 0, int(np.sign(d))
            return 0, int(np.sign(b)), int(np.sign(c)), 0
    return UPRIGHT


def is_transposed(matrix: Matrix) -> bool:
    return matrix[0] == 0


def turn(pyav: ModuleType, image: av.VideoFrame, matrix: Matrix) -> av.VideoFrame:
    """The frame as a player shows it, of eight bits, its colors as they are."""
    if matrix == UPRIGHT:
        return image
    a, b, c, d = matrix
    stored = image if image.format.name == FORMAT else image.reformat(format=FORMAT)
    width, height = stored.width, stored.height
    turned = pyav.VideoFrame(*((height, width) if a == 0 else (width, height)), FORMAT)
    for source, target in zip(planes(stored), planes(turned), strict=True):
        plane = source.T if a == 0 else source
        target[:] = plane[:: -1 if b + d < 0 else 1, :: -1 if a + c < 0 else 1]
    turned.colorspace, turned.color_range = image.colorspace, image.color_range
    return turned


def planes(image: av.VideoFrame) -> list[Pixels]:
    """The planes of a yuv420p frame, each (H, W), to be read and written."""
    return [
        np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[
            : plane.height, : plane.width
        ]
        for plane in image.planes
    ]
