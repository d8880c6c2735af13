"""What the operators' writers share: the values of an ONNX graph as tensors of a LiteRT model.

ONNX keeps images as (N, C, H, W); LiteRT's operators on images want (N, H, W, C). So a value has up
to two forms, PLAIN as in ONNX and LAST with the channels last; each is made when it is first read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from onnx import NodeProto

from export.graph import Array, Graph, Shape
from export.tflite.model import Quantization, TfliteModel

Layout = Literal["plain", "channels last"]
PLAIN: Layout = "plain"
LAST: Layout = "channels last"
TO_LAST, TO_PLAIN = (0, 2, 3, 1), (0, 3, 1, 2)
HALF = np.float16


class TfliteConversion:
    """A graph whose values become tensors of `model` one after the other.

    `half`: weights of convolutions are stored as FP16, and computed with in FP32.
    """

    def __init__(self, graph: Graph, half: bool = False) -> None:
        self.graph = graph
        self.half = half
        self.model = TfliteModel()
        self._forms: dict[str, dict[Layout, int]] = {}
        self._stored_as: dict[str, str] = {}  # a dequantized value -> the int8 one that it is
        self._types: dict[int, tuple[Shape, str, Quantization | None]] = {}
        self._written: set[int] = set()

    # Values

    def read(self, value: str, layout: Layout = PLAIN) -> int:
        """The tensor of a value in FP32, or as it is if it is an int8 value itself."""
        forms = self._forms.setdefault(value, {})
        if layout not in forms:
            forms[layout] = self._make(value, layout)
        return forms[layout]

    def read_stored(self, value: str, layout: Layout = PLAIN) -> int:
        """The int8 tensor that a value is dequantized from, else the one in FP32.

        For operators that only move numbers about: `write_moved` writes what they make.
        """
        return self.read(self._stored_as.get(value, value), layout)

    def is_stored(self, value: str) -> bool:
        """Whether a value is dequantized from an int8 one."""
        return value in self._stored_as

    def stored_type(self, value: str) -> Quantization:
        """How the int8 value is quantized that a value is dequantized from."""
        forms = self._forms[self._stored_as[value]]
        quantization = self._types[next(iter(forms.values()))][2]
        assert quantization
        return quantization

    def layout_of(self, values: Sequence[str]) -> Layout:
        """LAST if one of these values is there so, and all of them could be; else PLAIN."""
        computed = [self._stored_as.get(v, v) for v in values if v not in self.graph.constants]
        images = all(len(self.graph.shape(v)) == 4 for v in values if v in computed)
        return LAST if images and any(LAST in self._forms.get(v, {}) for v in computed) else PLAIN

    def shape(self, value: str, layout: Layout) -> Shape:
        shape = self.graph.shape(value)
        return tuple(shape[axis] for axis in TO_LAST) if layout == LAST else shape

    def axis(self, axis: int, rank: int, layout: Layout) -> int:
        """Where an axis of ONNX is in a layout."""
        axis %= rank
        return TO_LAST.index(axis) if layout == LAST else axis

    def link(self, value: str, layout: Layout, tensor: int) -> None:
        """Say which tensor a value is."""
        self._forms.setdefault(value, {})[layout] = tensor

    def link_stored(self, value: str, stored: str) -> None:
        """Say which int8 value a value is dequantized from."""
        self._stored_as[value] = self._stored_as.get(stored, stored)

    # Operators

    def emit(
        self,
        name: str,
        inputs: Sequence[int],
        shape: Shape,
        options: Any = None,
        *,
        like: int | None = None,
        dtype: str = "float32",
        quantization: Quantization | None = None,
        version: int = 1,
    ) -> int:
        """Add an operator with one output, of the type of tensor `like` if given; its tensor."""
        if like is not None:
            _, dtype, quantization = self._types.get(like, ((), "float32", None))
        output = self.model.tensor(f"{name.lower()}_{len(self._types)}", shape, dtype, quantization)
        self._types[output] = (shape, dtype, quantization)
        self.model.operator(name, inputs, [output], options, version)
        return output

    def write(
        self, name: str, inputs: Sequence[int], value: str, layout: Layout, options: Any = None
    ) -> None:
        """Add an operator that makes an FP32 value."""
        self.link(value, layout, self.emit(name, inputs, self.shape(value, layout), options))

    def write_moved(
        self,
        name: str,
        inputs: Sequence[int],
        value: str,
        layout: Layout,
        options: Any = None,
        version: int = 1,
    ) -> None:
        """Add an operator that moves the numbers of its first input; int8 stays int8."""
        shape = self.shape(value, layout)
        self.link_moved(
            value, layout, self.emit(name, inputs, shape, options, like=inputs[0], version=version)
        )

    def link_moved(self, value: str, layout: Layout, tensor: int) -> None:
        """Say which tensor a value is, or is dequantized from if that is int8."""
        if self._types.get(tensor, ((), "", None))[1] == "int8":
            stored = f"{value} (int8)"
            self.link(stored, layout, tensor)
            self.link_stored(value, stored)
        else:
            self.link(value, layout, tensor)

    def integers(self, values: Sequence[int] | Array) -> int:
        """A constant of int32: sizes, axes, paddings."""
        array = np.asarray(values, np.int32)
        return self.model.constant(f"integers_{array.size}", array)

    def floats(self, values: Array) -> int:
        return self.model.constant("floats", np.asarray(values, np.float32))

    def mark_written(self, *nodes: NodeProto | None) -> None:
        """Nodes that another one's writer has taken care of."""
        self._written.update(id(node) for node in nodes if node is not None)

    def is_written(self, node: NodeProto) -> bool:
        return id(node) in self._written

    def _make(self, value: str, layout: Layout) -> int:
        if value in self.graph.constants:
            return self._constant(value, layout)
        if others := self._forms[value]:
            ((_, tensor),) = others.items()
            order = TO_LAST if layout == LAST else TO_PLAIN
            return self.transpose(tensor, self.shape_of(tensor), order)
        if value not in self._stored_as:
            raise KeyError(f"{value} is read before it is made")
        tensor = self.read(self._stored_as[value], layout)
        version = 2  # the first that knows int8
        return self.emit("DEQUANTIZE", [tensor], self.shape_of(tensor), version=version)

    def shape_of(self, tensor: int) -> Shape:
        return self._types[tensor][0]

    def add_input(self, value: str) -> int:
        """The graph's input, an image with its channels last."""
        shape = self.shape(value, LAST)
        tensor = self.model.tensor(value, shape)
        self._types[tensor] = (shape, "float32", None)
        self.link(value, LAST, tensor)
        return tensor

    def transpose(self, tensor: int, shape: Shape, order: Sequence[int]) -> int:
        made = tuple(shape[axis] for axis in order)
        return self.emit(
            "TRANSPOSE",
            [tensor, self.integers(order)],
            made,
            schema.TransposeOptionsT(),
            like=tensor,
            version=2,
        )

    def reshape(self, tensor: int, shape: Shape) -> int:
        options = schema.ReshapeOptionsT()
        options.newShape = list(shape)
        return self.emit("RESHAPE", [tensor, self.integers(shape)], shape, options, like=tensor)

    def _constant(self, value: str, layout: Layout) -> int:
        array = np.asarray(self.graph.constants[value], np.float32)
        if layout == LAST and array.ndim:
            array = array.reshape((1,) * (4 - array.ndim) + array.shape).transpose(TO_LAST)
        return self.model.constant(value, np.ascontiguousarray(array))
