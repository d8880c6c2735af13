"""A training that takes a second: a tiny network, and pictures of disks in the place of faces."""

from pathlib import Path

import numpy as np
from PIL import Image

from aminet.config import ModelConfig
from aminet.training.options import Augmentation, TrainOptions

TINY = ModelConfig(
    channels=(16, 16), heads=(1, 2), refine_convs=(1, 1), hourglass=(1, 0), side=16, norm="batch"
)


def write_disks(folder: Path, count: int = 16) -> Path:
    """128x128 pictures of disks: a network can learn what bicubic cannot know."""
    rows, columns = np.mgrid[:128, :128]
    for index in range(count):
        generator = np.random.default_rng(index)
        y, x, radius = generator.uniform([40, 40, 20], [88, 88, 40])
        disk = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
        light, dark = generator.integers([[176], [0]], [[256], [80]], (2, 3))
        pixels = np.where(disk[..., None], light, dark).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def tiny_options(faces: Path, out: Path) -> TrainOptions:
    """Six steps on the CPU."""
    return TrainOptions(
        data=(str(faces),),
        val=(str(faces),),
        out=out,
        steps=6,
        batch=4,
        warmup=2,
        augmentation=Augmentation(share=0.0),
        device="cpu",
    )
