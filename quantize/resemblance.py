"""Whether a calibration set resembles what the model is for: its statistics beside the probes'.

A set that is dark, gray, turned or of other channels has smaller or other activations; ranges found
on it clip those of real faces, and held-out images of the same kind would not show it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from runtime.image import Pixels, luma

LUMA_LEVELS = 40.0  # of 255, between the means of the two sets
CONTRAST_RATIO = 0.5, 1.8
LEAST_COLOUR = 0.25  # of the reference's saturation
ORDER_MARGIN = 5.0  # levels by which the channel means fit better in another order
MOST_DETAIL = 1.7  # times the reference's, beside the contrast: noise has no smooth places
LEAST_CORRELATION = 0.3  # of the two mean images
TURN_MARGIN = 0.1  # of that correlation, by which a turned mean image fits better
COHERENT = 0.5  # correlation of the mean images of two halves: aligned images, not any images

CHANNELS = "RGB"
TURNS = {1: "turned by 90 degrees", 2: "upside down", 3: "turned by 90 degrees"}


@dataclass(frozen=True)
class SetStatistics:
    """Mean luma and contrast in levels, saturation, detail, channel means and mean image.

    Saturation is relative to the light, detail to the contrast.
    """

    luma: float
    contrast: float
    saturation: float
    detail: float
    channels: NDArray[np.float64]
    mean: NDArray[np.float64]


def misfits(images: Pixels, reference: Pixels) -> tuple[str, ...]:
    """How images (N, S, S, 3) differ from reference ones, in words; empty if they fit."""
    return tuple(_differences(images, reference))


def _differences(images: Pixels, reference: Pixels) -> Iterator[str]:
    found, expected = _statistics(images), _statistics(reference)
    if abs(found.luma - expected.luma) > LUMA_LEVELS:
        kind = "dark" if found.luma < expected.luma else "bright"
        least, most = expected.luma - LUMA_LEVELS, expected.luma + LUMA_LEVELS
        yield f"too {kind} (mean luma {found.luma:.0f}, expected {least:.0f} to {most:.0f})"
    least, most = (ratio * expected.contrast for ratio in CONTRAST_RATIO)
    if not least <= found.contrast <= most:
        kind = "little" if found.contrast < least else "much"
        expectation = f"expected {least:.0f} to {most:.0f}"
        yield f"too {kind} contrast ({found.contrast:.0f} levels, {expectation})"
    if found.saturation < LEAST_COLOUR * expected.saturation:
        yield f"gray (saturation {found.saturation:.2f}, expected about {expected.saturation:.2f})"
    if found.detail > MOST_DETAIL * expected.detail:
        yield "noise, no images"
    elif _is_coherent(reference):
        if (order := _channel_order(found, expected)) != CHANNELS:
            yield f"channels look swapped (read as {order}, expected {CHANNELS})"
        yield from _misplaced(found.mean, expected.mean)


def _misplaced(mean: NDArray[np.float64], expected: NDArray[np.float64]) -> Iterator[str]:
    """Compare the mean images: their sign, their direction, and whether they are alike at all."""
    fits = [_correlation(np.rot90(mean, turns), expected) for turns in range(4)]
    best = int(np.argmax(fits))
    if fits[0] < -LEAST_CORRELATION:
        yield "inverted (light is dark)"
    elif best and fits[best] > max(fits[0] + TURN_MARGIN, LEAST_CORRELATION):
        yield TURNS[best]
    elif fits[0] < LEAST_CORRELATION:
        yield f"not aligned faces (correlation {fits[0]:.2f} with the mean probe face)"


def _statistics(images: Pixels) -> SetStatistics:
    y = luma(images)
    contrast = float(y.std(axis=(1, 2)).mean())
    steps = np.abs(np.diff(y, axis=1)).mean() + np.abs(np.diff(y, axis=2)).mean()
    return SetStatistics(
        luma=float(y.mean()),
        contrast=contrast,
        saturation=float((images.max(axis=-1).mean() - images.min(axis=-1).mean()) / images.mean()),
        detail=float(steps / max(contrast, 1.0)),
        channels=images.mean(axis=(0, 1, 2)),
        mean=y.mean(axis=0),
    )


def _channel_order(found: SetStatistics, expected: SetStatistics) -> str:
    """The order of channels in which their means are nearest to the expected ones."""
    means, wanted = (one.channels - one.channels.mean() for one in (found, expected))
    orders = list(permutations(range(len(CHANNELS))))  # the unchanged one first
    distances = [float(np.linalg.norm(means[list(order)] - wanted)) for order in orders]
    best = int(np.argmin(distances))
    order = orders[best if distances[best] < distances[0] - ORDER_MARGIN else 0]
    return "".join(CHANNELS[channel] for channel in order)


def _is_coherent(reference: Pixels) -> bool:
    """Whether the reference images are aligned with each other, so that a turn would show."""
    halves = [luma(reference[start::2]).mean(axis=0) for start in (0, 1)]
    return _correlation(*halves) > COHERENT


def _correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    if min(one.std(), other.std()) == 0:
        return 0.0
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])
