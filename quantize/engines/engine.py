"""What an INT8 engine does: quantize some layers of a source model for a target."""

from collections.abc import Sequence
from typing import Protocol

from onnx import ModelProto

from quantize.layers import Layer
from quantize.targets import Target


class QuantizationEngine(Protocol):
    """An INT8 recipe with its calibration set; `name` and `version` stand in the manifest.

    `quick`: it quantizes in a second, so that layers can be tried one by one.
    """

    name: str
    version: str
    quick: bool

    def quantize(self, layers: Sequence[Layer], target: Target) -> ModelProto:
        """Return the source model with these layers in INT8 as the target needs them."""
        ...
