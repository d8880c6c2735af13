"""Calibration sets: the images that calibrate, and the held-out ones that evaluate."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from runtime.atomic import sha256_bytes
from runtime.dataset import Face, iter_faces, list_images
from runtime.errors import EdgeError
from runtime.image import LR_SIDE, Pixels, fit_face
from runtime.network import Network

MOST_FACES = 1024  # more add nothing; a limit for memory
LEAST_FACES = 16
HELD_OUT = 4  # every fourth face evaluates and does not calibrate
MOST_BROKEN = 0.1
LEAST_DEVIATION = 4.0  # of 255 levels, within the images and between them
SIZED = re.compile(r"\d+px")  # a folder with the set for models that read faces of this side


@dataclass(frozen=True)
class CalibrationSet:
    """Faces (N, S, S, 3) that calibrate, held-out ones that evaluate, and what was skipped."""

    faces: Pixels
    held_out: Pixels
    sha256: str
    skipped: tuple[str, ...] = ()

    @property
    def all(self) -> Pixels:
        return np.concatenate([self.faces, self.held_out])


def read_calibration(
    sources: Sequence[str | Path], reader: int | Network = LR_SIDE
) -> CalibrationSet:
    """Read images from folders, tars, files and globs, the first MOST_FACES.

    `reader`: the side of the faces that a model reads, or another network, of whose size any images
    are made. Of a folder with sets for several sides, such as 64px/, the one that fits is taken. An
    image that cannot be used is skipped and named. EdgeError for more than MOST_BROKEN of them, and
    for a set that is too small or shows nothing.
    """
    faces: list[Pixels] = []
    skipped: list[str] = []
    found = _iter_faces(sources, reader if isinstance(reader, int) else reader.width, skipped)
    for face in found:
        try:
            faces.append(_fit(face, reader))
        except EdgeError as error:
            skipped.append(str(error))
        if len(faces) == MOST_FACES:
            break
    listed = ", ".join(map(str, sources))
    read = len(faces) + len(skipped)
    if len(skipped) > MOST_BROKEN * read:
        raise EdgeError(
            f"{listed}: {len(skipped)} of {read} images cannot be used, such as {skipped[0]}"
        )
    if len(faces) < LEAST_FACES:
        raise EdgeError(f"{listed}: holds {len(faces)} images, expected at least {LEAST_FACES}")
    pixels = np.stack(faces)
    if min(pixels.std(axis=0).mean(), pixels.std(axis=(1, 2)).mean()) < LEAST_DEVIATION:
        raise EdgeError(f"{listed}: shows the same or nothing in all images")
    held_out = np.arange(len(pixels)) % HELD_OUT == HELD_OUT - 1
    return CalibrationSet(
        pixels[~held_out], pixels[held_out], sha256_bytes(pixels.tobytes()), tuple(skipped)
    )


def _fit(face: Face, reader: int | Network) -> Pixels:
    """An image as the model reads it: a face of this side, or what is central of any image."""
    if isinstance(reader, int):
        return fit_face(face.pixels, face.name, side=reader, reduce=True)
    image, size = Image.fromarray(face.pixels), (reader.width, reader.height)
    return np.array(ImageOps.fit(image, size, Image.Resampling.BICUBIC))


def _iter_faces(sources: Sequence[str | Path], side: int, skipped: list[str]) -> Iterator[Face]:
    """The images of each source in turn; errors of single ones are added to `skipped`."""
    chosen = [path for source in _expand(sources) for path in _of_side(source, side)]
    yield from iter_faces(chosen, on_broken=lambda error: skipped.append(str(error)))


def _of_side(source: str | Path, side: int) -> list[str | Path]:
    """A folder's set for this side, NNpx/, else the folder without the sets for other sides."""
    own = Path(source, f"{side}px")
    if own.is_dir():
        return [own]
    if not Path(source).is_dir():
        return [source]
    images = list_images(source)
    for_any_side = [
        path
        for path in images
        if not any(SIZED.fullmatch(folder) for folder in path.relative_to(source).parts[:-1])
    ]
    return [source] if len(for_any_side) == len(images) else [*for_any_side]


def _expand(sources: Sequence[str | Path]) -> list[str | Path]:
    """Each source, or the files that it matches as a pattern."""
    expanded: list[str | Path] = []
    for source in sources:
        if has_magic(str(source)) and not Path(source).exists():
            found = sorted(glob(str(source), recursive=True))
            if not found:
                raise EdgeError(f"{source}: matches no file; check the pattern")
            expanded += found
        else:
            expanded.append(source)
    return expanded
