"""What the bytes of an ONNX file say before a backend opens it, read without the onnx package.

A protobuf message is a row of fields; those of wire type 2 hold bytes, text or another message.
"""

from __future__ import annotations

from collections.abc import Iterator

from runtime.errors import EdgeError

# Where tensors are in ModelProto (onnx.proto): field numbers and the message that they hold.
MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
IR_VERSION, GRAPH = 1, 7  # of ModelProto
INITIALIZER, INPUT = 5, 11  # of GraphProto
INPUT_NAME = 1  # of ValueInfoProto
WEIGHTS_NEED_NO_INPUTS = 4  # the IR version since which
EXTERNAL_DATA, DATA_LOCATION = 13, 14  # of TensorProto
DATA_TYPE, TENSOR_NAME = 2, 8  # of TensorProto
FLOAT16, FLOAT8E4M3FN = 10, 17  # its types' numbers
NODE_INPUT, OP_TYPE = 1, 4  # of NodeProto
PAIR = frozenset((b"QuantizeLinear", b"DequantizeLinear"))
MISREAD = ((DATA_TYPE, FLOAT16), (DATA_TYPE, FLOAT8E4M3FN))
MAX_DEPTH = 100  # messages in messages, as protobuf has it


def refuse_external_data(model: bytes, name: str) -> None:
    """EdgeError if a tensor of the model is kept in another file, whose path it would choose.

    What is no protobuf passes: the backend says what is wrong with it.
    """
    try:
        external = _has_external_data(memoryview(model), "model", 0)
    except (IndexError, ValueError):
        return
    if external:
        raise EdgeError(
            f"{name}: keeps weights in other files, expected all in one. Create it again with:"
            " python -m export.onnx"
        )


def computes_in_half(model: bytes) -> bool:
    """Whether an operator reads an FP16 constant: weights, or the scales of Q/DQ pairs.

    A Cast does not count: it unpacks what is only stored in FP16. What is no protobuf does not.
    """
    try:
        graph = next(part for part in _parts(memoryview(model), 7))
        halves = {
            bytes(name)
            for tensor in _parts(graph, 5)
            if (DATA_TYPE, FLOAT16) in list(_fields(tensor))
            for name in _parts(tensor, TENSOR_NAME)
        }
        return any(
            bytes(name) in halves
            for node in _parts(graph, 1)
            if b"Cast" not in map(bytes, _parts(node, OP_TYPE))
            for name in _parts(node, NODE_INPUT)
        )
    except (IndexError, ValueError, StopIteration):
        return False


def pairs_are_misread(model: bytes) -> bool:
    """Whether Q/DQ pairs are FP8, or have FP16 scales: ONNX Runtime 1.31 optimizes both wrongly.

    It fuses FP8 pairs as if they were INT8's (it does not open them, or computes 25 dB), and moves
    FP16 ones (29 dB where 54 are right). Without graph optimizations it computes what they say.
    """
    try:
        graph = next(part for part in _parts(memoryview(model), 7))
        parameters = {
            bytes(name)
            for node in _parts(graph, 1)
            if PAIR.intersection(map(bytes, _parts(node, OP_TYPE)))
            for name in _parts(node, NODE_INPUT)
        }
        return bool(parameters) and any(
            bytes(name) in parameters
            for tensor in _parts(graph, 5)
            if any(field in MISREAD for field in _fields(tensor))
            for name in _parts(tensor, TENSOR_NAME)
        )
    except (IndexError, ValueError, StopIteration):
        return False


def with_constant_weights(model: bytes) -> bytes:
    """The same model without the inputs that are weights: nobody replaces them.

    Old exporters list each weight as an input too, and ONNX Runtime then folds no normalization
    into a convolution. Older models than IR version 4 stay as they are: there they have to.
    """
    whole = memoryview(model)
    version = dict(_fields(whole)).get(IR_VERSION)
    if not isinstance(version, int) or version < WEIGHTS_NEED_NO_INPUTS:
        return model
    made = b""
    for number, value, field in _spans(whole):
        if number == GRAPH and isinstance(value, memoryview):
            graph = _without_weights_as_inputs(value)
            made += bytes([GRAPH << 3 | 2]) + _as_varint(len(graph)) + graph
        else:
            made += field
    return made


def _without_weights_as_inputs(graph: memoryview) -> bytes:
    weights = {bytes(n) for t in _parts(graph, INITIALIZER) for n in _parts(t, TENSOR_NAME)}
    return b"".join(
        field
        for number, value, field in _spans(graph)
        if not (
            number == INPUT
            and isinstance(value, memoryview)
            and weights.issuperset(map(bytes, _parts(value, INPUT_NAME)))
        )
    )


def _parts(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """The bytes of each field of this number."""
    for number, value in _fields(message):
        if number == wanted and isinstance(value, memoryview):
            yield value


def _has_external_data(message: memoryview, kind: str, depth: int) -> bool:
    if depth > MAX_DEPTH:
        raise ValueError("nested too deep")
    if kind == "tensor":
        return any(
            number == EXTERNAL_DATA or (number == DATA_LOCATION and value)
            for number, value in _fields(message)
        )
    return any(
        _has_external_data(part, MESSAGES[kind][number], depth + 1)
        for number, part in _fields(message)
        if isinstance(part, memoryview) and number in MESSAGES[kind]
    )


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Each field's number with its value, a number or bytes."""
    for number, value, _ in _spans(message):
        if value is not None:
            yield number, value


def _spans(message: memoryview) -> Iterator[tuple[int, int | memoryview | None, memoryview]]:
    """Each field's number, its value, a number or bytes (else None), and all of its bytes."""
    at = 0
    while at < len(message):
        start = at
        value: int | memoryview | None = None
        tag, at = _varint(message, at)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            value, at = _varint(message, at)
        elif wire_type == 2:
            length, at = _varint(message, at)
            if at + length > len(message):
                raise ValueError("truncated")
            value = message[at : at + length]
            at += length
        elif wire_type in (1, 5):
            at += 8 if wire_type == 1 else 4
        elif wire_type not in (3, 4):  # the begin and end of an old group: what is in it follows
            raise ValueError(f"wire type {wire_type}")
        yield number, value, message[start:at]


def _as_varint(number: int) -> bytes:
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*made, number])


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
