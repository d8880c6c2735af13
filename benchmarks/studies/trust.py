"""Back-projection: how far photo mode should trust what the camera saw (CLEAN and NOISY).

    python -m benchmarks.studies.trust --data celeba-val.tar --checkpoint F.safetensors

Photo mode adds a share of what the network removed back to its output; how much depends on the
ratio of what was removed to the finest detail of the frame (runtime.media.photo.trust). Each row is
a kind and size of degraded faces: that ratio, and PSNR-Y over bicubic without back-projection, with
the share that photo mode takes, with all of it, and with the best single share. Below the table
stand the CLEAN and NOISY of the best mean, found on a grid; the choice is in runtime/media/photo.py
and export/site/photo.js. No kind here has noise without JPEG, whose ratio is about 0.9: a test of
photo.py holds that it is not trusted, which the best constants of a grid may forget.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.study import report, study_parser
from benchmarks.harness.table import text_table
from runtime.errors import needs, run_command
from runtime.media.photo import CLEAN, NOISY, keep_what_is_known, noise_ratio, trusted
from runtime.progress import Progress, Steps, silent

if TYPE_CHECKING:
    from aminet.training.wild_validation import WildCell
    from runtime.image import Pixels

SIZES = (16, 24, 32, 48, 64)  # px of the frame
SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)  # measured; between two the PSNR-Y is interpolated
GRID = np.arange(0.2, 2.01, 0.05)  # of CLEAN and NOISY
FACES = 60

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TrustRow:
    """Faces of one kind and size: the ratio's mean and tenth parts, and PSNR-Y gains in dB."""

    kind: str
    size: int
    n: int
    ratio: float
    ratio_low: float
    ratio_high: float
    gain_none: float
    gain: float  # with the share that photo mode takes
    gain_all: float
    best_share: float
    best_gain: float


@dataclass(frozen=True)
class Trust:
    """The rows, and the constants of the best mean gain beside those in use."""

    upscaler: str
    clean: float
    noisy: float
    gain: float  # dB, mean over the rows, with the constants in use
    best_clean: float
    best_noisy: float
    best_gain: float
    rows: tuple[TrustRow, ...]


@dataclass(frozen=True, eq=False)
class Cell:
    """Of each face of a kind and size: the ratio (N,), and the gain at each share (N, SHARES)."""

    kind: str
    size: int
    ratios: Floats
    gains: Floats

    def gain(self, clean: float, noisy: float) -> float:
        """Mean gain with these constants, dB."""
        shares = [trusted(ratio, clean, noisy) for ratio in self.ratios]
        each = [np.interp(s, SHARES, gains) for s, gains in zip(shares, self.gains, strict=True)]
        return float(np.mean(each))

    @property
    def row(self) -> TrustRow:
        means = self.gains.mean(0)
        best = int(means.argmax())
        low, high = np.quantile(self.ratios, (0.1, 0.9))
        figures = (self.ratios.mean(), low, high, means[0], self.gain(CLEAN, NOISY), means[-1])
        rounded = [round(float(figure), 3) for figure in (*figures, SHARES[best], means[best])]
        return TrustRow(self.kind, self.size, len(self.ratios), *rounded)


def measure_trust(
    data: Sequence[str | Path],
    checkpoint: str | Path,
    faces: int = FACES,
    progress: Progress = silent,
) -> Trust:
    """Measure a checkpoint whose input is larger than 16 px on degraded faces."""
    from aminet.training.degradation import KINDS, resample
    from aminet.training.wild_validation import WildCell
    from benchmarks.metrics.upscalers import checkpoint_upscaler
    from runtime.dataset import load_faces

    hr = list(load_faces(data, limit=faces))
    cells = []
    with checkpoint_upscaler(checkpoint) as upscaler:
        for kind, size in product(KINDS, SIZES):
            progress(f"{kind}, {size} px")
            wild = WildCell.make(kind, size, hr)
            lr = np.stack([resample(frame, upscaler.lr_side) for frame in wild.frames])
            cells.append(_cell(wild, list(upscaler.upscale_all(lr))))
        name = upscaler.artifact
    gains = {
        (clean, noisy): float(np.mean([cell.gain(clean, noisy) for cell in cells]))
        for clean, noisy in product(GRID, GRID)
        if clean < noisy
    }
    best = max(gains, key=lambda constants: gains[constants])
    return Trust(
        name,
        CLEAN,
        NOISY,
        round(float(np.mean([cell.gain(CLEAN, NOISY) for cell in cells])), 3),
        round(float(best[0]), 2),
        round(float(best[1]), 2),
        round(gains[best], 3),
        tuple(cell.row for cell in cells),
    )


def _cell(wild: "WildCell", sr: "list[Pixels]") -> Cell:
    ratios = [noise_ratio(face, seen) for face, seen in zip(sr, wild.frames, strict=True)]
    gains = []
    for share in SHARES:
        kept = [keep_what_is_known(a, b, share) for a, b in zip(sr, wild.frames, strict=True)]
        gains.append(wild.psnr_y(kept) - wild.bicubic)
    return Cell(wild.kind, wild.size, np.array(ratios), np.stack(gains, -1))


def table(result: Trust) -> str:
    lines = [
        (
            *(row.kind, f"{row.size} px", f"{row.ratio:.2f}"),
            f"{row.ratio_low:.2f} to {row.ratio_high:.2f}",
            *(f"{gain:+.2f}" for gain in (row.gain_none, row.gain, row.gain_all)),
            f"{row.best_gain:+.2f} at {row.best_share:g}",
        )
        for row in result.rows
    ]
    columns = ("kind", "frame", "ratio", "80 %", "none", "photo mode", "all", "best share")
    return (
        f"{result.upscaler}, {result.rows[0].n} faces, PSNR-Y over bicubic in dB\n"
        f"{text_table(columns, lines)}\n"
        f"CLEAN {result.clean:g}, NOISY {result.noisy:g}: {result.gain:+.3f} dB in the mean; best"
        f" {result.best_clean:g} and {result.best_noisy:g}: {result.best_gain:+.3f} dB"
    )


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(given: argparse.Namespace) -> int:
    with needs("train"), Steps() as progress:
        result = measure_trust(given.data, given.checkpoint, given.faces, progress)
    return report(given, asdict(result), table(result))


def _parser() -> argparse.ArgumentParser:
    parser = study_parser("trust", __doc__)
    add = parser.add_argument
    add("--data", nargs="+", required=True, metavar="TAR_OR_DIR", help="128x128 faces (required)")
    add("--checkpoint", required=True, metavar="F", help="a 64-px model's weights (required)")
    add("--faces", type=int, default=FACES, help=f"so many at most (default: {FACES})")
    return parser


if __name__ == "__main__":
    sys.exit(main())
