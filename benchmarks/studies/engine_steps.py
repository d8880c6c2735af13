"""What each step of the two INT8 engines is worth: the same layers in INT8, one step changed.

Each recipe quantizes the layers that the native engine's file for the target has in INT8, whatever
that does to the budget, so that only the recipe differs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from onnx import ModelProto

from quantize.activations import find_extremes
from quantize.budget import Int8Candidate
from quantize.calibration import CalibrationSet
from quantize.engines.engine import QuantizationEngine
from quantize.engines.native import NativeEngine
from quantize.engines.nncf import NncfEngine, NncfOptions
from quantize.layers import Layer
from quantize.qdq import quantize_layers
from quantize.quantizer import Quantizer
from quantize.source import SourceModel
from quantize.targets import Target


@dataclass(frozen=True)
class StepRow:
    """A recipe's file for a target, with the same `layers` in INT8 as all others of the target.

    The drift is None without real faces, and all figures are where the library failed.
    """

    engine: str
    step: str
    target: str
    layers: int
    fidelity_db: float | None = None
    worst_fidelity_db: float | None = None
    drift_db: float | None = None
    worst_drift_db: float | None = None
    failure: str | None = None


class MinMax:
    """The native engine without equalization; `augmented`: with its contrast-augmented set."""

    name, version, quick = "native", "", True

    def __init__(
        self, source: SourceModel, calibration: CalibrationSet, *, augmented: bool
    ) -> None:
        self._model = source.model
        found = find_extremes(
            source.model, source.layers, calibration.faces, source.feed, augmented=augmented
        )
        self._ranges = {name: extremes.range for name, extremes in found.items()}

    def quantize(self, layers: Sequence[Layer], target: Target) -> ModelProto:
        return quantize_layers(self._model, layers, self._ranges, target)


NNCF_STEPS = {
    "as --engine nncf": NncfOptions(),
    "no bias correction": NncfOptions(bias_correction=None),
    "accurate bias correction": NncfOptions(bias_correction="accurate"),
    "SmoothQuant, strength 0.5": NncfOptions(smooth_quant=0.5),
    "depthwise activations per channel": NncfOptions(per_channel=True),
}


EQUALIZED_STEPS = {
    "on the graph that native equalized": NncfOptions(),
    "on that graph, no bias correction": NncfOptions(bias_correction=None),
}


def recipes(
    source: SourceModel, calibration: CalibrationSet
) -> Iterator[tuple[str, QuantizationEngine]]:
    """Each recipe with what its step is called."""
    faces = calibration.faces
    native = NativeEngine(source, faces)
    yield "min/max of the faces", MinMax(source, calibration, augmented=False)
    yield "and of the contrast-augmented set", MinMax(source, calibration, augmented=True)
    yield "and equalized, as --engine native", native
    for step, options in NNCF_STEPS.items():
        yield step, NncfEngine(source, faces, options)
    equalized = replace(source, model=native.calibrated.model)
    for step, options in EQUALIZED_STEPS.items():
        yield step, NncfEngine(equalized, faces, options)


def compare_steps(
    source: SourceModel,
    calibration: CalibrationSet,
    quantizer: Quantizer,
    layers: dict[Target, Sequence[Layer]],
) -> Iterator[StepRow]:
    """A row for each recipe and target; `layers`: those in INT8 for each target."""
    for step, engine in recipes(source, calibration):
        made: dict[str, Int8Candidate] = {}
        for target, chosen in layers.items():
            if target.shares and target.shares not in made:
                continue  # the file could not be made
            if target.shares:
                shared = quantizer.evaluate(target, made[target.shares].content, chosen)
                candidate = replace(shared, engine=engine.name)
            else:
                try:
                    candidate = quantizer.attempt(engine, target, chosen)
                except Exception as error:  # NNCF's own: a recipe that is compared may not run
                    failure = f"{type(error).__name__}: {error}"
                    yield StepRow(engine.name, step, target.name, len(chosen), failure=failure)
                    continue
                made[target.file] = candidate
            yield _row(step, target, candidate)


def _row(step: str, target: Target, candidate: Int8Candidate) -> StepRow:
    real = candidate.real
    return StepRow(
        engine=candidate.engine,
        step=step,
        target=target.name,
        layers=len(candidate.layers),
        fidelity_db=candidate.fidelity_db,
        worst_fidelity_db=min(
            candidate.held_out.worst_fidelity_db, candidate.probes.worst_fidelity_db
        ),
        drift_db=real.drift_db if real else None,
        worst_drift_db=real.worst_drift_db if real else None,
    )
