"""The drift budget: what a smaller artifact may lose, and the loop that meets it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from quantize.layers import Layer
from quantize.targets import CORRELATION
from runtime.drift import Fidelity, budget_fidelity_db
from runtime.errors import EXIT_DRIFT, EdgeError
from runtime.evaluation import Evaluation

WORST = 5.0  # the worst face may lose so many times the mean's budget
NAMED = 5  # layers in a message
# A layer in FP32 among INT8 ones brings conversions with it, whatever its size. Each counts as so
# many multiply-adds more, so that few layers are kept in FP32 rather than many small ones.
CONVERSION_MACS = 4e6
LEAST_SHARE = 0.5  # of the multiply-adds: with less in INT8 it is not worth a file


@dataclass(frozen=True)
class Budget:
    """The PSNR-Y that may be lost, of the FP32 model's `psnr_y`.

    `correlation`: of the worst face's error with FP32's own; None where it was never measured, as
    of another network than AMINet.
    """

    max_drop_db: float
    psnr_y: float
    correlation: float | None = CORRELATION

    def least_fidelity_db(self, factor: float = 1.0) -> float:
        """The fidelity at which `factor` times the budget is expected to be lost."""
        return budget_fidelity_db(self.psnr_y, factor * self.max_drop_db)

    def least_for_the_worst_db(self) -> float:
        """The fidelity at which the worst of hundreds of real faces is expected to keep WORST.

        Two errors of sizes e and r add to r^2 + 2 c e r + e^2, which is 20 / ln(10) c e / r in dB.
        """
        assert self.correlation is not None
        ratio = WORST * self.max_drop_db * np.log(10) / (20 * self.correlation)
        return float(self.psnr_y - 20 * np.log10(ratio))

    def least_expected_db(self) -> float:
        """The fidelity that synthetic and held-out faces must have where no real ones measure."""
        if self.correlation is None:
            return self.least_fidelity_db()
        return max(self.least_fidelity_db(), self.least_for_the_worst_db())

    def allows(self, candidate: "Int8Candidate") -> bool:
        return self.fault(candidate) is None

    def fault(self, candidate: "Int8Candidate") -> str | None:
        """What misses the budget, in words; None if nothing does.

        The probes' faces count whatever set calibrated: they come with the model, and every start
        will run them. Measured drift on real faces outweighs what fidelity lets expect.
        """
        probes, real = candidate.probes, candidate.real
        if not probes.finite:
            return "numbers that are not finite"
        sets = {"the probes' synthetic faces": (probes.fidelity_db, probes.worst_fidelity_db)}
        if real is None:
            held_out = candidate.held_out
            sets["held-out faces"] = (held_out.fidelity_db, held_out.worst_fidelity_db)
        elif fault := self._drift_fault(real):
            return fault
        least_db = self.least_expected_db() if real is None else self.least_fidelity_db()
        least_worst_db = self.least_fidelity_db(WORST)
        for name, (fidelity_db, worst_db) in sets.items():
            if fidelity_db < least_db or worst_db < least_worst_db:
                return (
                    f"fidelity {fidelity_db:.1f} dB on {name}, worst {worst_db:.1f}, expected"
                    f" {least_db:.1f} and {least_worst_db:.1f}"
                )
        return None

    def _drift_fault(self, real: Evaluation) -> str | None:
        assert real.drift_db is not None
        assert real.worst_drift_db is not None
        most_db, most_worst_db = self.max_drop_db, WORST * self.max_drop_db
        if real.drift_db <= most_db and real.worst_drift_db <= most_worst_db:
            return None
        return (
            f"{real.drift_db:.3f} dB lost on real faces, worst {real.worst_drift_db:.3f}, expected"
            f" {most_db:g} and {most_worst_db:g}"
        )

    def check(self, candidate: "Int8Candidate", name: str) -> None:
        """EdgeError with status 3 if the budget is missed."""
        if fault := self.fault(candidate):
            raise EdgeError(
                f"{name}: misses the budget of {self.max_drop_db} dB: {fault}; nothing was written;"
                " allow more: --max-drop-db",
                EXIT_DRIFT,
            )


@dataclass(frozen=True)
class Int8Candidate:
    """A file with these layers in INT8, and how it did in its backend.

    `real` is None where no real faces were given: then the fidelity lets expect the drift. It may
    be `recorded`, as an earlier run measured it (quantize.drift_record).

    `computed`: the layers that the backend really computes in INT8. `choice`: why it was kept
    where two engines were compared.
    """

    content: bytes
    layers: tuple[Layer, ...]
    held_out: Evaluation
    real: Evaluation | None
    probes: Fidelity
    computed: frozenset[str]
    backend_version: str
    engine: str = "native"
    engine_version: str = ""
    choice: str | None = None
    recorded: bool = False

    @property
    def fidelity_db(self) -> float:
        """The lower of the fidelities on held-out faces and on the probes' faces."""
        return min(self.held_out.fidelity_db, self.probes.fidelity_db)


