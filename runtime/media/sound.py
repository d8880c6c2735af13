"""The sound of a video: copied as it is where MP4 takes it, transcoded to AAC elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from types import ModuleType
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import av

# What players of MP4 know; FFmpeg would put more in it.
COPIED = ("aac", "mp3", "ac3", "eac3", "opus", "alac", "flac")
TRANSCODED = "aac"
RATES = (48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8000)
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}  # of other numbers of channels two are made
NONE = "none"


class Sound:
    """All sound tracks of a file; `fate` says what became of them."""

    def __init__(self, pyav: ModuleType, container: av.container.InputContainer) -> None:
        self._av, self._container = pyav, container
        self._shift = Fraction(0)
        self._tracks: list[_Track] = []
        self._packets: Iterator[av.Packet] = iter(())
        self._waiting: av.Packet | None = None
        self._lost: list[str] = []

    @property
    def fate(self) -> str:
        """None, copied, transcoded from what to what, or left out and why; of each track."""
        ways = [*(track.fate for track in self._tracks), *self._lost]
        return ", ".join(dict.fromkeys(ways)) or NONE

    @property
    def is_whole(self) -> bool:
        return not self._lost

    def add_to(self, output: av.container.OutputContainer, shift: Fraction) -> None:
        """Add a track to the output for each, `shift` seconds later; before anything is written."""
        self._shift = shift
        for track in self._container.streams.audio:
            codec = _codec_of(track)
            if codec is None:
                self._lost.append("left out: its codec is unknown")
                continue
            try:
                if codec in COPIED and codec in output.supported_codecs:
                    self._tracks.append(_Copied(track, output))
                else:
                    self._tracks.append(_Transcoded(track, output, codec))
            except (self._av.error.FFmpegError, ValueError) as error:
                self._lost.append(f"left out: {codec} cannot be converted ({error})")
        if self._tracks:
            self._packets = self._demux()

    def write_until(self, seconds: float | None) -> None:
        """Write what is heard up to then; all that is left without a time."""
        while packet := self._waiting or next(self._packets, None):
            self._waiting = packet
            if seconds is not None and (packet.dts or 0) * packet.time_base > seconds:
                return
            self._waiting = None
            later = round(self._shift / packet.time_base)
            packet.dts = (packet.dts or 0) + later
            packet.pts = None if packet.pts is None else packet.pts + later
            track = next(each for each in self._tracks if each.track == packet.stream)
            self._guard(track.write, packet)
        if seconds is None:
            for track in self._tracks:
                self._guard(track.end)

    def _guard(self, write: Callable[..., None], *arguments: av.Packet) -> None:
        """Write; what is damaged is left out, and told."""
        try:
            write(*arguments)
        except (self._av.error.FFmpegError, ValueError) as error:
            self._lost = self._lost or [f"in part damaged ({error})"]

    def _demux(self) -> Iterator[av.Packet]:
        """The packets that have a time."""
        try:
            for packet in self._container.demux([each.track for each in self._tracks]):
                if packet.size and packet.dts is not None:
                    yield packet
        except self._av.error.FFmpegError as error:
            self._lost = self._lost or [f"cut off ({error})"]


class _Copied:
    """A track whose packets are written as they are."""

    fate = "copied"

    def __init__(self, track: av.AudioStream, output: av.container.OutputContainer) -> None:
        self.track, self._output = track, output
        self._copy = output.add_stream_from_template(track)
        self._copy.metadata.update(_described(track))

    def write(self, packet: av.Packet) -> None:
        packet.stream = self._copy
        self._output.mux(packet)

    def end(self) -> None:
        """Nothing is kept back."""


class _Transcoded:
    """A track that is decoded, and encoded as AAC."""

    def __init__(
        self, track: av.AudioStream, output: av.container.OutputContainer, codec: str
    ) -> None:
        self.track, self._output = track, output
        self.fate = f"transcoded from {codec} to {TRANSCODED}"
        rate = track.rate if track.rate in RATES else RATES[0]
        layout = LAYOUTS.get(track.layout.nb_channels, "stereo")
        self._encoder = cast(
            "av.AudioStream", output.add_stream(TRANSCODED, rate=rate, layout=layout)
        )
        self._encoder.metadata.update(_described(track))

    def write(self, packet: av.Packet) -> None:
        for frame in cast("list[av.AudioFrame]", packet.decode()):
            self._output.mux(self._encoder.encode(frame))

    def end(self) -> None:
        for frame in self.track.codec_context.decode(None):
            self._output.mux(self._encoder.encode(frame))
        self._output.mux(self._encoder.encode(None))


_Track = _Copied | _Transcoded


def _codec_of(track: av.AudioStream) -> str | None:
    """Its name, not that of the decoder that FFmpeg prefers (mp3, not mp3float)."""
    return track.codec_context.codec.canonical_name if track.codec_context else None


def _described(track: av.AudioStream) -> dict[str, str]:
    return {key: text for key, text in track.metadata.items() if key in ("language", "title")}
