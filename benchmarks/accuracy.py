"""How close enlarged faces come to the originals, in a table.

    python -m benchmarks.accuracy --data TAR_OR_DIR... [--artifact F...] [--checkpoint F...]

Every 128x128 face of a data set is shrunk to 16x16 with Pillow's bicubic filter, enlarged, rounded
to uint8 and compared with the original; bicubic is always in the table, as the baseline.

PSNR-Y and SSIM-Y are taken on luma (16 to 235, peak 255), SSIM with a Gaussian window (sigma 1.5),
PSNR-RGB over the three channels. Each figure is the mean of the faces' own.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from skimage.metrics import structural_similarity

from runtime.errors import run_command
from runtime.faces import load_faces
from runtime.image import Pixels, enlarge_bicubic, luma, psnr, psnr_y, shrink, to_pixels, to_tensor
from runtime.session import open_session

BATCH = 16  # faces at a time; the figures do not depend on it

Enlarge = Callable[[Pixels], Pixels]  # (N, 16, 16, 3) -> (N, 128, 128, 3)


@dataclass(frozen=True)
class Contender:
    """Something that enlarges faces, and the name and backend that its rows go by."""

    artifact: str
    backend: str
    enlarge: Enlarge


@dataclass(frozen=True)
class Row:
    """How one contender did on one data set of `n` faces; in dB, SSIM up to 1."""

    artifact: str
    backend: str
    data: str
    n: int
    psnr_y: float
    ssim_y: float
    psnr_rgb: float


@dataclass(frozen=True)
class Accuracy:
    rows: tuple[Row, ...]


BICUBIC = Contender("bicubic", "pillow", lambda lr: np.stack([enlarge_bicubic(x) for x in lr]))


def accuracy(
    data: Sequence[str | Path],
    artifacts: Sequence[str | Path | None] = (),
    checkpoints: Sequence[str | Path] = (),
) -> Accuracy:
    """Compare bicubic, artifacts and PyTorch checkpoints on each data set.

    An artifact that is None stands for the one that `runtime.infer` takes by itself.
    """
    sets = {source: load_faces([source]) for source in data}
    rows = [compare(BICUBIC, str(source), hr) for source, hr in sets.items()]
    for artifact in artifacts:
        with artifact_contender(artifact) as contender:
            rows += [compare(contender, str(source), hr) for source, hr in sets.items()]
    for checkpoint in checkpoints:
        contender = checkpoint_contender(checkpoint)
        rows += [compare(contender, str(source), hr) for source, hr in sets.items()]
    return Accuracy(tuple(rows))


def compare(contender: Contender, data: str, hr: Pixels) -> Row:
    """Shrink the faces hr (N, 128, 128, 3), enlarge them again and measure what was lost."""
    lr = np.stack([shrink(face) for face in hr])
    sr = np.concatenate(
        [contender.enlarge(lr[start : start + BATCH]) for start in range(0, len(lr), BATCH)]
    )
    pairs = list(zip(sr, hr, strict=True))
    return Row(
        artifact=contender.artifact,
        backend=contender.backend,
        data=Path(data).stem,
        n=len(hr),
        psnr_y=float(np.mean([psnr_y(a, b) for a, b in pairs])),
        ssim_y=float(np.mean([ssim_y(a, b) for a, b in pairs])),
        psnr_rgb=float(np.mean([psnr(a, b) for a, b in pairs])),
    )


def ssim_y(a: Pixels, b: Pixels) -> float:
    """Structural similarity (Wang et al. 2004) of the luma of two pictures (H, W, 3)."""
    return float(
        structural_similarity(
            luma(a),
            luma(b),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
        )
    )


@contextmanager
def artifact_contender(artifact: str | Path | None) -> Iterator[Contender]:
    with open_session(artifact) as session:
        name = f"{session.manifest.model} {session.artifact.stem}"
        yield Contender(name, session.backend, lambda lr: to_pixels(session.run(to_tensor(lr))))


def checkpoint_contender(path: str | Path) -> Contender:
    """A checkpoint in PyTorch, which only this needs."""
    import torch

    from aminet.checkpoint import load_model

    model, checkpoint = load_model(checkpoint=path)

    def enlarge(lr: Pixels) -> Pixels:
        with torch.inference_mode():
            return to_pixels(model(torch.from_numpy(to_tensor(lr))).numpy())

    return Contender(f"{checkpoint.model} {Path(path).stem}", "torch", enlarge)


def table(rows: Sequence[Row]) -> str:
    width = max(len(row.artifact) for row in rows)
    lines = [f"{'data':20} {'artifact':{width}} {'backend':12} faces  PSNR-Y SSIM-Y PSNR-RGB"]
    for row in sorted(rows, key=lambda row: [r.data for r in rows].index(row.data)):
        figures = f"{row.n:5} {row.psnr_y:7.2f} {row.ssim_y:6.3f} {row.psnr_rgb:8.2f}"
        lines.append(f"{row.data:20} {row.artifact:{width}} {row.backend:12} {figures}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.accuracy", description=__doc__.split("\n")[0])
    parser.add_argument("--data", nargs="+", required=True, metavar="TAR_OR_DIR")
    parser.add_argument("--artifact", nargs="+", default=[], metavar="F")
    parser.add_argument("--checkpoint", nargs="+", default=[], metavar="F")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    named = options.artifact or options.checkpoint
    result = accuracy(options.data, options.artifact if named else [None], options.checkpoint)
    print(json.dumps(asdict(result)) if options.json else table(result.rows))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
