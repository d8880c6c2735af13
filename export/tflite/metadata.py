"""What Android reads of a LiteRT file besides the graph: that lr and sr are RGB images in [0, 1].

Written by hand after metadata_schema.fbs (TFLITE_METADATA, version 1), whose generated code is in
no package that fits here; the numbers are the slots of the fields in their tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import flatbuffers
import numpy as np

from export.graph import Shape

IDENTIFIER = b"M001"
PARSER_VERSION = "1.0.0"
RUNTIME_VERSION = "2.14.0"  # of TensorFlow Lite: the first with all operators that are written
UNIONS = {"ImageProperties": 2, "NormalizationOptions": 1}  # their numbers
RGB = 1
LEVELS = 255.0


def make_metadata(name: str, lr: Shape, sr: Shape) -> dict[str, bytes]:
    """The entries of a model by their names; shapes are (1, H, W, 3)."""
    builder = flatbuffers.Builder(1024)
    text = builder.CreateString
    subgraph = {
        2: _vector(builder, [_image(builder, "lr", "the face, RGB in [0, 1]", lr)]),
        3: _vector(builder, [_image(builder, "sr", "RGB, to be clipped to [0, 1]", sr)]),
    }
    model = {
        0: text(name),
        1: text(f"face super-resolution from {lr[1]} px to {sr[1]} px"),
        3: _vector(builder, [_table(builder, subgraph)]),
        7: text(PARSER_VERSION),
    }
    builder.Finish(_table(builder, model), file_identifier=IDENTIFIER)
    runtime = RUNTIME_VERSION.encode().ljust(16, b"\0")
    return {"min_runtime_version": runtime, "TFLITE_METADATA": bytes(builder.Output())}


def _image(builder: flatbuffers.Builder, name: str, description: str, shape: Shape) -> int:
    """TensorMetadata of an RGB image: its levels are divided by 255 before, and are 0 to 1 then."""
    size = _table(builder, {}, unsigned={0: shape[2], 1: shape[1]})
    image = _table(builder, {1: size}, small={0: RGB})
    content = _table(builder, {1: image}, small={0: UNIONS["ImageProperties"]})
    normalization = _table(builder, {0: _floats(builder, 0.0), 1: _floats(builder, LEVELS)})
    unit = _table(builder, {1: normalization}, small={0: UNIONS["NormalizationOptions"]})
    stats = _table(builder, {0: _floats(builder, 1.0), 1: _floats(builder, 0.0)})
    tensor = {
        0: builder.CreateString(name),
        1: builder.CreateString(description),
        3: content,
        4: _vector(builder, [unit]),
        5: stats,
    }
    return _table(builder, tensor)


def _table(
    builder: flatbuffers.Builder,
    offsets: Mapping[int, int],
    small: Mapping[int, int] | None = None,
    unsigned: Mapping[int, int] | None = None,
) -> int:
    """A table of references, bytes (`small`) and uint32 (`unsigned`), each by its slot."""
    builder.StartObject(1 + max([*offsets, *(small or {}), *(unsigned or {})]))
    for slot, offset in offsets.items():
        builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
    for slot, value in (unsigned or {}).items():
        builder.PrependUint32Slot(slot, value, 0)
    for slot, value in (small or {}).items():
        builder.PrependInt8Slot(slot, value, 0)
    return int(builder.EndObject())


def _vector(builder: flatbuffers.Builder, tables: Sequence[int]) -> int:
    builder.StartVector(4, len(tables), 4)
    for table in reversed(tables):
        builder.PrependUOffsetTRelative(table)
    return int(builder.EndVector())


def _floats(builder: flatbuffers.Builder, value: float) -> int:
    return int(builder.CreateNumpyVector(np.array([value], np.float32)))
