"""Synthetic faces: 16x16 faces drawn from eigenface statistics, and degraded ones of 64x64.

    python -m calib_data.generate statistics --data TAR_OR_DIR... [--out FILE]
    python -m calib_data.generate faces      [--seed N] [--count N] [--out DIR]
    python -m calib_data.generate probes     [--seed N] [--count N] [--out FILE]
    python -m calib_data.generate faces-64   [--seed N] [--count N] [--out DIR]
    python -m calib_data.generate probes-64  [--seed N] [--count N] [--out FILE]

A face x is seen as 768 numbers (16x16 pixels, RGB). Over the training faces these have a mean and
a covariance, whose first 128 eigenvectors ("eigenfaces", Turk and Pentland 1991) hold 97 % of the
variance. A synthetic face is the mean plus each eigenface times a Gaussian number of its spread.
Those of 64x64 are made from it by calib_data.degraded.

The stored statistics are integers and a face is summed up from them in whole numbers, which float64
holds exactly in any order; so the same seed gives the same 16x16 pixels on every machine.
"""

import argparse
import io
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtime.atomic import read_bytes, writing
from runtime.dataset import iter_faces
from runtime.errors import EdgeError, needs, run_command
from runtime.image import LR_SIDE, shrink, write_image

HERE = Path(__file__).parent
STATISTICS = HERE / "statistics.npz"
PROBE_STRIP = HERE.parent / "export" / "probe_faces.png"
COMPONENTS = 128
STATISTICS_LIMIT_BYTES = 200_000
CALIBRATION_SEED, CALIBRATION_COUNT = 2026, 128
PROBE_SEED, PROBE_COUNT = 12, 12
# Command -> what it does, seed, count, where it writes.
SETS = {
    "faces": ("draw calibration faces, one PNG each", CALIBRATION_SEED, CALIBRATION_COUNT, HERE),
    "probes": ("draw the probe faces, one strip", PROBE_SEED, PROBE_COUNT, PROBE_STRIP),
    "faces-64": (
        "calibration faces of 64x64, degraded",
        CALIBRATION_SEED,
        CALIBRATION_COUNT,
        HERE / "64px",
    ),
    "probes-64": (
        "probe faces of 64x64, degraded",
        PROBE_SEED,
        PROBE_COUNT,
        PROBE_STRIP.with_name("probe_faces_64.png"),
    ),
}

FACE_SHAPE = (LR_SIDE, LR_SIDE, 3)
MEAN_FRACTION = 1 << 8  # the mean is stored in 1/256 of a gray level
STEP_FRACTION = 1 << 16  # a face is summed up in 1/65536 of a gray level


@dataclass(frozen=True)
class Statistics:
    """The mean and first eigenfaces of a set of 16x16 faces, as stored in statistics.npz."""

    mean: NDArray[np.uint16]  # (768,), 1/256 gray levels
    components: NDArray[np.int8]  # (K, 768), each a unit vector scaled until its peak is 127
    spread: NDArray[np.float32]  # (K,), gray levels that one standard deviation adds a unit of int8
    faces: int  # how many faces they were made from
    variance_kept: float  # share of the faces' variance that lies in the components

    def __post_init__(self) -> None:
        length = int(np.prod(FACE_SHAPE))
        count = len(self.components)
        shapes = (self.mean.shape, self.components.shape, self.spread.shape)
        dtypes = (self.mean.dtype, self.components.dtype, self.spread.dtype)
        if shapes != ((length,), (count, length), (count,)) or dtypes != ("u2", "i1", "f4"):
            raise EdgeError(
                f"statistics are {shapes} {dtypes}, expected those of calib_data/statistics.npz; "
                "make them again: python -m calib_data.generate statistics --data FACES.tar"
            )


def measure_statistics(faces: NDArray[np.uint8], components: int = COMPONENTS) -> Statistics:
    """Measure the statistics of 16x16 faces (N, 16, 16, 3).

    The sums are sums of integers below 2^53, hence exact in any order; what a machine's linear
    algebra could add (1e-9 of an eigenvector) is far below the rounding to int8.
    """
    rows = faces.reshape(len(faces), -1).astype(np.float64)
    count, total, products = len(rows), rows.sum(axis=0), rows.T @ rows
    covariance = (count * products - np.outer(total, total)) / (count * (count - 1))
    variances, vectors = np.linalg.eigh(covariance)  # ascending
    kept = variances[::-1][:components]
    units = vectors.T[::-1][:components]

    peaks = np.abs(units).argmax(axis=1)[:, None]
    heights = np.take_along_axis(units, peaks, axis=1)  # signed: the peak becomes +127
    return Statistics(
        mean=np.rint(total / count * MEAN_FRACTION).astype(np.uint16),
        components=np.rint(units / heights * 127).astype(np.int8),
        spread=(np.sqrt(kept) * np.abs(heights[:, 0]) / 127).astype(np.float32),
        faces=count,
        variance_kept=float(kept.sum() / variances.sum()),
    )


