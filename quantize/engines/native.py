"""The project's own engine: CLE, min/max ranges of an augmented set, Q/DQ pairs where they pay."""

from collections.abc import Mapping, Sequence

from onnx import ModelProto

from quantize.activations import calibrate
from quantize.layers import Layer
from quantize.qdq import Range, quantize_layers
from quantize.source import SourceModel
from quantize.targets import Target
from runtime.image import Pixels


class NativeEngine:
    """Calibrates once: `calibrated` is the equalized graph with its activations' ranges."""

    name = "native"
    version = "2"  # another one when it makes other files

    def __init__(self, source: SourceModel, faces: Pixels) -> None:
        self.calibrated = calibrate(source.model, source.layers, faces, source.feed)

    @property
    def ranges(self) -> Mapping[str, Range]:
        return self.calibrated.ranges

    def quantize(self, layers: Sequence[Layer], target: Target) -> ModelProto:
        names = {layer.name for layer in layers}
        chosen = [layer for layer in self.calibrated.layers if layer.name in names]
        return quantize_layers(self.calibrated.model, chosen, self.calibrated.ranges, target)
