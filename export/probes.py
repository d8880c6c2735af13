"""The probes of a model: pictures of nobody, with what the FP32 model in torch makes of them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from runtime.drift import PROBE_FACES, Probes
from runtime.errors import EdgeError
from runtime.image import LR_SIDE, Pixels, Tensor, read_image, to_pixels, to_tensor

STRIP = Path(__file__).with_name("probe_faces.png")  # 12 faces side by side, of calib_data.generate
STRIP_SHAPE = (LR_SIDE, PROBE_FACES * LR_SIDE, 3)

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


def probe_pictures(strip: Path = STRIP) -> tuple[Pixels, tuple[str, ...]]:
    """The faces, then the extremes, (N, 16, 16, 3), and their N names."""
    pixels = read_image(strip)
    if pixels.shape != STRIP_SHAPE:
        raise EdgeError(
            f"{strip}: is {pixels.shape}, expected {STRIP_SHAPE}; draw it again:"
            " python -m calib_data.generate probes"
        )
    faces = np.split(pixels, PROBE_FACES, axis=1)
    flat = [np.full((LR_SIDE, LR_SIDE, 3), color, np.uint8) for color in COLORS.values()]
    names = [f"face-{number:02}" for number in range(PROBE_FACES)]
    return np.stack([*faces, *flat, _checkerboard()]), (*names, *COLORS, "checkerboard")


def enlarge(network: nn.Module, lr: Tensor) -> Tensor:
    """What torch makes of lr (N, 3, 16, 16): (N, 3, 128, 128), one by one, as faces come in use."""
    with torch.inference_mode():
        return np.concatenate([network(face).numpy() for face in torch.from_numpy(lr).split(1)])


def make_probes(network: nn.Module) -> tuple[Probes, Tensor]:
    """The probes of a network in eval mode, and its outputs before they were rounded to pixels."""
    lr, names = probe_pictures()
    sr = enlarge(network, to_tensor(lr))
    return Probes(lr, to_pixels(sr), names), sr


def _checkerboard() -> Pixels:
    """Black and white, one pixel a field."""
    row, column = np.indices((LR_SIDE, LR_SIDE))
    return np.repeat(((row + column) % 2 * 255).astype(np.uint8)[..., None], 3, axis=2)