def meet_budget(
    budget: Budget,
    layers: Sequence[Layer],
    total_macs: int,
    attempt: Callable[[Sequence[Layer]], Int8Candidate],
    errors: Callable[[], Mapping[str, float]],
    *,
    give_back: bool = True,
) -> Int8Candidate:
    """Quantize all layers, or as many as the budget allows.

    The first to be kept in FP32 are the most sensitive for their size and the conversions that they
    bring: `errors` has a layer's squared error when it alone is INT8, and is called only if it is
    needed. With `give_back` each of them is tried in INT8 once more when the budget is met: one
    attempt a layer. EdgeError with status 3 if less than LEAST_SHARE of all multiply-adds would be
    INT8.
    """
    all_int8 = attempt(layers)
    if budget.allows(all_int8):
        return all_int8
    cost = errors()
    order = sorted(
        layers, key=lambda layer: cost[layer.name] / (layer.macs + CONVERSION_MACS), reverse=True
    )
    spare = _layers_to_spare(order, total_macs)

    def without(count: int) -> Int8Candidate:
        kept_fp32 = {layer.name for layer in spare[:count]}
        return attempt([layer for layer in layers if layer.name not in kept_fp32])

    too_few, enough = 0, len(spare)
    met = without(enough) if enough else all_int8
    sensitive = ", ".join(layer.name for layer in spare[:NAMED]) or "none"
    half = f"half of the multiply-adds in 8 bits ({enough} layers kept in FP32: {sensitive}, ...)"
    budget.check(met, half)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        candidate = without(middle)
        if budget.allows(candidate):
            enough, met = middle, candidate
        else:
            too_few = middle
    # The last of them was tried: without it the budget was missed.
    return _give_back(budget, met, layers, spare[: enough - 1], attempt) if give_back else met


def _give_back(
    budget: Budget,
    met: Int8Candidate,
    layers: Sequence[Layer],
    kept_fp32: Sequence[Layer],
    attempt: Callable[[Sequence[Layer]], Int8Candidate],
) -> Int8Candidate:
    """Quantize each layer kept in FP32 that the budget allows, the least sensitive ones first.

    A large sensitive layer comes late in the order: without it the file has room for many of those
    before it.
    """
    for layer in reversed(kept_fp32):
        names = {layer.name, *(each.name for each in met.layers)}
        candidate = attempt([each for each in layers if each.name in names])
        if budget.allows(candidate):
            met = candidate
    return met


def _layers_to_spare(order: Sequence[Layer], total_macs: int) -> list[Layer]:
    """Those of these layers, in this order, without which LEAST_SHARE is left."""
    left, spare = sum(layer.macs for layer in order), []
    for layer in order:
        if left - layer.macs >= LEAST_SHARE * total_macs:
            left -= layer.macs
            spare.append(layer)
    return spare
