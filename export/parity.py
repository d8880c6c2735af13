"""Parity: an ONNX model in ONNX Runtime against the PyTorch network that it was exported from."""

import math
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto

from runtime.backends.onnxruntime import OnnxRuntimeSession
from runtime.errors import EXIT_DRIFT, EdgeError
from runtime.image import Tensor

BATCHES = (1, 8)  # one face, and a batch that does not divide the probes evenly
MAX_ABS_DIFF = 1e-4  # of values in about [0, 1]: a fortieth of a gray level
LEAST_MSE = 1e-20  # 200 dB: infinity does not fit in JSON


@dataclass(frozen=True)
class Parity:
    """The largest absolute difference and the PSNR (dB, peak 1) at the worst batch size."""

    max_abs_diff: float
    psnr_db: float


def compare(model: ModelProto, lr: Tensor, sr: Tensor) -> Parity:
    """Run lr (N, 3, S, S) at each batch size; sr (N, 3, 128, 128) is PyTorch's output."""
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
    """Compare; over the limit raise EdgeError with status 3 that names the stage."""
    parity = compare(model, lr, sr)
    if not parity.max_abs_diff <= limit:  # also if it is not a number
        raise EdgeError(
            f"parity: after {stage} the graph differs from torch by {parity.max_abs_diff:.1e},"
            f" expected at most {limit:.1e}; nothing was written; install the versions in"
            " constraints.txt, or allow more: --max-abs-diff",
            EXIT_DRIFT,
        )
    return parity
