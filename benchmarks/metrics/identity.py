"""Identity preservation: dlib's face embedding, from face-api's copy (CC0).

An embedding has 128 numbers; two of one person are closer than 0.6 (L2). The faces must be framed
as the training faces are: 128x128, the eyes near (46, 46.5) and (81, 46.5).
"""

from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from aminet.pretrained import Pretrained, as_oihw, read_pretrained, unpack_tfjs
from runtime.image import Pixels

WEIGHTS = Pretrained(
    "face_recognition_model.bin", "b413e420d6840b2775fba32008db6f3cddb07d485967fb42cfcf379c16a8c589"
)
MANIFEST = Pretrained(
    "face_recognition_model-weights_manifest.json",
    "cbaffa501b0b9275a12b63357a6843e7e30c054e1c9151e1a5f879b26e32986b",
)
CHIP_SIDE = 150  # px, of the aligned face that the network was trained on
# The box of a 128x128 face that the chip shows (left, top, right, bottom): dlib's mean face has its
# eyes at (47.5, 46.6) and (100.5, 46.6) of the chip.
CHIP = (14.55, 15.7, 113.73, 114.88)
MEAN = (122.782, 117.001, 104.298)  # RGB
BLOCKS = (
    "conv32_1",
    "conv32_2",
    "conv32_3",
    "conv64_down",
    "conv64_1",
    "conv64_2",
    "conv64_3",
    "conv128_down",
    "conv128_1",
    "conv128_2",
    "conv256_down",
    "conv256_1",
    "conv256_2",
    "conv256_down_out",
)
BATCH = 16

Embeddings = NDArray[np.float64]


class FaceEmbedding:
    """dlib's ResNet (King 2017): faces (N, 128, 128, 3) -> embeddings (N, 128)."""

    def __init__(self, weights: dict[str, NDArray[np.float32]]) -> None:
        self.weights = {
            name: as_oihw(values) if values.ndim == 4 else torch.from_numpy(values.copy())
            for name, values in weights.items()
        }

    @classmethod
    def load(cls) -> Self:
        """Load it from the cache folder; EdgeError (status 5) if it was not fetched."""
        return cls(unpack_tfjs(read_pretrained(MANIFEST), read_pretrained(WEIGHTS)))

    def __call__(self, faces: Pixels) -> Embeddings:
        return self.embed(np.stack([chip(face) for face in faces]))

    @torch.inference_mode()
    def embed(self, chips: Pixels) -> Embeddings:
        """Chips (N, 150, 150, 3) -> (N, 128)."""
        parts = []
        for start in range(0, len(chips), BATCH):
            pixels = torch.from_numpy(chips[start : start + BATCH].astype(np.float32))
            x = ((pixels - torch.tensor(MEAN)) / 255).permute(0, 3, 1, 2)
            parts.append(self._forward(x))
        return torch.cat(parts).double().numpy()

    def _forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self._conv(x, "conv32_down", stride=2).relu(), 3, 2)
        for block in BLOCKS:
            x = self._residual(x, block, down="down" in block)
        return x.mean((2, 3)) @ self.weights["fc"]

    def _residual(self, x: Tensor, block: str, *, down: bool) -> Tensor:
        """Two convolutions; a `down` block halves the side and pads sides and channels with 0."""
        stride, padding = (2, 0) if down else (1, 1)
        out = self._conv(x, f"{block}/conv1", stride=stride, padding=padding).relu()
        out = self._conv(out, f"{block}/conv2", padding=1)
        if down:
            x = F.avg_pool2d(x, 2)
            side, channels = max(x.shape[2], out.shape[2]), max(x.shape[1], out.shape[1])
            x, out = _pad(x, side, channels), _pad(out, side, channels)
        return (x + out).relu()

    def _conv(self, x: Tensor, name: str, *, stride: int = 1, padding: int = 0) -> Tensor:
        weights = self.weights
        x = F.conv2d(
            x, weights[f"{name}/conv/filters"], weights[f"{name}/conv/bias"], stride, padding
        )
        scale, bias = weights[f"{name}/scale/weights"], weights[f"{name}/scale/biases"]
        return x * scale.view(-1, 1, 1) + bias.view(-1, 1, 1)


def chip(face: Pixels) -> Pixels:
    """Crop the part of an aligned face that the network expects: (128, 128, 3) -> (150, 150, 3)."""
    size, box = (CHIP_SIDE, CHIP_SIDE), CHIP
    return np.array(Image.fromarray(face).resize(size, Image.Resampling.BICUBIC, box=box))


def cosine(a: Embeddings, b: Embeddings) -> NDArray[np.float64]:
    """Return the cosine similarity of each pair of rows."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.einsum("nd,nd->n", a, b) / lengths


def _pad(x: Tensor, side: int, channels: int) -> Tensor:
    missing = side - x.shape[2]
    return F.pad(x, (0, missing, 0, missing, 0, channels - x.shape[1]))
