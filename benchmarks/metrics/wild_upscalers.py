"""What upscales frames of any size to 128x128 faces, each behind one interface."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aminet.training.degradation import resample
from benchmarks.metrics import upscalers
from runtime.image import LR_SIDE, SR_SIDE, Pixels
from runtime.media.photo import keep_what_is_known, trust

BATCH = 16
BACK_PROJECTED = " + back-projection"  # after the name of what photo mode makes of a network

Run = Callable[[Pixels], Pixels]  # (N, lr_side, lr_side, 3) -> (N, 128, 128, 3)


@dataclass(frozen=True)
class FrameUpscaler:
    """Upscales frames (S, S, 3) of one size; the name and backend that its rows go by."""

    name: str
    backend: str
    upscale: Callable[[Sequence[Pixels]], Pixels]

    def upscale_all(self, frames: Sequence[Pixels]) -> Pixels:
        """Any number of frames -> (N, 128, 128, 3), a batch at a time."""
        starts = range(0, len(frames), BATCH)
        return np.concatenate([self.upscale(frames[start : start + BATCH]) for start in starts])


@contextmanager
def bicubic_frames() -> Iterator[FrameUpscaler]:
    """Pillow's bicubic filter, the baseline."""
    yield FrameUpscaler("bicubic", "pillow", lambda frames: _resampled(frames, SR_SIDE))


@contextmanager
def checkpoint_frames(path: str | Path, *, back_projected: bool = False) -> Iterator[FrameUpscaler]:
    """A checkpoint in PyTorch, FP32."""
    with upscalers.checkpoint_upscaler(path) as upscaler:
        yield for_frames(upscaler, back_projected=back_projected)


@contextmanager
def artifact_frames(path: str | Path, backend: str = "auto") -> Iterator[FrameUpscaler]:
    """An exported model, in a backend or the one that the runtime chooses."""
    with upscalers.artifact_upscaler(path, backend) as upscaler:
        yield for_frames(upscaler)


def for_frames(upscaler: upscalers.Upscaler, *, back_projected: bool = False) -> FrameUpscaler:
    """Resample frames to the network's input; back-project the faces of a 16-px network to them.

    That is what photo mode does with 16-px networks: what a frame knows beyond 16 px is kept. With
    larger ones it does so as far as it trusts the frame, which is measured if asked for.
    """
    name, lr_side = upscaler.artifact, upscaler.lr_side
    known = back_projected or lr_side == LR_SIDE

    def upscale(frames: Sequence[Pixels]) -> Pixels:
        sr = upscaler.upscale(_resampled(frames, lr_side))
        if not known:
            return sr
        pairs = zip(sr, frames, strict=True)
        return np.stack([keep_what_is_known(a, b, trust(a, b, lr_side)) for a, b in pairs])

    if known:
        name += f"{' at 16 px' if lr_side == LR_SIDE else ''}{BACK_PROJECTED}"
    return FrameUpscaler(name, upscaler.backend, upscale)


@contextmanager
def realesrgan_frames() -> Iterator[FrameUpscaler]:
    """Real-ESRGAN x4plus (Wang et al. 2021) in ncnn: a frame upscaled by 4, resampled to 128."""
    from benchmarks.metrics.realesrgan import RealESRGAN

    network = RealESRGAN.load()
    yield FrameUpscaler(
        "Real-ESRGAN x4plus",
        "ncnn",
        lambda frames: _resampled([network(frame) for frame in frames], SR_SIDE),
    )


def _resampled(frames: Sequence[Pixels], side: int) -> Pixels:
    return np.stack([resample(frame, side) for frame in frames])
