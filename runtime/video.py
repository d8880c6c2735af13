"""Videos: each frame enlarged, into an MP4 of the same times (PyAV, `aminet-edge[video]`)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from queue import Empty, Full, Queue
from types import ModuleType
from typing import TYPE_CHECKING, cast

from runtime.errors import EXIT_MISSING, EdgeError
from runtime.files import writing
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
# Playlists and the like would have other files, or addresses, read in their place.
READING = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi",
}
TIME_BASE = Fraction(1, 90_000)
CLOCK_S = 0.2  # between looks at whether the other thread has ended

Enlarge = Callable[[Pixels], Pixels]


def largest_scale(height: int, width: int) -> int:
    """How much a frame is enlarged: 8 times, or less where that were over MAX_OUTPUT_PIXELS."""
    return max(1, min(SCALE, int((MAX_OUTPUT_PIXELS / (height * width)) ** 0.5)))


def enlarge_video(source: Path, target: Path, enlarge: Enlarge) -> int:
    """Write `target` with each frame (H, W, 3) of `source` enlarged; the number of frames.

    Decoding runs ahead in a thread of its own. Sound is left out. Raises EdgeError for what is no
    video, is damaged, or has larger or more frames than MAX_FRAME_PIXELS and MAX_FRAMES.
    """
    if not source.is_file():
        raise EdgeError(f"{source}: is not there, or no ordinary file; check the path")
    if target.suffix.lower() != ".mp4":
        raise EdgeError(f"{target}: expected a name that ends in .mp4")
    pyav = _import_av()
    count = 0
    try:
        with writing(target) as temporary, pyav.open(str(temporary), "w", format="mp4") as output:
            stream = None
            last = -1
            for seconds, frame in _ahead(_decode(pyav, source)):
                picture = pyav.VideoFrame.from_ndarray(_even(enlarge(frame)), format="rgb24")
                if stream is None:
                    stream = _add_stream(pyav, output, picture)
                last = max(last + 1, round(seconds / TIME_BASE))
                picture.pts, picture.time_base = last, TIME_BASE
                output.mux(stream.encode(picture))
                count += 1
            if stream is None:
                raise EdgeError(f"{source}: holds no frame, expected a video; get it again")
            output.mux(stream.encode(None))
    except pyav.error.FFmpegError as error:
        raise EdgeError(f"{target}: cannot be encoded ({error}); name another place") from error
    return count


def _decode(pyav: ModuleType, source: Path) -> Iterator[tuple[Fraction, Pixels]]:
    """The frames, upright as they are stored, each with its second."""
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
                yield seconds, frame.to_ndarray(format="rgb24")
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


def _ahead(
    frames: Iterator[tuple[Fraction, Pixels]],
) -> Iterator[tuple[Fraction, Pixels]]:
    """The same, decoded by another thread up to AHEAD of them early."""
    queue: Queue[tuple[Fraction, Pixels] | BaseException | None] = Queue(AHEAD)
    stop = threading.Event()

    def put(item: tuple[Fraction, Pixels] | BaseException | None) -> None:
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
