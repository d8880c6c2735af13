"""Drift: how far an artifact, run on this machine, is from the FP32 model, and how far it may be.

Each model has probes: 12 synthetic faces and some stress probes, images where activations are
largest, with what the FP32 PyTorch model makes of them. Running them needs neither that model nor
any ground truth.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runtime.atomic import read_bytes, write_bytes
from runtime.errors import EdgeError
from runtime.image import (
    LR_SIDE,
    SR_SIDE,
    Pixels,
    Tensor,
    mse_y,
    psnr_of_mse,
    to_pixels,
    to_tensor,
)
from runtime.manifest import LR_SIDES, Manifest
from runtime.network import Network

# Sums in another order (another processor, another build) move values by 1e-6 and flip a gray level
# here and there: 90 dB and more. A smaller fidelity is not visible yet, but it is a difference.
ROUNDING_DB = 82.0
SLACK_DB = 2.0  # under what was measured at build time
# What the budget takes where the FP32 model's PSNR-Y is not known: by what it reads, about that of
# the released models. Too low a figure would let more be lost.
BUDGET_PSNR_Y_DB, BUDGET_PSNR_Y_DB_64 = 27.0, 32.0
BUDGET_DB = 48.6  # of that PSNR-Y and a drop of 0.03 dB
EXTREMES_SLACK_DB = 12.0  # stress probes under the budget, in a backend that was not measured
PROBE_FACES = 12
MAX_PROBES = 64
MAX_PROBES_BYTES = 16 << 20  # packed and unpacked

Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Probes:
    """lr (N, S, S, 3), what FP32 makes of it, sr (N, 128, 128, 3), and N names; faces first."""

    lr: Pixels
    sr: Pixels
    names: tuple[str, ...]
    faces: int = PROBE_FACES

    def __post_init__(self) -> None:
        n = len(self.names)
        for name, pixels, (height, width) in zip(
            ("lr", "sr"), (self.lr, self.sr), self._sizes(), strict=True
        ):
            if pixels.dtype != np.uint8 or pixels.shape != (n, height, width, 3):
                expected = f"uint8 {(n, height, width, 3)}"
                raise ValueError(f"{name} is {pixels.dtype} {pixels.shape}, expected {expected}")
        if not 0 < self.faces < n <= MAX_PROBES:
            raise ValueError(
                f"{self.faces} faces of {n} probes, expected both faces and stress probes"
            )

    def _sizes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Height and width of lr and of sr, as they have to be."""
        return (self.lr_side, self.lr_side), (SR_SIDE, SR_SIDE)

    @property
    def lr_side(self) -> int:
        """S of lr, in px; the paper's if it is none that a model reads."""
        side = self.lr.shape[1] if self.lr.ndim > 1 else 0
        return side if side in LR_SIDES else LR_SIDES[0]


@dataclass(frozen=True)
class NetworkProbes(Probes):
    """The probes of another network than AMINet: images of any one size, to any one size."""

    def _sizes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        if self.lr.ndim != 4 or self.sr.ndim != 4:
            raise ValueError(f"lr is {self.lr.shape} and sr {self.sr.shape}, expected images")
        return self.lr.shape[1:3], self.sr.shape[1:3]


@dataclass(frozen=True)
class Fidelity:
    """PSNR-Y in dB to the FP32 output: over the faces, of the worst face, over the stress probes.

    Each by the mean of the error. Zero throughout if an output was not `finite`.
    """

    fidelity_db: float
    worst_fidelity_db: float
    extremes_fidelity_db: float
    finite: bool = True


@dataclass(frozen=True)
class Limit:
    """The least fidelity in dB that is good enough, for faces and for stress probes."""

    fidelity_db: float
    extremes_fidelity_db: float

    def allows(self, fidelity: Fidelity) -> bool:
        return (
            fidelity.finite
            and fidelity.fidelity_db >= self.fidelity_db
            and fidelity.extremes_fidelity_db >= self.extremes_fidelity_db
        )


def read_probes(path: str | Path) -> Probes:
    """Read `probes.npz`; EdgeError if it is missing or anything else than probes."""
    return decode_probes(read_bytes(path, MAX_PROBES_BYTES), str(path))


