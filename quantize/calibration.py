"""Calibration: faces, and the range of each value that a network computes from them."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, helper

from quantize.equalize import equalize, scale_sources
from quantize.layers import Layer
from quantize.precision import open_quietly
from quantize.qdq import Range, copy
from runtime.atomic import sha256_bytes
from runtime.dataset import iter_faces
from runtime.errors import EdgeError
from runtime.image import Pixels, Tensor, fit_face, luma, to_tensor

MOST_FACES = 1024  # more add nothing; so memory does not grow with the set
LEAST_FACES = 16
HELD_OUT = 4  # every fourth face judges and does not calibrate
MOST_BROKEN = 0.1
LEAST_DEVIATION = 4.0  # of 255 levels, within the pictures and between them
FACE_CORRELATION = 0.3  # of the mean picture with that of the model's probes

CONTRAST = 1.6
BATCH = 8  # faces whose values are held at a time


@dataclass(frozen=True)
class CalibrationSet:
    """Faces (N, 16, 16, 3) to calibrate with, others to judge with, and what could not be read."""

    faces: Pixels
    held_out: Pixels
    sha256: str
    skipped: tuple[str, ...] = ()


def read_faces(sources: Sequence[str | Path]) -> CalibrationSet:
    """Read faces of any size from folders, tars, pictures and globs, the first MOST_FACES.

    One that cannot be used is skipped and named. EdgeError for more than MOST_BROKEN of them, and
    for a set that is too small or shows nothing.
    """
    faces: list[Pixels] = []
    skipped: list[str] = []
    found = iter_faces(_expand(sources), on_broken=lambda error: skipped.append(str(error)))
    for face in found:
        try:
            faces.append(fit_face(face.pixels, face.name, reduce=True))
        except EdgeError as error:
            skipped.append(str(error))
        if len(faces) == MOST_FACES:
            break
    listed = ", ".join(map(str, sources))
    seen = len(faces) + len(skipped)
    if len(skipped) > MOST_BROKEN * seen:
        raise EdgeError(
            f"{listed}: {len(skipped)} of {seen} pictures cannot be used, such as {skipped[0]}"
        )
    if len(faces) < LEAST_FACES:
        raise EdgeError(f"{listed}: holds {len(faces)} faces, expected at least {LEAST_FACES}")
    pixels = np.stack(faces)
    if min(pixels.std(axis=0).mean(), pixels.std(axis=(1, 2)).mean()) < LEAST_DEVIATION:
        raise EdgeError(f"{listed}: shows the same or nothing in all pictures, expected faces")
    judging = np.arange(len(pixels)) % HELD_OUT == HELD_OUT - 1
    return CalibrationSet(
        pixels[~judging], pixels[judging], sha256_bytes(pixels.tobytes()), tuple(skipped)
    )


def looks_like_faces(pixels: Pixels, faces: Pixels) -> bool:
    """Whether the mean of pictures (N, 16, 16, 3) resembles that of faces, aligned as these."""
    mean, expected = (luma(pictures).mean(axis=0).ravel() for pictures in (pixels, faces))
    return float(np.corrcoef(mean, expected)[0, 1]) > FACE_CORRELATION


@dataclass(frozen=True)
class Calibrated:
    """A graph whose channels use their 8 bits alike, its layers, and the range of each value."""

    model: ModelProto
    layers: tuple[Layer, ...]
    ranges: Mapping[str, Range]


def calibrate(model: ModelProto, layers: Sequence[Layer], faces: Pixels) -> Calibrated:
    """Run faces, and harsher ones, through the graph once; equalize it to what they show."""
    extremes = find_extremes(model, layers, faces)
    equalized = equalize(model, {name: found.sizes for name, found in extremes.items()})
    extremes = {name: found.times(equalized.factors[name]) for name, found in extremes.items()}
    sizes = {name: found.sizes for name, found in extremes.items()}
    model, layers, scaled = scale_sources(equalized.model, layers, sizes)
    for name, factors in scaled.items():
        extremes[name] = extremes[name.removesuffix("_scaled")].times(factors)
    return Calibrated(model, layers, {name: found.range for name, found in extremes.items()})


@dataclass(frozen=True)
class Extremes:
    """The least and the greatest that each channel of a value becomes, (C,); zero is between."""

    low: NDArray[np.floating]
    high: NDArray[np.floating]

    @property
    def sizes(self) -> NDArray[np.floating]:
        return np.maximum(-self.low, self.high)

    @property
    def range(self) -> Range:
        """Of the whole value."""
        return Range(float(self.low.min()), float(self.high.max()))

    def times(self, factors: NDArray[np.float64]) -> "Extremes":
        """With its channels multiplied."""
        return Extremes(self.low * factors, self.high * factors)


def find_extremes(model: ModelProto, layers: Sequence[Layer], faces: Pixels) -> dict[str, Extremes]:
    """What each input and result becomes, on faces and on harsher ones.

    Nothing is clipped: a single face that leaves its range loses more than the finer steps gain.
    """
    names = {name for layer in layers for name in (layer.source, layer.result)}
    found: dict[str, Extremes] = {}
    for pictures in (faces, harsher(faces)):
        for batch in _run(model, names, to_tensor(pictures)):
            for name, values in batch.items():
                low, high = (pick(values, (0, 2, 3)) for pick in (np.min, np.max))
                so_far = found.get(name, Extremes(np.zeros_like(low), np.zeros_like(high)))
                found[name] = Extremes(np.minimum(low, so_far.low), np.maximum(high, so_far.high))
    return found


def harsher(faces: Pixels) -> Pixels:
    """Three times as many faces: these, and halves of two of them side by side and stacked.

    Each has CONTRAST times the contrast around its own mean color. Faces drawn from statistics, and
    a hundred real ones as well, lack what one in twenty real faces has: hard light, hats, hands. It
    is found in no set of that size, but in its direction: what is there, more of it, and edges
    where a face has none.
    """
    others = np.roll(faces, 1, axis=0)
    rows, columns = faces.shape[1] // 2, faces.shape[2] // 2
    stacked = np.concatenate([faces[:, :rows], others[:, rows:]], axis=1)
    beside = np.concatenate([faces[:, :, :columns], others[:, :, columns:]], axis=2)
    pictures = np.concatenate([faces, stacked, beside])
    means = pictures.mean(axis=(1, 2), keepdims=True)
    return np.clip(np.rint(means + CONTRAST * (pictures - means)), 0, 255).astype(np.uint8)


def _run(
    model: ModelProto, names: Collection[str], lr: Tensor
) -> Iterator[Mapping[str, NDArray[np.float32]]]:
    """Yield these values for BATCH faces at a time."""
    model = copy(model)
    inputs = {value.name for value in model.graph.input}
    made = sorted(set(names) - inputs)
    del model.graph.output[:]
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in made)
    session = open_quietly(model.SerializeToString())
    for start in range(0, len(lr), BATCH):
        fed = {"lr": lr[start : start + BATCH]}
        values = dict(zip(made, session.run(made, fed), strict=True))
        yield {**values, **{name: fed[name] for name in inputs & set(names)}}


def _expand(sources: Sequence[str | Path]) -> list[str | Path]:
    """Each source, or what it matches as a pattern."""
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
