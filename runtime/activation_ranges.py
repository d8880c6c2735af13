"""Activation ranges that go from stage to stage: calibrated, trained, and used for INT8."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runtime.atomic import read_bytes, write_bytes
from runtime.errors import EdgeError

FILE = "ranges.json"  # beside fp32.onnx
METADATA = "activation_ranges"  # the key of an ONNX file's metadata
MAX_BYTES = 1 << 26

Numbers = tuple[float, ...]


@dataclass(frozen=True)
class ActivationRanges:
    """What 8 bits of each activation stand for, by the layers that read and make it.

    `layers`: of each quantized convolution, by its module's name, the activations that it reads and
    makes. `ranges`: the least and greatest value of each, zero between them. `factors`: of an
    activation whose channels are scaled before its Q/DQ pair, a factor for each channel.
    """

    layers: Mapping[str, tuple[str, str]]
    ranges: Mapping[str, tuple[float, float]]
    factors: Mapping[str, Numbers]

    def __post_init__(self) -> None:
        used = {name for pair in self.layers.values() for name in pair}
        if used != self.ranges.keys() or not self.factors.keys() <= used or not used:
            raise ValueError("ranges: not those of the layers' activations")
        for name, (low, high) in self.ranges.items():
            if not (-math.inf < low <= 0 <= high < math.inf and low < high):
                raise ValueError(f"ranges: {name} from {low} to {high}")
        if not all(0 < factor < math.inf for each in self.factors.values() for factor in each):
            raise ValueError("ranges: a factor that is not over 0")

    @classmethod
    def from_dict(cls, content: Any) -> ActivationRanges:
        """From parsed JSON; ValueError or TypeError for what does not fit."""
        low_high = {name: _pair(map(float, each)) for name, each in content["ranges"].items()}
        return cls(
            {name: _pair(map(str, each)) for name, each in content["layers"].items()},
            low_high,
            {name: tuple(map(float, each)) for name, each in content["factors"].items()},
        )


@dataclass(frozen=True)
class Channels:
    """How cross-layer equalization scales a convolution, and how it may.

    Weights and bias are multiplied by `of_output`, the weights divided by `of_input`. Channels of
    one class have one factor in all convolutions that read or make them; it cancels out. Those of
    class 0 keep theirs.
    """

    of_output: Numbers
    of_input: Numbers
    output_classes: tuple[int, ...]
    input_classes: tuple[int, ...]

    def __post_init__(self) -> None:
        for factors, classes in (
            (self.of_output, self.output_classes),
            (self.of_input, self.input_classes),
        ):
            if len(factors) != len(classes) or min(classes) < 0:
                raise ValueError("channels: factors and classes differ")
            if not all(0 < factor < math.inf for factor in factors):
                raise ValueError("channels: a factor that is not over 0")


@dataclass(frozen=True)
class RangeFile:
    """Where quantization-aware training starts: ranges, and what equalizes the weights they fit.

    `channels`: of each convolution that equalization changes, by its module's name.
    """

    model: str
    checkpoint_sha256: str
    calibration_sha256: str
    ranges: ActivationRanges
    channels: Mapping[str, Channels]


def write_range_file(path: Path, content: RangeFile) -> None:
    """Write it atomically, as JSON."""
    write_bytes(path, json.dumps(asdict(content), sort_keys=True, allow_nan=False).encode())


def read_range_file(path: Path) -> RangeFile:
    """EdgeError for a missing or damaged file, with the command that makes it."""
    if not path.is_file():
        raise EdgeError(
            f"{path}: not found, and quantization-aware training starts from its ranges; make it:"
            " python -m quantize.ranges"
        )
    try:
        content = json.loads(read_bytes(path, MAX_BYTES))
        ranges = ActivationRanges.from_dict(content["ranges"])
        channels = {name: _channels(each) for name, each in content["channels"].items()}
        return RangeFile(
            str(content["model"]),
            str(content["checkpoint_sha256"]),
            str(content["calibration_sha256"]),
            ranges,
            channels,
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise EdgeError(
            f"{path}: not a file of ranges ({error}); make it again: python -m quantize.ranges"
        ) from error


def _channels(content: Mapping[str, Any]) -> Channels:
    return Channels(
        tuple(map(float, content["of_output"])),
        tuple(map(float, content["of_input"])),
        tuple(map(int, content["output_classes"])),
        tuple(map(int, content["input_classes"])),
    )


def _pair(values: Iterable[Any]) -> tuple[Any, Any]:
    first, second = values
    return first, second
