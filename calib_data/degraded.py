"""Synthetic faces as cameras see them, 64x64, for models that read degraded faces (aminet-real).

A 16x16 synthetic face has no detail to degrade. aminet-edge upscales it to 128x128 first; then
aminet.training.degradation shrinks it to a frame of 10 to 64 px with blur, noise, JPEG and dim
light, and resamples that to 64x64. The same seed gives the same faces up to a gray level here and
there, by which processors round aminet-edge's output differently. Its weights are those of
upscaler.safetensors whatever it learns later: the noise is drawn by the light of each pixel, so
other weights would make other faces, and aminet-real's calibration and probes others.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from aminet.checkpoint import load_model
from aminet.training.degradation import CAMERA, CLEAN, DARK, WILD
from runtime.image import Pixels, to_pixels, to_tensor

UPSCALER = Path(__file__).with_name("upscaler.safetensors")
SIDE = 64
BATCH = 8  # faces upscaled at a time
KINDS = (CLEAN, CAMERA, WILD, DARK, WILD)  # in turn; five, for every fourth face is held out


def degrade_faces(lr: Pixels, seed: int) -> Pixels:
    """Upscale synthetic faces (N, 16, 16, 3) and degrade them to (N, 64, 64, 3), kind by kind."""
    rng = np.random.default_rng(seed)
    hr = [face for batch in _upscale(lr) for face in batch]
    degraded = [KINDS[i % len(KINDS)].pair(face, SIDE, rng)[0] for i, face in enumerate(hr)]
    return np.stack(degraded)


def _upscale(lr: Pixels) -> Iterator[Pixels]:
    network, _ = load_model("aminet-edge", UPSCALER)
    with torch.inference_mode():
        for batch in torch.from_numpy(to_tensor(lr)).split(BATCH):
            yield to_pixels(network(batch).numpy())
