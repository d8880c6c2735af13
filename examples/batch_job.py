"""Upscale all faces of a folder in batches: python examples/batch_job.py faces/ upscaled/"""

import sys
from pathlib import Path

import numpy as np

from runtime.dataset import list_images
from runtime.image import read_image, to_pixels, to_tensor, write_image
from runtime.session import open_session

BATCH = 8

source, out = map(Path, sys.argv[1:3])
paths = list_images(source)
with open_session() as session:
    for start in range(0, len(paths), BATCH):
        batch = paths[start : start + BATCH]
        lr = np.stack([read_image(path) for path in batch])  # (N, 16, 16, 3) uint8
        for path, sr in zip(batch, to_pixels(session.run(to_tensor(lr))), strict=True):
            write_image(out / f"{path.stem}_sr.png", sr)