def draw_faces(statistics: Statistics, seed: int, count: int) -> NDArray[np.uint8]:
    """Draw synthetic faces, (count, 16, 16, 3)."""
    gaussian = np.random.Generator(np.random.PCG64(seed))
    normal = gaussian.standard_normal((count, len(statistics.spread)))
    steps = np.rint(normal * statistics.spread * STEP_FRACTION)
    mean = statistics.mean * float(STEP_FRACTION // MEAN_FRACTION)
    levels = (mean + steps @ statistics.components.astype(np.float64)) / STEP_FRACTION
    return np.rint(levels).clip(0, 255).astype(np.uint8).reshape(count, *FACE_SHAPE)


def read_statistics(path: Path = STATISTICS) -> Statistics:
    try:
        stored_bytes = io.BytesIO(read_bytes(path, STATISTICS_LIMIT_BYTES))
        with np.load(stored_bytes, allow_pickle=False) as stored:
            return Statistics(
                mean=stored["mean"],
                components=stored["components"],
                spread=stored["spread"],
                faces=int(stored["faces"]),
                variance_kept=float(stored["variance_kept"]),
            )
    except (EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise EdgeError(
            f"{path}: no face statistics ({error}); "
            "make them: python -m calib_data.generate statistics --data FACES.tar"
        ) from error


def write_statistics(path: Path, statistics: Statistics) -> None:
    with writing(path) as temporary, open(temporary, "wb") as file:
        np.savez(
            file,
            mean=statistics.mean,
            components=statistics.components,
            spread=statistics.spread,
            faces=np.int64(statistics.faces),
            variance_kept=np.float64(statistics.variance_kept),
        )


def shrink_faces(sources: Sequence[str | Path]) -> NDArray[np.uint8]:
    """The 16x16 versions of all faces in tars or folders, (N, 16, 16, 3)."""
    faces = [shrink(face.pixels) for face in iter_faces(sources)]
    if len(faces) < 2 * COMPONENTS:
        raise EdgeError(f"{len(faces)} faces are too few for {COMPONENTS} components; add --data")
    return np.stack(faces)


def strip(faces: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Put faces (N, S, S, 3) side by side, (S, S N, 3)."""
    return np.concatenate(list(faces), axis=1)


def unstrip(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The faces of a strip (S, S N, 3), (N, S, S, 3)."""
    return np.stack(np.split(pixels, pixels.shape[1] // pixels.shape[0], axis=1))


def write_faces(folder: Path, faces: NDArray[np.uint8]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, pixels in enumerate(faces):
        write_image(folder / f"face-{number:03}.png", pixels)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m calib_data.generate", description="Generate synthetic faces."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    statistics = commands.add_parser("statistics", help="measure a set of faces")
    statistics.add_argument("--data", nargs="+", required=True, metavar="TAR_OR_DIR")
    statistics.add_argument("--out", type=Path, default=STATISTICS)
    for name, (what, seed, count, out) in SETS.items():
        command = commands.add_parser(name, help=what)
        command.add_argument("--seed", type=int, default=seed, help=f"default: {seed}")
        command.add_argument("--count", type=int, default=count, help=f"default: {count}")
        command.add_argument("--out", type=Path, default=out, help=f"default: {_shown(out)}")
    return parser


def _shown(path: Path) -> Path:
    """The path as it is named from the project's root."""
    return path.relative_to(HERE.parent)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(options: argparse.Namespace) -> int:
    if options.command == "statistics":
        statistics = measure_statistics(shrink_faces(options.data))
        write_statistics(options.out, statistics)
        kept = f"{100 * statistics.variance_kept:.1f} %"
        print(f"{options.out}: {statistics.faces} faces, {COMPONENTS} components, {kept} kept")
        return 0
    faces = draw_faces(read_statistics(), options.seed, options.count)
    if options.command.endswith("-64"):
        with needs("train"):
            from calib_data.degraded import degrade_faces
        faces = degrade_faces(faces, options.seed)
    if options.command.startswith("faces"):
        write_faces(options.out, faces)
    else:
        write_image(options.out, strip(faces))
    print(f"{options.out}: {options.count} synthetic faces, seed {options.seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
