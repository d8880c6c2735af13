"""A ncnn network under construction: the lines of .param and the bytes of .bin."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from export.graph import Array, Shape

MAGIC = "7767517"  # of .param
FP32, FP16, INT8 = 0, 0x01306B47, 0x000D4B38  # how weights say what they are, in .bin
ARRAY = -23300  # a parameter of many numbers has the key ARRAY - key
ALIGNMENT = 4  # bytes
SIZES = ((0,), (0, 1), (0, 1, 2), (0, 1, 11, 2))  # keys of w, h, d, c by the number of axes

Value = int | float | Sequence[int] | Sequence[float]


@dataclass(frozen=True)
class NcnnLayer:
    """A line of .param; `parameters` by their numbers, as in ncnn's operators.md."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: Mapping[int, Value]


class NcnnNetwork:
    """Layers in the order in which they run, and their weights in the same order."""

    def __init__(self) -> None:
        self._layers: list[NcnnLayer] = []
        self._weights: list[bytes] = []

    def add(
        self,
        kind: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        parameters: Mapping[int, Value] | None = None,
        weights: Sequence[bytes] = (),
    ) -> None:
        """Add a layer, which has the name of its first output; `weights` as ncnn reads them."""
        layer = NcnnLayer(kind, outputs[0], tuple(inputs), tuple(outputs), parameters or {})
        self._layers.append(layer)
        self._weights += weights

    def param(self) -> bytes:
        """The text of .param; a value with several readers is split, for ncnn wants one."""
        layers = _split(self._layers)
        blobs = sum(len(layer.outputs) for layer in layers)
        lines = [MAGIC, f"{len(layers)} {blobs}", *map(_line, layers)]
        return "".join(f"{line}\n" for line in lines).encode()

    def bin(self) -> bytes:
        """The bytes of .bin."""
        return b"".join(self._weights)


def sizes(shape: Shape) -> dict[int, Value]:
    """The parameters w, h, d and c of a shape, which ncnn has the other way round."""
    return dict(zip(SIZES[len(shape) - 1], reversed(shape), strict=True))


def tagged(value: Array) -> bytes:
    """Weights that say what they are: int8, float16 or float32, filled to ALIGNMENT."""
    tag = {"int8": INT8, "float16": FP16, "float32": FP32}[value.dtype.name]
    return struct.pack("<I", tag) + _filled(value.tobytes())


def plain(value: Array) -> bytes:
    """Weights that are always float32: biases, scales, constants."""
    return _filled(np.asarray(value, np.float32).tobytes())


def _filled(content: bytes) -> bytes:
    return content + b"\0" * (-len(content) % ALIGNMENT)


def _line(layer: NcnnLayer) -> str:
    blobs = [*layer.inputs, *layer.outputs]
    parameters = [_parameter(*entry) for entry in sorted(layer.parameters.items())]
    counts = f"{len(layer.inputs)} {len(layer.outputs)}"
    return " ".join([f"{layer.kind} {layer.name} {counts}", *blobs, *parameters])


def _parameter(key: int, value: Value) -> str:
    if isinstance(value, (int, float)):
        return f"{key}={_number(value)}"
    return f"{ARRAY - key}={len(value)},{','.join(map(_number, value))}"


def _number(value: float) -> str:
    """ncnn tells integers from floats by the point or the exponent."""
    return str(value) if isinstance(value, int) else f"{value:e}"


def _split(layers: Sequence[NcnnLayer]) -> list[NcnnLayer]:
    reads = Counter(value for layer in layers for value in layer.inputs)
    copies = {
        value: [f"{value}_split_{number}" for number in range(count)]
        for value, count in reads.items()
        if count > 1
    }
    result = []
    used: Counter[str] = Counter()
    for layer in layers:
        inputs = []
        for value in layer.inputs:
            inputs.append(copies[value][used[value]] if value in copies else value)
            used[value] += 1
        result.append(
            NcnnLayer(layer.kind, layer.name, tuple(inputs), layer.outputs, layer.parameters)
        )
        for value in layer.outputs:
            if value in copies:
                name = f"{value}_split"
                result.append(NcnnLayer("Split", name, (value,), tuple(copies[value]), {}))
    return result
