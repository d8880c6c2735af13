"""Videos: each frame enlarged, into an MP4 of the same times and sound (PyAV: [video])."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from queue import Empty, Full, Queue
from types import ModuleType
from typing import TYPE_CHECKING, cast

from runtime.atomic import writing
from runtime.errors import EXIT_MISSING, EdgeError
from runtime.image import SCALE, Pixels

if TYPE_CHECKING:
    import av

INSTALL = "pip install 'aminet-edge[video]'"
MAX_FRAME_PIXELS = 1 << 22  # 2048x2048
MAX_OUTPUT_PIXELS = 1 << 22
MAX_FRAMES = 36_000  # 20 minutes of 30 a second
MAX_SECONDS = 24 * 3600
AHEAD = 4  # frames decoded before it is their turn, and as many that wait to be encoded
CODECS = ("libx264", "mpeg4")  # the first that PyAV was built with
SOUNDS = ("aac", "mp3", "ac3", "eac3", "opus", "alac", "flac")  # that MP4 takes as they are
# Playlists and the like would have other files, or addresses, read in their place.
READING = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi",
}
TIME_BASE = Fraction(1, 90_000)
CLOCK_S = 0.2  # between looks at whether the other thread has ended

Enlarge = Callable[[Pixels], Pixels]
Watch = Callable[[int, "int | None"], None]  # frames done, and how many there are if known


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame (H, W, 3), its second, and how many the file says that it has."""

    pixels: Pixels
    seconds: Fraction
    total: int | None


@dataclass(frozen=True)
class EnlargedVideo:
    """What was written; `sound` is "copied", "none", or "left out: " and why."""

    frames: int
    sound: str


def largest_scale(height: int, width: int) -> int:
    """How much a frame is enlarged: 8 times, or less where that were over MAX_OUTPUT_PIXELS."""
    return max(1, min(SCALE, int((MAX_OUTPUT_PIXELS / (height * width)) ** 0.5)))


def upscale_video(
    source: Path, target: Path, enlarge: Enlarge, watch: Watch = lambda done, total: None
) -> EnlargedVideo:
    """Write `target` with each frame (H, W, 3) of `source` enlarged, and its first sound track.

    Decoding runs ahead in a thread of its own; `watch(done, total)` is called after each frame.
    Raises EdgeError for what is no video, is damaged, or has larger or more frames than
    MAX_FRAME_PIXELS and MAX_FRAMES.
    """
    if not source.is_file():
        raise EdgeError(f"{source}: is not there, or no ordinary file; check the path")
    if target.suffix.lower() != ".mp4":
        raise EdgeError(f"{target}: expected a name that ends in .mp4")
    pyav = _import_av()
    count = 0
    try:
        with ExitStack() as stack:
            temporary = stack.enter_context(writing(target))
            output = stack.enter_context(pyav.open(str(temporary), "w", format="mp4"))
            sound = _Sound(pyav, stack, source)
            stream = None
            last = -1
            for frame in _ahead(_decode(pyav, source)):
                picture = pyav.VideoFrame.from_ndarray(_even(enlarge(frame.pixels)), format="rgb24")
                if stream is None:
                    stream = _add_stream(pyav, output, picture)
                    sound.add_to(output)
                sound.copy_until(frame.seconds)
                last = max(last + 1, round(frame.seconds / TIME_BASE))
                picture.pts, picture.time_base = last, TIME_BASE
                output.mux(stream.encode(picture))
                count += 1
                watch(count, frame.total)
            if stream is None:
                raise EdgeError(f"{source}: holds no frame, expected a video; get it again")
            output.mux(stream.encode(None))
            sound.copy_until(Fraction(MAX_SECONDS))
    except pyav.error.FFmpegError as error:
        raise EdgeError(f"{target}: cannot be encoded ({error}); name another place") from error
    return EnlargedVideo(count, sound.fate)


class _Sound:
    """The first sound track of a file, copied packet by packet as it is; `fate` says whether."""

    def __init__(self, pyav: ModuleType, stack: ExitStack, source: Path) -> None:
        self._track: av.AudioStream | None = None
        self._packets: Iterator[av.Packet] = iter(())
        self._waiting: av.Packet | None = None
        self.fate = "none"
        try:
            container = stack.enter_context(pyav.open(str(source), options=READING))
        except pyav.error.FFmpegError:
            return  # what reads the pictures says so
        if not container.streams.audio:
            return
        track = container.streams.audio[0]
        codec = track.codec_context.name if track.codec_context else "an unknown codec"
        if codec not in SOUNDS:
            self.fate = f"left out: MP4 has no place for {codec}"
            return
        self.fate, self._track = "copied", track
        self._packets = _demux(pyav, container, track, source)

    def add_to(self, output: av.container.OutputContainer) -> None:
        if self._track is not None:
            self._output = output
            self._copy = output.add_stream_from_template(self._track)

    def copy_until(self, seconds: Fraction) -> None:
        """Copy what is heard up to then."""
        while packet := self._waiting or next(self._packets, None):
            self._waiting = packet
            if (packet.dts or 0) * packet.time_base > seconds:
                return
            packet.stream = self._copy
            self._output.mux(packet)
            self._waiting = None


