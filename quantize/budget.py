"""The drift budget: what a smaller artifact may lose, and the loop that keeps it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from quantize.layers import Layer
from runtime.drift import BUDGET_DB, Fidelity, Run, budget_fidelity_db
from runtime.errors import EXIT_DRIFT, EdgeError
from runtime.image import Pixels, mse_y, psnr_of_mse, psnr_y, shrink, to_pixels, to_tensor

BATCH = 8  # faces run at a time
BUDGET_PSNR_Y_DB = 27.0  # where the FP32 model's is not known, as BUDGET_DB has it
WORST = 5.0  # the worst face may lose so many times what all lose in the mean
# What the worst face loses is not the energy of its error against FP32 but how that correlates with
# FP32's own error against the truth: so much, of an error as large as the faces that judge have, in
# int8.onnx at most on 1,200 training faces (docs/quantization.md).
CORRELATION = 0.28
NAMED = 5  # layers in a message
# A layer in FP32 among INT8 ones brings conversions with it, whatever its size: it is counted with
# so many multiply-adds more, so that few layers are given back and not many small ones.
CONVERSION_MACS = 4e6
LEAST_SHARE = 0.5  # of the multiply-adds: with less in INT8 it is not worth a file


@dataclass(frozen=True)
class Judgement:
    """What faces that did not calibrate show: dB to FP32 and, where the truth is known, dB lost."""

    fidelity_db: float
    worst_fidelity_db: float
    drift_db: float | None = None
    worst_drift_db: float | None = None


class Evaluator:
    """Compares a network with FP32 on low-resolution faces, and on real ones (N, 128, 128, 3)."""

    def __init__(self, fp32: Run, held_out: Pixels, real: Pixels | None = None) -> None:
        self._faces, self._real = held_out, real
        self._expected = enlarge(fp32, held_out)
        self._lr = None if real is None else np.stack([shrink(face) for face in real])
        self._expected_db = None if self._lr is None else self._psnr(enlarge(fp32, self._lr))

    def judge(self, run: Run) -> Judgement:
        errors = mse_y(enlarge(run, self._faces), self._expected)
        fidelity = psnr_of_mse(errors.mean()), psnr_of_mse(errors.max())
        if self._lr is None:
            return Judgement(*fidelity)
        lost_db = self._expected_db - self._psnr(enlarge(run, self._lr))
        return Judgement(*fidelity, float(lost_db.mean()), float(lost_db.max()))

    def _psnr(self, sr: Pixels) -> np.ndarray:
        assert self._real is not None
        return np.array([psnr_y(a, b) for a, b in zip(sr, self._real, strict=True)])


def enlarge(run: Run, faces: Pixels) -> Pixels:
    """Faces (N, 16, 16, 3) to (N, 128, 128, 3); what is not finite becomes black."""
    lr = to_tensor(faces)
    batches = [run(lr[start : start + BATCH]) for start in range(0, len(lr), BATCH)]
    return to_pixels(np.nan_to_num(np.concatenate(batches), posinf=0, neginf=0))


@dataclass(frozen=True)
class Budget:
    """The PSNR-Y that may be lost, of the FP32 model's `psnr_y` (None: not known).

    `correlation`: of the worst face's error with FP32's own.
    """

    max_drop_db: float
    psnr_y: float | None
    correlation: float = CORRELATION

    def least_fidelity_db(self, factor: float = 1.0) -> float:
        """The fidelity at which `factor` times the budget is expected to be lost."""
        if self.psnr_y is None:
            return BUDGET_DB - 10 * np.log10(factor)
        return budget_fidelity_db(self.psnr_y, factor * self.max_drop_db)

    def least_for_the_worst_db(self) -> float:
        """The fidelity at which the worst of hundreds of real faces is expected to keep WORST.

        Two errors of sizes e and r add to r^2 + 2 c e r + e^2, which is 20 / ln(10) c e / r in dB.
        """
        psnr_y = BUDGET_PSNR_Y_DB if self.psnr_y is None else self.psnr_y
        ratio = WORST * self.max_drop_db * np.log(10) / (20 * self.correlation)
        return float(psnr_y - 20 * np.log10(ratio))

    def least_seen_db(self) -> float:
        """What faces that did not calibrate must show where no real ones do."""
        return max(self.least_fidelity_db(), self.least_for_the_worst_db())

    def allows(self, seen: Judgement, probed: Fidelity) -> bool:
        """Faces in the mean and the worst; and the probes, which every start will ask."""
        if not probed.finite or probed.fidelity_db < self.least_fidelity_db():
            return False
        if seen.drift_db is not None and seen.worst_drift_db is not None:
            worst_db = WORST * self.max_drop_db
            return seen.drift_db <= self.max_drop_db and seen.worst_drift_db <= worst_db
        return (
            seen.fidelity_db >= self.least_seen_db()
            and seen.worst_fidelity_db >= self.least_fidelity_db(WORST)
        )

    def check(self, seen: Judgement, probed: Fidelity, name: str) -> None:
        """EdgeError with status 3 if it is not allowed."""
        if not self.allows(seen, probed):
            lost = "" if seen.drift_db is None else f", {seen.drift_db:.3f} dB lost"
            raise EdgeError(
                f"{name}: does not hold {self.max_drop_db} dB: fidelity {seen.fidelity_db:.1f} dB"
                f" (worst face {seen.worst_fidelity_db:.1f}, probes {probed.fidelity_db:.1f}),"
                f" expected {self.least_seen_db():.1f}{lost}; nothing was written; allow more:"
                " --max-drop-db",
                EXIT_DRIFT,
            )


@dataclass(frozen=True)
class Candidate:
    """A file with some layers in INT8, and what was seen of it in a backend.

    `computed` are the layers that the backend really computes in INT8.
    """

    content: bytes
    layers: tuple[Layer, ...]
    seen: Judgement
    probed: Fidelity
    computed: frozenset[str]
    backend_version: str


def hold(
    budget: Budget,
    layers: Sequence[Layer],
    total_macs: int,
    attempt: Callable[[Sequence[Layer]], Candidate],
    errors: Callable[[], Mapping[str, float]],
) -> Candidate:
    """Quantize all layers, or as many as the budget allows.

    The first to be given back are those that cost most for their size and the conversions that they
    bring: `errors` has a layer's squared error when it alone is INT8, and is asked only if it is
    needed. EdgeError with status 3 if less than LEAST_SHARE of all multiply-adds would be left.
    """
    made = attempt(layers)
    if budget.allows(made.seen, made.probed):
        return made
    cost = errors()
    order = sorted(
        layers, key=lambda layer: cost[layer.name] / (layer.macs + CONVERSION_MACS), reverse=True
    )
    spare = _that_may_be_given_back(order, total_macs)

    def without(count: int) -> Candidate:
        given_back = {layer.name for layer in spare[:count]}
        return attempt([layer for layer in layers if layer.name not in given_back])

    too_few, enough = 0, len(spare)
    held = without(enough) if enough else made
    costly = ", ".join(layer.name for layer in spare[:NAMED]) or "none"
    share = f"INT8 with half of the multiply-adds ({enough} layers given back: {costly}, ...)"
    budget.check(held.seen, held.probed, share)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        made = without(middle)
        if budget.allows(made.seen, made.probed):
            enough, held = middle, made
        else:
            too_few = middle
    return held


def _that_may_be_given_back(order: Sequence[Layer], total_macs: int) -> list[Layer]:
    """Those of these layers, in this order, without which LEAST_SHARE is left."""
    left, spare = sum(layer.macs for layer in order), []
    for layer in order:
        if left - layer.macs >= LEAST_SHARE * total_macs:
            left -= layer.macs
            spare.append(layer)
    return spare
