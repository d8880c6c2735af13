"""A LiteRT model under construction: tensors, operators, and the flatbuffer made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from export.graph import Array, Shape

VERSION = 3  # of the TensorFlow Lite schema
IDENTIFIER = b"TFL3"
ALIGNMENT = 16  # bytes, of weights in a file that is mapped into memory
SIGNATURE = "serving_default"
TYPES: Mapping[str, int] = {
    "float32": schema.TensorType.FLOAT32,
    "float16": schema.TensorType.FLOAT16,
    "int8": schema.TensorType.INT8,
    "int32": schema.TensorType.INT32,
}


@dataclass(frozen=True)
class Quantization:
    """real = scale * (stored - zero_point); `axis` is the dimension that has a scale each."""

    scale: Array
    zero_point: int = 0
    axis: int = 0


class _Buffer(schema.BufferT):
    """Bytes that begin at a multiple of ALIGNMENT, which the generated class leaves to chance."""

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802
        content = self.data.tobytes() if self.data is not None else b""
        builder.StartVector(1, len(content), ALIGNMENT)
        builder.head -= len(content)
        builder.Bytes[builder.head : builder.head + len(content)] = content
        vector = builder.EndVector()
        schema.BufferStart(builder)
        if content:
            schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)


class TfliteModel:
    """Tensors and operators in the order in which they run."""

    def __init__(self) -> None:
        self._buffers = [_Buffer()]  # the first is empty: the one of all that is computed
        self._tensors: list[schema.TensorT] = []
        self._operators: list[schema.OperatorT] = []
        self._codes: dict[tuple[int, int], int] = {}

    def tensor(
        self, name: str, shape: Shape, dtype: str = "float32", quantization: Any = None
    ) -> int:
        """Add a tensor that is computed; return its number."""
        tensor = schema.TensorT()
        tensor.name = name
        tensor.shape = list(shape)
        tensor.type = TYPES[dtype]
        if quantization is not None:
            tensor.quantization = _quantization(quantization)
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def constant(self, name: str, value: Array, quantization: Quantization | None = None) -> int:
        """Add a tensor that is stored; return its number."""
        index = self.tensor(name, value.shape, value.dtype.name, quantization)
        buffer = _Buffer()
        buffer.data = np.ascontiguousarray(value)
        self._tensors[index].buffer = len(self._buffers)
        self._buffers.append(buffer)
        return index

    def rename(self, tensor: int, name: str) -> None:
        self._tensors[tensor].name = name

    def operator(
        self,
        name: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: Any = None,
        version: int = 1,
    ) -> None:
        """Add an operator of schema.BuiltinOperator; `options` is its table, such as AddOptionsT.

        `version` is the least of the operator that knows what is asked of it.
        """
        operator = schema.OperatorT()
        code = getattr(schema.BuiltinOperator, name)
        operator.opcodeIndex = self._codes.setdefault((code, version), len(self._codes))
        operator.inputs, operator.outputs = list(inputs), list(outputs)
        if options is not None:
            kind = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            operator.builtinOptions = options
        self._operators.append(operator)

    def to_bytes(
        self,
        inputs: Mapping[str, int],
        outputs: Mapping[str, int],
        description: str,
        metadata: Mapping[str, bytes],
    ) -> bytes:
        """The file, whose signature has these names of inputs and outputs."""
        subgraph = schema.SubGraphT()
        subgraph.name = "main"
        subgraph.tensors, subgraph.operators = self._tensors, self._operators
        subgraph.inputs, subgraph.outputs = list(inputs.values()), list(outputs.values())
        signature = schema.SignatureDefT()
        signature.signatureKey = SIGNATURE
        signature.inputs, signature.outputs = _named(inputs), _named(outputs)
        model = schema.ModelT()
        model.version = VERSION
        model.description = description
        model.operatorCodes = [_code(*key) for key in self._codes]
        model.subgraphs, model.signatureDefs = [subgraph], [signature]
        model.metadata = [self._metadata(*entry) for entry in metadata.items()]
        model.buffers = self._buffers
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
        return bytes(builder.Output())

    def _metadata(self, name: str, content: bytes) -> schema.MetadataT:
        buffer = _Buffer()
        buffer.data = np.frombuffer(content, np.uint8)
        self._buffers.append(buffer)
        metadata = schema.MetadataT()
        metadata.name, metadata.buffer = name, len(self._buffers) - 1
        return metadata


def _code(builtin: int, version: int) -> schema.OperatorCodeT:
    code = schema.OperatorCodeT()
    code.builtinCode, code.version = builtin, version
    code.deprecatedBuiltinCode = min(
        builtin, schema.BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES
    )
    return code


def _named(tensors: Mapping[str, int]) -> list[schema.TensorMapT]:
    entries = []
    for name, index in tensors.items():
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name, index
        entries.append(entry)
    return entries


def _quantization(quantization: Quantization) -> schema.QuantizationParametersT:
    parameters = schema.QuantizationParametersT()
    scales = np.atleast_1d(quantization.scale).astype(np.float32)
    parameters.scale = scales
    parameters.zeroPoint = np.full(scales.shape, quantization.zero_point, np.int64)
    parameters.quantizedDimension = quantization.axis
    return parameters
