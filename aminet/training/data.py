"""Training batches: all faces as uint8 in the device's memory, augmented and shrunk there."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from aminet.config import LR_SIDE, SR_SIDE
from aminet.training.options import Augmentation
from runtime.dataset import load_faces


def load(sources: Sequence[str | Path], device: torch.device | str = "cpu") -> Tensor:
    """All faces of tars and folders, uint8 (N, 3, 128, 128) on the device."""
    faces = torch.from_numpy(load_faces(sources))
    return faces.permute(0, 3, 1, 2).contiguous().to(device)


def shrink(hr: Tensor) -> Tensor:
    """hr uint8 (N, 3, 128, 128) -> lr uint8 (N, 3, 16, 16), by antialiased bicubic interpolation.

    It makes what Pillow's resize makes of the test sets' faces (a test counts the exceptions).
    """
    return resize(hr, LR_SIDE)


def resize(pixels: Tensor, side: int) -> Tensor:
    """uint8 (N, 3, H, W) -> uint8 (N, 3, side, side); antialiased bicubic, as Pillow's."""
    if (
        pixels.device.type == "cpu"
    ):  # torch's uint8 kernel, a hundred times faster than its float one
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        return F.interpolate(pixels, (side, side), mode="bicubic", antialias=True)
    resized = F.interpolate(pixels.float(), (side, side), mode="bicubic", antialias=True)
    return resized.round().clamp(0, 255).to(torch.uint8)


def batches(count: int, batch: int, *, seed: int, first_step: int = 0) -> Iterator[Tensor]:
    """Endless batches of indices; each epoch is a permutation of its own.

    A function of the seed and the step alone, so a resumed run sees what it would have seen.
    """
    per_epoch = max(count // batch, 1)
    step = first_step
    while True:
        epoch, start = divmod(step, per_epoch)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(count, generator=generator)
        for position in range(start, per_epoch):
            yield order[position * batch : (position + 1) * batch]
            step += 1


def shrunk_batches(
    faces: Tensor, batch: int, augmentation: Augmentation, *, seed: int, first_step: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless lr (N, 3, 16, 16) and hr (N, 3, 128, 128), a function of the seed and the step."""
    indices = batches(len(faces), batch, seed=seed, first_step=first_step)
    for step, chosen in enumerate(indices, first_step):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        yield make_pair(faces, chosen, augmentation, generator)


def make_pair(
    faces: Tensor, indices: Tensor, augmentation: Augmentation, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """lr (N, 3, 16, 16) and hr (N, 3, 128, 128), float32 in [0, 1], of the faces at the indices."""
    hr = faces[indices.to(faces.device)]
    if augmentation.flip:
        flipped = _draw(len(hr), 0.5, generator).to(hr.device)
        hr[flipped] = hr[flipped].flip(-1)
    moved = _draw(len(hr), augmentation.share, generator).to(hr.device)
    if moved.any():
        hr[moved] = reframe(hr[moved], augmentation, generator)
    if augmentation.exposure or augmentation.colour:
        hr = relight(hr, augmentation, generator)
    return shrink(hr).float() / 255, hr.float() / 255


def _draw(count: int, share: float, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator) < share


def reframe(hr: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Zoom (log-uniform) and shift uint8 (N, 3, 128, 128), all faces of the call alike.

    What lies beyond the image repeats its edge.
    """
    zoom, down, right = (torch.rand(3, generator=generator) * 2 - 1).tolist()
    side = round(SR_SIDE / augmentation.zoom**zoom)
    margin = math.ceil(SR_SIDE * (augmentation.zoom - 1) + augmentation.shift)
    padded = F.pad(hr, (margin,) * 4, mode="replicate")
    corner = margin + (SR_SIDE - side) / 2
    top, left = (round(corner + augmentation.shift * offset) for offset in (down, right))
    return resize(padded[:, :, top : top + side, left : left + side], SR_SIDE)


def contrast_half(images: Tensor, contrast: float) -> Tensor:
    """Every other image of (N, 3, H, W) in [0, 1]: its upper half, the next one's lower half, with
    more contrast around their mean colour, as quantize.int8 calibrates.

    For activations that few faces reach, and a teacher that says what becomes of any image.
    """
    odd, rows = images[1::2], images.shape[2] // 2
    below = images.roll(-1, 0)[1::2]
    joined = torch.cat([odd[:, :, :rows], below[:, :, rows:]], 2)
    mean = joined.mean((2, 3), keepdim=True)
    changed = images.clone()
    changed[1::2] = (mean + contrast * (joined - mean)).clamp(0, 1)
    return changed


def relight(hr: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Change exposure and the balance of colours of uint8 (N, 3, H, W), each face by its own."""
    stops = (torch.rand(len(hr), 1, 1, 1, generator=generator) * 2 - 1) * augmentation.exposure
    gains = 1 + (torch.rand(len(hr), 3, 1, 1, generator=generator) * 2 - 1) * augmentation.colour
    lit = hr.float() * (gains * 2.0**stops).to(hr.device)
    return lit.round().clamp(0, 255).to(torch.uint8)
