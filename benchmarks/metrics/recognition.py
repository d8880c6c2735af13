"""Face recognition after super-resolution (the paper's Table VIII) on any faces.

Low-quality faces (the probes) are upscaled and compared with good photos (the gallery). An image's
person is the folder that it lies in, else its name without suffix.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.metrics.identity import Embeddings, FaceEmbedding, cosine
from benchmarks.metrics.ssim_vif import interval
from benchmarks.metrics.upscalers import Upscaler
from runtime.dataset import list_images
from runtime.errors import EdgeError
from runtime.image import SR_SIDE, Pixels, fit_face, read_image


@dataclass(frozen=True)
class RecognitionRow:
    """One upscaler: `cosine` similarity to the nearest photo of the same person, and `rank_1`, how
    often the nearest photo of all is of that person."""

    artifact: str
    backend: str
    probes: int
    photos: int
    people: int
    cosine: float
    cosine_interval: tuple[float, float]
    rank_1: float
    rank_1_interval: tuple[float, float]


@dataclass(frozen=True)
class People:
    """Images (N, H, W, 3), and the name of each one's person."""

    names: tuple[str, ...]
    pixels: Pixels


def read_people(folder: Path, *, probes: bool) -> People:
    """Read the faces of a folder: probes as 16x16 inputs, photos as 128x128."""
    if not folder.is_dir():
        raise EdgeError(f"{folder}: not a folder, expected one with images of faces")
    paths = list_images(folder)
    if not paths:
        raise EdgeError(f"{folder}: holds no image, expected aligned faces")
    names = [path.relative_to(folder).parts[0] for path in paths]
    people = [Path(name).stem if len(Path(name).suffix) > 1 else name for name in names]
    pixels = [read_image(path) for path in paths]
    if probes:
        faces = [fit_face(p, str(path), reduce=True) for p, path in zip(pixels, paths, strict=True)]
    else:
        faces = [_photo(p, path) for p, path in zip(pixels, paths, strict=True)]
    return People(tuple(people), np.stack(faces))


def recognize(
    upscaler: Upscaler, probes: People, photos: People, embed: FaceEmbedding
) -> RecognitionRow:
    """Upscale the probes and look for each among the photos."""
    return evaluate(
        upscaler,
        probes.names,
        embed(upscaler.upscale_all(probes.pixels)),
        photos.names,
        embed(photos.pixels),
    )


def evaluate(
    upscaler: Upscaler,
    probes: Sequence[str],
    probe_embeddings: Embeddings,
    photos: Sequence[str],
    photo_embeddings: Embeddings,
) -> RecognitionRow:
    """Compare the embeddings of probes (N, 128) and photos (M, 128) by their people's names."""
    if unknown := sorted(set(probes) - set(photos)):
        raise EdgeError(
            f"{unknown[0]}: no photo in the gallery has this probe's name; name the folder or image"
            " of a person alike in both"
        )
    similar = np.stack(
        [
            cosine(np.broadcast_to(p, photo_embeddings.shape), photo_embeddings)
            for p in probe_embeddings
        ]
    )
    same = np.array(probes)[:, None] == np.array(photos)[None]
    nearest_same = np.where(same, similar, -np.inf).max(1)
    found = (nearest_same >= similar.max(1)).astype(float)
    return RecognitionRow(
        artifact=upscaler.artifact,
        backend=upscaler.backend,
        probes=len(probes),
        photos=len(photos),
        people=len(set(photos)),
        cosine=float(nearest_same.mean()),
        cosine_interval=interval(nearest_same),
        rank_1=float(found.mean()),
        rank_1_interval=interval(found),
    )


def _photo(pixels: Pixels, path: Path) -> Pixels:
    if pixels.shape[:2] != (SR_SIDE, SR_SIDE):
        raise EdgeError(
            f"{path}: is {pixels.shape[1]}x{pixels.shape[0]}, expected an aligned face of"
            f" {SR_SIDE}x{SR_SIDE}. Create it with: python -m runtime.align"
        )
    return pixels
