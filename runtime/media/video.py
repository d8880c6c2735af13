"""Videos: each frame upscaled, into an MP4 of the same look, times and sound (PyAV: [video])."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Full, Queue
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from runtime.atomic import writing
from runtime.errors import EXIT_MISSING, EdgeError
from runtime.image import Pixels
from runtime.media.sound import Sound
from runtime.media.video_input import READING, VideoReader
from runtime.media.video_output import OWN_METADATA, Result, VideoWriter

if TYPE_CHECKING:
    import av

INSTALL = "pip install 'aminet-edge[video]'"
AHEAD = 4  # frames decoded before it is their turn, and as many that wait to be encoded
CLOCK_S = 0.2  # between looks at whether the other thread has ended

Upscale = Callable[[Pixels], Result]
Watch = Callable[[int, "int | None"], None]  # frames done, and how many there are if known
T = TypeVar("T")


@dataclass(frozen=True)
class UpscaledVideo:
    """What was written; `sound` is "none" or what became of it, `shortfall` what was missing."""

    frames: int
    sound: str
    shortfall: str | None
    left_out: str | None


def upscale_video(
    source: Path,
    target: Path,
    upscale: Upscale,
    watch: Watch = lambda done, total: None,
    origin: str = "",
) -> UpscaledVideo:
    """Write `target` with each frame (H, W, 3) of `source` upscaled, and its sound.

    Frames are decoded, upscaled and encoded in three threads; `watch(done, total)` is called after
    each. What a damaged file holds is written, and its `shortfall` is told. Raises EdgeError for
    what is no video, or has larger or more frames than MAX_FRAME_PIXELS and MAX_FRAMES.
    """
    if not source.is_file():
        raise EdgeError(f"{source}: not found, or not an ordinary file. Check the path")
    if target.suffix.lower() != ".mp4":
        raise EdgeError(f"{target}: expected a name that ends in .mp4")
    pyav = _import_av()
    with ExitStack() as stack:
        container = _open(pyav, stack, source)
        reader = VideoReader(pyav, source, container)
        sound = Sound(pyav, _open(pyav, stack, source))
        temporary = stack.enter_context(writing(target))
        try:
            output = stack.enter_context(pyav.open(str(temporary), "w", format="mp4"))
            _copy_metadata(container, output, origin)
            writer = None
            upscaled = ((frame, upscale(frame.pixels)) for frame in _ahead(reader))
            for done, (frame, result) in enumerate(_ahead(upscaled), 1):
                if writer is None:
                    writer = VideoWriter(pyav, output, frame, result)
                    sound.add_to(output, writer.shift_seconds)
                sound.write_until(float(frame.seconds))
                writer.write(frame, result)
                watch(done, frame.total)
            if writer is None:
                raise EdgeError(
                    f"{source}: is no video, or damaged: it holds no frame; get it again"
                )
            writer.end()
            sound.write_until(None)
            made = _account(reader, sound, container)  # closing frees what these read
        except pyav.error.FFmpegError as error:
            raise EdgeError(f"{target}: cannot be encoded ({error}); name another place") from error
    return made


def _open(pyav: ModuleType, stack: ExitStack, source: Path) -> av.container.InputContainer:
    try:
        container: av.container.InputContainer = stack.enter_context(
            pyav.open(str(source), options=READING, metadata_errors="replace")
        )
    except Exception as error:  # FFmpeg's, and what the damage made PyAV trip over
        raise EdgeError(f"{source}: is no video, or damaged ({error}); get it again") from error
    return container


def _copy_metadata(
    container: av.container.InputContainer, output: av.container.OutputContainer, origin: str
) -> None:
    """Keep what the source says of itself, and say what the result was made of."""
    kept = {key: text for key, text in container.metadata.items() if key not in OWN_METADATA}
    if origin:
        kept["comment"] = "; ".join(filter(None, (kept.get("comment"), origin)))
    output.metadata.update(kept)


def _account(
    reader: VideoReader, sound: Sound, container: av.container.InputContainer
) -> UpscaledVideo:
    problems = [reader.shortfall, None if sound.is_whole else f"its sound is {sound.fate}"]
    shortfall = "; ".join(problem for problem in problems if problem) or None
    return UpscaledVideo(reader.frames, sound.fate, shortfall, _left_out(container))


def _left_out(container: av.container.InputContainer) -> str | None:
    """The tracks that are not in the result: subtitles, and further videos."""
    subtitles, videos = len(container.streams.subtitles), len(container.streams.video) - 1
    counted = [(subtitles, "subtitle track"), (videos, "further video track")]
    parts = [f"{number} {what}{'s' * (number > 1)}" for number, what in counted if number > 0]
    return f"left out: {', '.join(parts)}" if parts else None


def _ahead(items: Iterable[T]) -> Iterator[T]:
    """The same, made by another thread up to AHEAD of them early."""
    queue: Queue[T | BaseException | _End] = Queue(AHEAD)
    stop = threading.Event()

    def put(item: T | BaseException | _End) -> None:
        while not stop.is_set():
            try:
                return queue.put(item, timeout=CLOCK_S)
            except Full:
                continue

    def make() -> None:
        source = iter(items)
        try:
            for item in source:
                put(item)
                if stop.is_set():
                    break
            put(_End())
        except BaseException as error:  # handed on to the thread that waits for items
            put(error)
        finally:
            if hasattr(source, "close"):
                source.close()

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        while True:
            try:
                item = queue.get(timeout=CLOCK_S)
            except Empty:
                continue
            if isinstance(item, _End):
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()


class _End:
    """After the last item."""


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
