"""Flicker: how much a face trembles in time when every frame of a video is upscaled by itself.

    python -m benchmarks.studies.flicker --data celeba-test.tar --checkpoint F... [--faces 8]

Each face drifts by fractions of a pixel through a few frames. Each frame is degraded anew (the
kinds of benchmarks.wild), upscaled as photo mode does, and shifted back. Flicker is the deviation
of the luma over the frames, in levels, mean over the pixels and faces. Beside the checkpoints stand
bicubic upscaling and the clean faces, of which the resampling alone is measured.
"""

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product

import numpy as np

from benchmarks.harness.study import report, study_parser
from benchmarks.harness.table import markdown_table, text_table
from runtime.errors import needs, run_command
from runtime.image import SR_SIDE, Pixels, luma
from runtime.progress import Progress, Steps, silent

KINDS = ("clean", "camera", "dark")
SIZES = (16, 24, 32, 48)  # px of the frame
FACES, FRAMES = 8, 12
DRIFT = 3.0  # px of the 128x128 face, each way
BORDER = 8  # px left out on each side: what drifts in is not known

Upscale = Callable[[Sequence[Pixels]], list[Pixels]]  # frames (S, S, 3) -> faces (128, 128, 3)


@dataclass(frozen=True)
class FlickerRow:
    """Flicker of one upscaler on the faces of a kind and frame size, in levels of luma."""

    kind: str
    size: int
    upscaler: str
    flicker: float


@dataclass(frozen=True)
class Flicker:
    faces: int
    frames: int
    rows: tuple[FlickerRow, ...]


def measure_flicker(
    data: Sequence[str],
    checkpoints: Sequence[str],
    faces: int = FACES,
    frames: int = FRAMES,
    progress: Progress = silent,
) -> Flicker:
    """Measure the clean faces, bicubic upscaling and each checkpoint."""
    from runtime.dataset import load_faces

    hr = list(load_faces(data, limit=faces))
    rows = []
    for kind, size in product(KINDS, SIZES):
        progress(f"{kind}, {size} px")
        videos = [_video(face, kind, size, frames, seed) for seed, face in enumerate(hr)]
        still = [flicker([clean for _, clean in video]) for video in videos]
        rows.append(FlickerRow(kind, size, "clean faces", _mean(still)))
        for name, upscale in _upscalers(checkpoints):
            trembling = [flicker(upscale([seen for seen, _ in video])) for video in videos]
            rows.append(FlickerRow(kind, size, name, _mean(trembling)))
    return Flicker(len(hr), frames, tuple(rows))


def drift(frames: int) -> Iterator[tuple[float, float]]:
    """Where the face is in each frame, px: a slow ellipse."""
    for place in range(frames):
        angle = 2 * math.pi * place / frames
        yield DRIFT * math.cos(angle), DRIFT / 2 * math.sin(angle)


def flicker(faces: Sequence[Pixels]) -> float:
    """Deviation over the frames of the faces (128, 128, 3), shifted back, in levels of luma."""
    from aminet.training.degradation import turn

    back = [
        luma(turn(face, 0, shift=(-x, -y)))[BORDER:-BORDER, BORDER:-BORDER]
        for face, (x, y) in zip(faces, drift(len(faces)), strict=True)
    ]
    return float(np.std(back, axis=0).mean())


def _video(
    face: Pixels, kind: str, size: int, frames: int, seed: int
) -> list[tuple[Pixels, Pixels]]:
    """Of each frame what the camera saw (S, S, 3), and the clean face there."""
    from aminet.training.degradation import KINDS as RECIPES
    from aminet.training.degradation import photograph, relight, turn
    from aminet.training.wild_validation import fixed_size

    recipe = fixed_size(RECIPES[kind], size)
    camera, shown = recipe.cameras[0][1], []
    for place, shift in enumerate(drift(frames)):
        moved = relight(turn(face, 0, shift=shift), recipe.light, np.random.default_rng(seed))
        shown.append((photograph(moved, camera, _rng(seed, place)), moved))
    return shown


def _rng(seed: int, place: int) -> np.random.Generator:
    return np.random.default_rng([seed, place])


def _upscalers(checkpoints: Sequence[str]) -> Iterator[tuple[str, Upscale]]:
    from aminet.training.degradation import resample
    from benchmarks.metrics.upscalers import checkpoint_upscaler
    from runtime.media.photo import keep_what_is_known, trust

    yield "bicubic", lambda seen: [resample(frame, SR_SIDE) for frame in seen]
    for path in checkpoints:
        with checkpoint_upscaler(path) as upscaler:

            def upscale(seen: Sequence[Pixels]) -> list[Pixels]:
                side = upscaler.lr_side
                lr = np.stack([resample(frame, side) for frame in seen])
                pairs = zip(upscaler.upscale_all(lr), seen, strict=True)
                return [keep_what_is_known(sr, s, trust(sr, s, side)) for sr, s in pairs]

            yield upscaler.artifact, upscale


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 3)


def table(result: Flicker) -> str:
    title = f"levels of luma, {result.faces} faces of {result.frames} frames"
    return f"{title}\n{text_table(*_cells(result))}"


def flicker_table(result: Flicker) -> str:
    """The same as Markdown."""
    return markdown_table(*_cells(result))


def _cells(result: Flicker) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    names = list(dict.fromkeys(row.upscaler for row in result.rows))
    found = {(row.kind, row.size, row.upscaler): row.flicker for row in result.rows}
    lines = [
        (kind, f"{size} px", *(f"{found[kind, size, name]:.2f}" for name in names))
        for kind, size in dict.fromkeys((row.kind, row.size) for row in result.rows)
    ]
    return ("kind", "frame", *names), lines


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(given: argparse.Namespace) -> int:
    with needs("train"), Steps() as progress:
        result = measure_flicker(given.data, given.checkpoint, given.faces, given.frames, progress)
    return report(given, asdict(result), table(result))


def _parser() -> argparse.ArgumentParser:
    parser = study_parser("flicker", __doc__)
    add = parser.add_argument
    add("--data", nargs="+", required=True, metavar="TAR_OR_DIR", help="128x128 faces (required)")
    add("--checkpoint", nargs="+", default=[], metavar="F", help="weights (default: bicubic alone)")
    add("--faces", type=int, default=FACES, help=f"so many at most (default: {FACES})")
    add("--frames", type=int, default=FRAMES, help=f"of each video (default: {FRAMES})")
    return parser


if __name__ == "__main__":
    sys.exit(main())
