"""The ranges of a network's activations on a calibration set, after cross-layer equalization."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, helper

from quantize.equalize import SCALED, Equalized, Factors, equalize, scale_inputs
from quantize.layers import Layer
from quantize.precision import open_quietly
from quantize.qdq import Range, copy
from runtime.activation_ranges import ActivationRanges
from runtime.image import Pixels, Tensor, to_tensor

Feed = Callable[[Pixels], Tensor]

CONTRAST = 1.6
BATCH = 8  # images whose activations are held at a time


@dataclass(frozen=True)
class Calibrated:
    """An equalized graph, its layers, and the range of each activation that they read or make.

    `factors`: of the inputs that are scaled by a Mul. `equalized`: what was done to the graph
    before; None where trained weights were equalized already.
    """

    model: ModelProto
    layers: tuple[Layer, ...]
    ranges: Mapping[str, Range]
    factors: Mapping[str, Factors]
    equalized: Equalized | None = None

    def to_start(self) -> ActivationRanges:
        """The ranges as the start of a training."""
        named = {layer.name: (layer.input, layer.result) for layer in self.layers}
        used = {name for pair in named.values() for name in pair}
        return ActivationRanges(
            named,
            {name: (self.ranges[name].low, self.ranges[name].high) for name in used},
            {name: tuple(map(float, factors)) for name, factors in self.factors.items()},
        )


def calibrate(
    model: ModelProto,
    layers: Sequence[Layer],
    faces: Pixels,
    feed: Feed = to_tensor,
    fixed: Collection[str] = (),
) -> Calibrated:
    """Run the contrast-augmented set once, and equalize the graph to what it shows.

    The results of the convolutions `fixed`, by their modules' names, keep their channels.
    """
    extremes = find_extremes(model, layers, faces, feed)
    equalized = equalize(model, {name: found.sizes for name, found in extremes.items()}, fixed)
    extremes = {name: found.times(equalized.factors[name]) for name, found in extremes.items()}
    sizes = {name: found.sizes for name, found in extremes.items()}
    model, layers, scaled = scale_inputs(equalized.model, layers, sizes)
    for name, factors in scaled.items():
        extremes[name] = extremes[name.removesuffix(SCALED)].times(factors)
    ranges = {name: found.range for name, found in extremes.items()}
    return Calibrated(model, layers, ranges, scaled, equalized)


@dataclass(frozen=True)
class Extremes:
    """The minimum and maximum of each channel of an activation, (C,); zero is between them."""

    low: NDArray[np.floating]
    high: NDArray[np.floating]

    @property
    def sizes(self) -> NDArray[np.floating]:
        """The largest magnitude of each channel."""
        return np.maximum(-self.low, self.high)

    @property
    def range(self) -> Range:
        """The range of all channels together."""
        return Range(float(self.low.min()), float(self.high.max()))

    def times(self, factors: NDArray[np.float64]) -> "Extremes":
        """The extremes after the channels are multiplied."""
        return Extremes(self.low * factors, self.high * factors)


def find_extremes(
    model: ModelProto,
    layers: Sequence[Layer],
    faces: Pixels,
    feed: Feed = to_tensor,
    *,
    augmented: bool = True,
) -> dict[str, Extremes]:
    """The extremes of each layer's input and result, on faces and, `augmented`, more contrast.

    `feed` makes of images (N, H, W, 3) what the network reads.

    Nothing is clipped: a single face that leaves its range loses more than finer steps gain.
    """
    names = {name for layer in layers for name in (layer.input, layer.result)}
    found: dict[str, Extremes] = {}
    for images in (faces, augment_contrast(faces)) if augmented else (faces,):
        for batch in _run(model, names, feed(images)):
            for name, values in batch.items():
                low, high = (pick(values, (0, 2, 3)) for pick in (np.min, np.max))
                so_far = found.get(name, Extremes(np.zeros_like(low), np.zeros_like(high)))
                found[name] = Extremes(np.minimum(low, so_far.low), np.maximum(high, so_far.high))
    return found


def augment_contrast(faces: Pixels) -> Pixels:
    """Three times as many images: faces, and halves of two of them side by side and stacked.

    Each has CONTRAST times the contrast around its own mean color. Synthetic faces, and a hundred
    real ones as well, lack what one in twenty real faces has: hard light, hats, hands. No set of
    that size contains it, but this points its way: more of what is there, and edges where a face
    has none.
    """
    others = np.roll(faces, 1, axis=0)
    rows, columns = faces.shape[1] // 2, faces.shape[2] // 2
    stacked = np.concatenate([faces[:, :rows], others[:, rows:]], axis=1)
    beside = np.concatenate([faces[:, :, :columns], others[:, :, columns:]], axis=2)
    images = np.concatenate([faces, stacked, beside])
    means = images.mean(axis=(1, 2), keepdims=True)
    return np.clip(np.rint(means + CONTRAST * (images - means)), 0, 255).astype(np.uint8)


def _run(
    model: ModelProto, names: Collection[str], lr: Tensor
) -> Iterator[Mapping[str, NDArray[np.float32]]]:
    """Yield these activations for BATCH images at a time."""
    model = copy(model)
    inputs = {value.name for value in model.graph.input}
    computed = sorted(set(names) - inputs)
    del model.graph.output[:]
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in computed)
    session = open_quietly(model.SerializeToString())
    (graph_input,) = session.get_inputs()
    batch = BATCH if not isinstance(graph_input.shape[0], int) else graph_input.shape[0]
    for start in range(0, len(lr), batch):
        fed = {graph_input.name: lr[start : start + batch]}
        values = dict(zip(computed, session.run(computed, fed), strict=True))
        yield {**values, **{name: fed[name] for name in inputs & set(names)}}
