"""The project's own engine: CLE, min/max ranges of an augmented set, Q/DQ pairs where they pay."""

from collections.abc import Mapping, Sequence

from onnx import ModelProto

from quantize.activations import calibrate
from quantize.layers import Layer
from quantize.qdq import Range, quantize_layers
from quantize.source import SourceModel
from quantize.targets import Target
from quantize.trained_ranges import apply_trained
from runtime.image import Pixels


class NativeEngine:
    """Calibrates once, or takes trained ranges: `calibrated` is the graph with its activations'."""

    name = "native"
    version = "3"  # another one when it makes other files
    quick = True

    def __init__(self, source: SourceModel, faces: Pixels) -> None:
        if source.trained is None:
            self.calibrated = calibrate(source.model, source.layers, faces, source.feed)
        else:
            self.calibrated = apply_trained(
                source.model, source.layers, source.trained, str(source.path)
            )

    @property
    def ranges(self) -> Mapping[str, Range]:
        return self.calibrated.ranges

    def quantize(self, layers: Sequence[Layer], target: Target) -> ModelProto:
        names = {layer.name for layer in layers}
        chosen = [layer for layer in self.calibrated.layers if layer.name in names]
        return quantize_layers(self.calibrated.model, chosen, self.calibrated.ranges, target)
