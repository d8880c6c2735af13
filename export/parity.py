"""Parity: an ONNX model in ONNX Runtime against the network in torch that it was made from."""

import math
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto

from runtime.backends.onnxruntime import OnnxRuntimeSession
from runtime.errors import EXIT_DRIFT, EdgeError
from runtime.image import Tensor

BATCHES = (1, 3, 8)
MAX_ABS_DIFF = 1e-4  # of values in about [0, 1]: a fortieth of a gray level
LEAST_MSE = 1e-20  # 200 dB: infinity does not fit in JSON


@dataclass(frozen=True)
class Parity:
    """The largest difference of a value, and the PSNR (peak 1), of the worst batch size."""

    max_abs_diff: float
    psnr_db: float


def compare(model: ModelProto, lr: Tensor, sr: Tensor) -> Parity:
    """Run the model on lr (N, 3, 16, 16) at each batch size; sr is what torch made of it."""
    diffs = []
    with OnnxRuntimeSession(model.SerializeToString(), "the exported graph") as session:
        for batch in BATCHES:
            starts = range(0, len(lr), batch)
            ours = np.concatenate([session.run(lr[i : i + batch]) for i in starts])
            diffs.append(ours.astype(np.float64) - sr)
    mse = max(float(np.square(diff).mean()) for diff in diffs)
    return Parity(
        max_abs_diff=float(np.abs(diffs).max()), psnr_db=-10 * math.log10(max(mse, LEAST_MSE))
    )


def prove(model: ModelProto, lr: Tensor, sr: Tensor, limit: float, stage: str) -> Parity:
    """Compare; EdgeError with status 3 over the limit, naming the stage that it was found after."""
    parity = compare(model, lr, sr)
    if not parity.max_abs_diff <= limit:  # also if it is not a number
        raise EdgeError(
            f"parity: after {stage} the graph differs from torch by {parity.max_abs_diff:.1e},"
            f" expected at most {limit:.1e}; nothing was written; take the versions in"
            " constraints.txt, or allow more: --max-abs-diff",
            EXIT_DRIFT,
        )
    return parity
