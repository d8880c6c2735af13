"""Writing videos: the interpolated frame with its faces laid over it, in the source's colors."""

from __future__ import annotations

from collections import deque
from fractions import Fraction
from types import ModuleType
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np

from runtime.image import Pixels
from runtime.media.paste import Patch
from runtime.media.photo import UpscaledPhoto
from runtime.media.video_input import FORMAT, VideoFrame, planes

if TYPE_CHECKING:
    import av

CODECS = ("libx264", "mpeg4")  # the first that PyAV was built with
# The presets of x264 by the pixels of a frame: of many, speed counts for more than bytes.
PRESETS = ((1 << 20, "medium"), (4 << 20, "superfast"))
FASTEST = "ultrafast"
OWN_METADATA = ("major_brand", "minor_version", "compatible_brands", "encoder")

Result: TypeAlias = "Pixels | UpscaledPhoto"


class VideoWriter:
    """Encodes frames; the size is the first one's, and all else is as in the source."""

    def __init__(
        self,
        pyav: ModuleType,
        output: av.container.OutputContainer,
        first: VideoFrame,
        result: Result,
    ) -> None:
        self._av, self._output = pyav, output
        self._properties = first.properties
        height, width = (side - side % 2 for side in result.shape[:2])  # colors are kept by twos
        self._size = (width, height)
        self._shift = min(0, first.time)  # MP4 has no time before 0
        self._durations: deque[tuple[int, int]] = deque()
        self._matrix = self._properties.matrix_of(height)
        self._stream = self._add_stream()

    @property
    def shift_seconds(self) -> Fraction:
        """How much later everything is written than it was."""
        return -self._shift * self._properties.time_base

    def write(self, frame: VideoFrame, result: Result) -> None:
        image = self._image(frame, result)
        image.pts = frame.time - self._shift
        image.time_base = self._properties.time_base
        self._durations.append((image.pts, frame.duration))
        self._mux(self._stream.encode(image))

    def end(self) -> None:
        self._mux(self._stream.encode(None))

    def _mux(self, packets: list[av.Packet]) -> None:
        durations = dict(self._durations)
        for packet in packets:
            if packet.pts in durations:
                packet.duration = durations[packet.pts]
            self._output.mux(packet)
        done = {packet.pts for packet in packets}
        self._durations = deque(each for each in self._durations if each[0] not in done)

    def _add_stream(self) -> av.VideoStream:
        properties = self._properties
        codec = next(name for name in CODECS if name in self._av.codecs_available)
        width, height = self._size
        preset = next((name for most, name in PRESETS if width * height <= most), FASTEST)
        options = {"crf": "17", "preset": preset} if codec == "libx264" else {"qscale": "3"}
        stream = cast(
            "av.VideoStream", self._output.add_stream(codec, rate=properties.rate, options=options)
        )
        context = stream.codec_context
        stream.width, stream.height, stream.pix_fmt = width, height, FORMAT
        stream.time_base = context.time_base = properties.time_base
        context.colorspace, context.color_range = self._matrix, properties.range
        context.color_primaries, context.color_trc = properties.primaries, properties.transfer
        if properties.aspect != 1:
            context.sample_aspect_ratio = properties.aspect
        return stream

    def _image(self, frame: VideoFrame, result: Result) -> av.VideoFrame:
        width, height = self._size
        if (
            not isinstance(result, UpscaledPhoto)
            or result.boxes
            or result.shape[:2]
            != (
                height,
                width,
            )
        ):
            pixels = result.pixels if isinstance(result, UpscaledPhoto) else result
            return self._encode(pixels)
        image = frame.image.reformat(
            width=width, height=height, format=FORMAT, interpolation="BICUBIC"
        )
        if image is frame.image:  # nothing was to be done, and what was decoded is not ours
            image.make_writable()
        for patch in result.patches:
            self._lay_over(image, patch)
        return image

    def _lay_over(self, image: av.VideoFrame, patch: Patch) -> None:
        """Blend a face into the frame's planes; its part alone is converted to RGB and back."""
        width, height = self._size
        left, top = patch.left & ~1, patch.top & ~1
        right, bottom = min(width, patch.right + 1 & ~1), min(height, patch.bottom + 1 & ~1)
        part = self._av.VideoFrame(right - left, bottom - top, FORMAT)
        part.colorspace, part.color_range = image.colorspace, image.color_range
        pairs = list(zip(planes(image), planes(part), strict=True))
        places = [
            np.s_[top // step : bottom // step, left // step : right // step] for step in (1, 2, 2)
        ]
        for (whole, small), place in zip(pairs, places, strict=True):
            small[:] = whole[place]
        rgb = part.to_ndarray(format="rgb24")
        laid = rgb.copy()
        patch.moved(-left, -top).lay_over(laid, 0)
        changed = self._convert(laid)
        covered = patch.moved(-left, -top).covers(*laid.shape[:2])
        for (whole, _), new, place, step in zip(
            pairs, planes(changed), places, (1, 2, 2), strict=True
        ):
            mask = covered[::step, ::step]
            whole[place][mask] = new[mask]

    def _encode(self, pixels: Pixels) -> av.VideoFrame:
        """RGB pixels as a frame of the video's size and colors."""
        width, height = self._size
        if pixels.shape[:2] != (height, width):
            if min(pixels.shape[0] - height, pixels.shape[1] - width) in (0, 1):
                pixels = pixels[:height, :width]  # an odd row or column
            image = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            pixels = image.to_ndarray(
                width=width, height=height, format="rgb24", interpolation="BICUBIC"
            )
        return self._convert(pixels)

    def _convert(self, pixels: Pixels) -> av.VideoFrame:
        image = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        return image.reformat(
            format=FORMAT, dst_colorspace=self._matrix, dst_color_range=self._properties.range
        )