def decode_probes(data: bytes, name: str, network: Network | None = None) -> Probes:
    """The probes in the bytes of a `probes.npz`, of AMINet or of another network.

    Nothing is unpacked beyond MAX_PROBES_BYTES.
    """
    import zipfile  # brings half of the standard library, and a remembered verdict does without

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unpacked_bytes = sum(member.file_size for member in archive.infolist())
        if unpacked_bytes > MAX_PROBES_BYTES:
            raise ValueError(f"{unpacked_bytes:,} bytes unpacked")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            names = tuple(str(probe) for probe in arrays["names"])
            kind = Probes if network is None else NetworkProbes
            return kind(arrays["lr"], arrays["sr"], names, int(arrays["faces"]))
    except Exception as error:  # zipfile and numpy raise whatever the damage made them trip over
        raise EdgeError(
            f"{name}: damaged, or no probes ({error}). Create them again with:"
            " python -m export.onnx"
        ) from error


def encode_probes(probes: Probes) -> bytes:
    """The content of `probes.npz`: the same bytes for the same probes."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, lr=probes.lr, sr=probes.sr, names=np.array(probes.names), faces=probes.faces
    )
    return buffer.getvalue()


def write_probes(path: str | Path, probes: Probes) -> None:
    """Write `probes.npz` atomically."""
    write_bytes(path, encode_probes(probes))


def budget_fidelity_db(psnr_y: float, max_drop_db: float) -> float:
    """The fidelity at which a model of `psnr_y` dB is expected to lose `max_drop_db`.

    The error against FP32 is taken to add to FP32's own error against the truth.
    """
    return psnr_y - 10 * math.log10(10 ** (max_drop_db / 10) - 1)


def expected_drift_db(psnr_y: float, fidelity_db: float) -> float:
    """The PSNR-Y that a model of `psnr_y` dB is expected to lose at this fidelity."""
    return 10 * math.log10(1 + 10 ** ((psnr_y - fidelity_db) / 10))


def budget_psnr_y(manifest: Manifest) -> float:
    """The FP32 model's PSNR-Y, in dB, or what the budget takes where it is not known."""
    if manifest.psnr_y is not None:
        return manifest.psnr_y
    larger = manifest.network is None and manifest.lr_side > LR_SIDE
    return BUDGET_PSNR_Y_DB_64 if larger else BUDGET_PSNR_Y_DB


def measure(run: Run, probes: Probes) -> Fidelity:
    """Run the faces one by one, as they come in use, and the stress probes as a batch; compare."""
    lr = to_tensor(probes.lr)
    faces = [run(lr[i : i + 1]) for i in range(probes.faces)]
    sr = np.concatenate([*faces, run(lr[probes.faces :])])
    return compare(sr, probes.sr, probes.faces)


def compare(sr: Tensor, reference: Pixels, faces: int) -> Fidelity:
    """The fidelity of outputs (N, 3, 128, 128) to FP32's pixels (N, 128, 128, 3), faces first."""
    if not np.isfinite(sr).all():
        return Fidelity(0.0, 0.0, 0.0, finite=False)
    errors = mse_y(to_pixels(sr), reference)
    return Fidelity(
        fidelity_db=psnr_of_mse(errors[:faces].mean()),
        worst_fidelity_db=psnr_of_mse(errors[:faces].max()),
        extremes_fidelity_db=psnr_of_mse(errors[faces:].mean()),
    )


def limit(manifest: Manifest, backend: str) -> Limit:
    """The limit for an artifact in a backend: the drift budget, or what was measured if higher."""
    budget = budget_fidelity_db(budget_psnr_y(manifest), manifest.max_drop_db)
    measured = [m for m in manifest.measured_on if m.backend == backend]
    if not measured:
        return Limit(budget, budget - EXTREMES_SLACK_DB)
    return Limit(
        max(budget, _least(min(m.fidelity_db for m in measured))),
        _least(min(m.extremes_fidelity_db for m in measured)),
    )


def _least(measured_db: float) -> float:
    return min(measured_db, ROUNDING_DB) - SLACK_DB
