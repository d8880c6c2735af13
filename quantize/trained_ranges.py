"""Activation ranges that quantization-aware training found, read from an FP32 file and used as is.

Its weights are equalized already (aminet.training.qat), and its ranges are trained with
them: a second calibration would undo both.
"""

import json
from collections.abc import Sequence

import numpy as np
from onnx import ModelProto

from quantize.activations import Calibrated
from quantize.equalize import scale_inputs_by
from quantize.layers import Layer, activation_shapes
from quantize.qdq import Range, copy
from runtime.activation_ranges import METADATA, ActivationRanges
from runtime.errors import EdgeError

FIX = "export its checkpoint again: python -m export.onnx --checkpoint F"


def read_trained_ranges(
    model: ModelProto, checkpoint_sha256: str, name: str
) -> ActivationRanges | None:
    """The ranges in a graph's metadata; None where it was not trained with quantization.

    EdgeError for ranges that are damaged or of another checkpoint.
    """
    texts = [entry.value for entry in model.metadata_props if entry.key == METADATA]
    if not texts:
        return None
    try:
        content = json.loads(texts[0])
        ranges, trained = ActivationRanges.from_dict(content), content["checkpoint_sha256"]
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise EdgeError(f"{name}: its trained ranges are damaged ({error}); {FIX}") from error
    if trained != checkpoint_sha256:
        raise EdgeError(
            f"{name}: its ranges are of other weights (sha256 {str(trained)[:12]}, expected"
            f" {checkpoint_sha256[:12]}); {FIX}"
        )
    return ranges


def without_ranges(model: ModelProto) -> ModelProto:
    """A copy without them in its metadata, for the files made from it: their pairs hold them."""
    model = copy(model)
    kept = [entry for entry in model.metadata_props if entry.key != METADATA]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    return model


def apply_trained(
    model: ModelProto, layers: Sequence[Layer], trained: ActivationRanges, name: str
) -> Calibrated:
    """Scale the inputs that training scaled; EdgeError for ranges that do not fit the graph.

    Activations are found by the layers that read and make them, for their names in the graph are
    the exporter's.
    """
    if different := sorted({layer.name for layer in layers} ^ trained.layers.keys()):
        raise EdgeError(
            f"{name}: its trained ranges do not fit its layers at {different[0]}; {FIX}"
        )
    known = {layer.input: trained.layers[layer.name][0] for layer in layers}
    factors = {
        activation: np.array(trained.factors[name_there])
        for activation, name_there in known.items()
        if name_there in trained.factors
    }
    shapes = activation_shapes(model)
    for activation, of_channels in factors.items():
        if len(of_channels) != shapes[activation][1]:
            raise EdgeError(
                f"{name}: has {len(of_channels)} trained factors for the {shapes[activation][1]}"
                f" channels of {activation}; {FIX}"
            )
    model, layers, scaled = scale_inputs_by(model, layers, factors)
    ranges: dict[str, Range] = {}
    for layer in layers:
        reads, makes = trained.layers[layer.name]
        ranges[layer.input] = Range(*trained.ranges[reads])
        ranges[layer.result] = Range(*trained.ranges[makes])
    return Calibrated(model, layers, ranges, scaled)