def _demux(
    pyav: ModuleType, container: av.container.InputContainer, track: av.AudioStream, source: Path
) -> Iterator[av.Packet]:
    """The track's packets that have a time."""
    try:
        for packet in container.demux(track):
            if packet.size and packet.dts is not None:
                yield packet
    except pyav.error.FFmpegError as error:
        raise EdgeError(f"{source}: its sound is damaged ({error}); get it again") from error


def _decode(pyav: ModuleType, source: Path) -> Iterator[Frame]:
    """The frames, upright as they are stored."""
    try:
        with pyav.open(str(source), options=READING) as container:
            if not container.streams.video:
                raise EdgeError(f"{source}: has no pictures, expected a video")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise EdgeError(f"{source}: is of an unknown kind, or damaged; convert it to MP4")
            _refuse_large(source, stream.codec_context.width, stream.codec_context.height)
            rate = stream.average_rate or Fraction(25)
            for number, frame in enumerate(container.decode(stream)):
                _refuse_large(source, frame.width, frame.height)
                if number >= MAX_FRAMES:
                    raise EdgeError(f"{source}: has more than {MAX_FRAMES:,} frames; cut it")
                seconds = number / rate
                if frame.pts is not None and frame.time_base:
                    seconds = frame.pts * frame.time_base
                if abs(seconds) > MAX_SECONDS:
                    raise EdgeError(
                        f"{source}: has a frame at {float(seconds):.0f} s; get it again"
                    )
                yield Frame(frame.to_ndarray(format="rgb24"), seconds, stream.frames or None)
    except EdgeError:
        raise
    except Exception as error:  # FFmpeg's, and what the damage made PyAV trip over
        raise EdgeError(f"{source}: is no video, or damaged ({error}); get it again") from error


def _refuse_large(source: Path, width: int, height: int) -> None:
    if width * height > MAX_FRAME_PIXELS:
        raise EdgeError(
            f"{source}: has frames of {width:,}x{height:,}, expected at most"
            f" {MAX_FRAME_PIXELS:,} pixels; shrink it"
        )


def _ahead(frames: Iterator[Frame]) -> Iterator[Frame]:
    """The same, decoded by another thread up to AHEAD of them early."""
    queue: Queue[Frame | BaseException | None] = Queue(AHEAD)
    stop = threading.Event()

    def put(item: Frame | BaseException | None) -> None:
        while not stop.is_set():
            try:
                return queue.put(item, timeout=CLOCK_S)
            except Full:
                continue

    def decode() -> None:
        try:
            for item in frames:
                put(item)
                if stop.is_set():
                    return
            put(None)
        except BaseException as error:  # handed on to the thread that waits for frames
            put(error)

    thread = threading.Thread(target=decode, daemon=True)
    thread.start()
    try:
        while True:
            try:
                item = queue.get(timeout=CLOCK_S)
            except Empty:
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()


def _add_stream(
    pyav: ModuleType, output: av.container.OutputContainer, first: av.VideoFrame
) -> av.VideoStream:
    codec = next(name for name in CODECS if name in pyav.codecs_available)
    options = {"crf": "17"} if codec == "libx264" else {"qscale": "3"}
    stream = cast("av.VideoStream", output.add_stream(codec, rate=30, options=options))
    stream.width, stream.height = first.width, first.height
    stream.pix_fmt = "yuv420p"
    stream.time_base = TIME_BASE
    stream.codec_context.time_base = TIME_BASE
    return stream


def _even(pixels: Pixels) -> Pixels:
    """Without the last row or column where there is an odd number: the color is stored by twos."""
    height, width = (side - side % 2 for side in pixels.shape[:2])
    return pixels[:height, :width].copy()


def _import_av() -> ModuleType:
    try:
        import av
        import av.error
    except ImportError as error:
        raise EdgeError(
            f"PyAV, which reads video, is not installed; {INSTALL}", EXIT_MISSING
        ) from error
    av.logging.set_level(None)  # at any other level FFmpeg's threads wait for Python's lock
    return av
