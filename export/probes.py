"""The probes of a model: synthetic faces and stress images, with the FP32 model's outputs."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from aminet.model import AMINet
from runtime.drift import PROBE_FACES, Probes
from runtime.errors import EdgeError
from runtime.image import Pixels, Tensor, read_image, to_pixels, to_tensor

# PROBE_FACES synthetic faces side by side, from calib_data.generate, for each input side in px.
STRIPS = {
    side: Path(__file__).with_name(name)
    for side, name in ((16, "probe_faces.png"), (64, "probe_faces_64.png"))
}

# Where activations are largest: flat, saturated, and the highest frequency.
COLORS: Mapping[str, tuple[int, int, int]] = {
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "cyan": (0, 255, 255),
    "magenta": (255, 0, 255),
    "yellow": (255, 255, 0),
}


def probe_images(side: int = 16, strip: Path | None = None) -> tuple[Pixels, tuple[str, ...]]:
    """Return the faces, then the stress images, uint8 (N, side, side, 3), and their N names."""
    if strip is None and side not in STRIPS:
        sides = " or ".join(map(str, STRIPS))
        raise EdgeError(f"no probe faces of {side}x{side} px, expected {sides}")
    strip = strip or STRIPS[side]
    pixels = read_image(strip)
    if pixels.shape != (side, PROBE_FACES * side, 3):
        raise EdgeError(
            f"{strip}: is {pixels.shape}, expected {(side, PROBE_FACES * side, 3)}; generate it"
            " again: python -m calib_data.generate probes"
        )
    faces = np.split(pixels, PROBE_FACES, axis=1)
    flat = [np.full((side, side, 3), color, np.uint8) for color in COLORS.values()]
    names = [f"face-{number:02}" for number in range(PROBE_FACES)]
    return np.stack([*faces, *flat, _checkerboard(side)]), (*names, *COLORS, "checkerboard")


def upscale(network: AMINet, lr: Tensor) -> Tensor:
    """Run lr (N, 3, S, S) through PyTorch one by one, as in use, to sr (N, 3, 128, 128)."""
    with torch.inference_mode():
        return np.concatenate([network(face).numpy() for face in torch.from_numpy(lr).split(1)])


def make_probes(network: AMINet) -> tuple[Probes, Tensor]:
    """Make the probes of a network in eval mode; return its outputs before rounding, too."""
    lr, names = probe_images(network.config.lr_side)
    sr = upscale(network, to_tensor(lr))
    return Probes(lr, to_pixels(sr), names), sr


def _checkerboard(side: int) -> Pixels:
    """Black and white, one pixel a field."""
    row, column = np.indices((side, side))
    return np.repeat(((row + column) % 2 * 255).astype(np.uint8)[..., None], 3, axis=2)
