"""Networks compared with FP32 on faces: the fidelity, and where the truth is known the drift."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.drift import Run
from runtime.image import Pixels, mse_y, psnr_of_mse, psnr_y, to_pixels, to_tensor

BATCH = 8  # faces run at once

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Evaluation:
    """What faces show of a network.

    The fidelity is PSNR-Y in dB to FP32's output, by the mean of the error over the faces, and of
    the worst face. `psnr_y` is to the truth, in dB, the mean over the faces; `drift_db` of it is
    lost against FP32 (positive is worse). These are None where the truth is not known.
    """

    faces: int
    fidelity_db: float
    worst_fidelity_db: float
    psnr_y: float | None = None
    drift_db: float | None = None
    worst_drift_db: float | None = None


class Evaluator:
    """Compares networks with FP32 on low-resolution faces `lr` (N, S, S, 3).

    `hr` (N, 128, 128, 3) is the truth, if it is known: the faces that `lr` were shrunk from.
    """

    def __init__(self, fp32: Run, lr: Pixels, hr: Pixels | None = None) -> None:
        self._lr, self._hr = lr, hr
        self._expected = upscale_faces(fp32, lr)
        self._expected_db = None if hr is None else psnr_each(self._expected, hr)

    def evaluate(self, run: Run) -> Evaluation:
        """Run the faces; FP32's own were run once."""
        sr = upscale_faces(run, self._lr)
        errors = _mse_each(sr, self._expected)
        fidelity = len(sr), psnr_of_mse(errors.mean()), psnr_of_mse(errors.max())
        if self._hr is None or self._expected_db is None:
            return Evaluation(*fidelity)
        each_db = psnr_each(sr, self._hr)
        lost_db = self._expected_db - each_db
        return Evaluation(
            *fidelity, float(each_db.mean()), float(lost_db.mean()), float(lost_db.max())
        )


def upscale_faces(run: Run, lr: Pixels) -> Pixels:
    """Faces (N, S, S, 3) to (N, 128, 128, 3), some at once; what is not finite becomes black."""
    batches = [
        to_pixels(np.nan_to_num(run(to_tensor(lr[start : start + BATCH])), posinf=0, neginf=0))
        for start in range(0, len(lr), BATCH)
    ]
    return np.concatenate(batches)


def psnr_each(sr: Pixels, hr: Pixels) -> Floats:
    """PSNR-Y in dB of each face (N,), one by one: the luma of a whole set takes gigabytes."""
    return np.array([psnr_y(a, b) for a, b in zip(sr, hr, strict=True)])


def _mse_each(a: Pixels, b: Pixels) -> Floats:
    return np.array([float(mse_y(x[None], y[None])[0]) for x, y in zip(a, b, strict=True)])
