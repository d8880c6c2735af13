"""How close enlarged faces come to the originals, in a table.

    python -m benchmarks.accuracy --data TAR_OR_DIR... [--artifact F...] [--checkpoint F...]
    python -m benchmarks.accuracy --identity PROBE_DIR GALLERY_DIR [--artifact F...]

Every 128x128 face of a data set is shrunk to 16x16 with Pillow's bicubic filter, enlarged, rounded
to uint8 and compared with the original; bicubic is always in the table, as the baseline.

psnr_y, ssim_y   on luma (16 to 235, peak 255), SSIM with a Gaussian window (sigma 1.5)
gain             PSNR-Y over bicubic's, face by face
psnr_rgb, vif    over the three channels
lpips            AlexNet's, lower is better
kid_mobilenetv2  the set of faces against the originals' set, on MobileNetV2, lower is better
identity         cosine similarity of dlib's face embeddings

Each figure but KID is the mean of the faces' own, with a 95 % bootstrap interval in the JSON. The
last three need `python -m benchmarks.fetch` once.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtime.errors import EXIT_MISSING, EXIT_USAGE, EdgeError, needs, run_command

with needs("train,eval", __name__):
    from benchmarks.metrics.recognition import Recognition, read_people, recognize
    from benchmarks.metrics.ssim_vif import interval, ssim_y, vif
    from benchmarks.metrics.upscalers import (
        BICUBIC,
        Contender,
        artifact_contender,
        bicubic_contender,
        checkpoint_contender,
    )

from runtime.dataset import load_faces
from runtime.image import Pixels, psnr, psnr_y, shrink

BASIC = ("psnr_y", "ssim_y", "psnr_rgb")  # a row always has them
FORMATS = {  # of the table's columns
    **{"psnr_y": "{:.2f}", "gain": "{:+.2f}", "ssim_y": "{:.3f}", "psnr_rgb": "{:.2f}"},
    **{"vif": "{:.3f}", "lpips": "{:.3f}", "kid_mobilenetv2": "{:.4f}", "identity": "{:.3f}"},
}
METRICS = tuple(name for name in FORMATS if name != "gain")  # which comes with psnr_y
OF_A_SET = "kid_mobilenetv2"  # of one face there is none

Scores = NDArray[np.float64]
Metric = Callable[[Pixels, Pixels], Scores]  # (sr, hr) -> a figure a face; KID: one for the set
Say = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """How one contender did on one data set of `n` faces; None: not measured."""

    artifact: str
    backend: str
    data: str
    n: int
    psnr_y: float
    ssim_y: float
    psnr_rgb: float
    gain: float | None = None
    vif: float | None = None
    lpips: float | None = None
    kid_mobilenetv2: float | None = None
    identity: float | None = None
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Accuracy:
    rows: tuple[Row, ...]


def accuracy(
    data: Sequence[str | Path],
    artifacts: Sequence[str | Path | None] = (),
    checkpoints: Sequence[str | Path] = (),
    metrics: Sequence[str] = BASIC,
    say: Say = lambda line: None,
) -> Accuracy:
    """Compare bicubic, artifacts and PyTorch checkpoints on each data set.

    An artifact that is None stands for the one that `runtime.infer` takes by itself. `say` hears
    which metrics are left out since their networks were not fetched.
    """
    measured = load_metrics(metrics, say)
    sets = {source: load_faces([source]) for source in data}
    rows = []
    for opening in contenders(artifacts, checkpoints):
        with opening as contender:
            rows += [compare(contender, str(source), hr, measured) for source, hr in sets.items()]
    return Accuracy(tuple(rows))


def recognition(
    probe_folder: str | Path,
    gallery_folder: str | Path,
    artifacts: Sequence[str | Path | None] = (),
    checkpoints: Sequence[str | Path] = (),
) -> tuple[Recognition, ...]:
    """Table VIII: enlarged low-quality faces against good photos of the same people."""
    from benchmarks.metrics.identity import FaceEmbedding

    embed = FaceEmbedding.load()
    probes = read_people(Path(probe_folder), probes=True)
    photos = read_people(Path(gallery_folder), probes=False)
    rows = []
    for opening in contenders(artifacts, checkpoints):
        with opening as contender:
            rows.append(recognize(contender, probes, photos, embed))
    return tuple(rows)


def contenders(
    artifacts: Sequence[str | Path | None], checkpoints: Sequence[str | Path]
) -> Iterator[AbstractContextManager[Contender]]:
    """Bicubic, then those named; each is opened when its turn comes."""
    yield bicubic_contender()
    for artifact in artifacts:
        yield artifact_contender(artifact)
    for checkpoint in checkpoints:
        yield checkpoint_contender(checkpoint)


def load_metrics(names: Sequence[str], say: Say) -> dict[str, Metric]:
    """The basic metrics and the named ones; those whose network is not there are left out."""
    if unknown := [name for name in names if name not in METRICS]:
        raise EdgeError(f"{unknown[0]}: no metric, expected {', '.join(METRICS)}", EXIT_USAGE)
    found: dict[str, Metric] = {}
    for name in METRICS:
        if name in names or name in BASIC:
            try:
                found[name] = _metric(name)
            except EdgeError as error:
                if error.status != EXIT_MISSING:
                    raise
                say(f"{name} is left out: {error}")
    return found


def _metric(name: str) -> Metric:
    """Networks are loaded, and torch imported, only for the metrics that need them."""
    if name == "lpips":
        from benchmarks.metrics.lpips import LPIPS

        return LPIPS.load()
    if name == OF_A_SET:
        from benchmarks.metrics.kid import MobileNetV2, kid

        features = MobileNetV2.load()
        return lambda sr, hr: np.array([kid(features(hr), features(sr))])
    if name == "identity":
        from benchmarks.metrics.identity import FaceEmbedding, cosine

        embed = FaceEmbedding.load()
        return lambda sr, hr: cosine(embed(sr), embed(hr))
    single = {"psnr_y": psnr_y, "ssim_y": ssim_y, "psnr_rgb": psnr, "vif": vif}[name]
    return lambda sr, hr: np.array([single(a, b) for a, b in zip(sr, hr, strict=True)])


def compare(contender: Contender, data: str, hr: Pixels, metrics: dict[str, Metric]) -> Row:
    """Shrink the faces hr (N, 128, 128, 3), enlarge them again and measure what was lost."""
    lr = np.stack([shrink(face) for face in hr])
    sr = contender.enlarge_all(lr)
    fit = [name for name in metrics if name != OF_A_SET or len(hr) > 1]
    scores = {name: metrics[name](sr, hr) for name in fit}
    scores["gain"] = scores["psnr_y"] - metrics["psnr_y"](BICUBIC.enlarge_all(lr), hr)
    return Row(
        contender.artifact,
        contender.backend,
        Path(data).stem,
        len(hr),
        **{name: float(np.mean(score)) for name, score in scores.items()},
        intervals={name: interval(s) for name, s in scores.items() if len(s) == len(hr) > 1},
    )


def over_bicubic(row: Row) -> str:
    """The gain, and where its mean lies with 95 % certainty: `+2.91 (2.67 to 3.15)`."""
    if row.gain is None:
        return ""
    mean = FORMATS["gain"].format(row.gain)
    low, high = row.intervals.get("gain", (row.gain, row.gain))
    return mean if low == high else f"{mean} ({low:.2f} to {high:.2f})"


def table(rows: Sequence[Row]) -> str:
    """Markdown: a line for each contender on each data set, a column for each metric measured."""
    names = [name for name in FORMATS if any(getattr(row, name) is not None for row in rows)]
    lines = [f"| data | artifact | backend | faces | {' | '.join(names)} |"]
    lines.append("| --- | --- | --- |" + " ---: |" * (1 + len(names)))
    for row in sorted(rows, key=lambda row: [r.data for r in rows].index(row.data)):
        values = [getattr(row, name) for name in names]
        cells = [
            "" if v is None else FORMATS[n].format(v) for n, v in zip(names, values, strict=True)
        ]
        cells = [row.data, row.artifact, row.backend, str(row.n), *cells]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def recognition_table(rows: Sequence[Recognition]) -> str:
    lines = ["| artifact | backend | probes | photos | people | cosine similarity | rank-1 |"]
    lines.append("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for row in rows:
        cosine = f"{row.cosine:.3f} ({row.cosine_interval[0]:.3f}-{row.cosine_interval[1]:.3f})"
        cells = (row.artifact, row.backend, row.probes, row.photos, row.people, cosine)
        lines.append(f"| {' | '.join(map(str, cells))} | {100 * row.rank_1:.1f} % |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    options = _parse(argv)
    named = options.artifact or options.checkpoint
    artifacts = options.artifact if named else [None]
    if options.identity:
        probes, photos = options.identity
        found = recognition(probes, photos, artifacts, options.checkpoint)
        as_json = {"recognition": [asdict(row) for row in found]}
        print(json.dumps(as_json) if options.json else recognition_table(found))
        return 0
    metrics = options.metrics or METRICS
    result = accuracy(
        options.data,
        artifacts,
        options.checkpoint,
        metrics,
        lambda line: print(line, file=sys.stderr),
    )
    print(json.dumps(asdict(result)) if options.json else table(result.rows))
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.accuracy", description=__doc__.split("\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", nargs="+", metavar="TAR_OR_DIR", help="128x128 originals")
    what.add_argument("--identity", nargs=2, metavar=("PROBE_DIR", "GALLERY_DIR"))
    parser.add_argument("--artifact", nargs="+", default=[], metavar="F")
    parser.add_argument("--checkpoint", nargs="+", default=[], metavar="F")
    parser.add_argument("--metrics", nargs="+", default=[], metavar="M", help=", ".join(METRICS))
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(run_command(main))
