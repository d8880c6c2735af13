"""Quality of upscaled faces: every metric of every upscaler on every data set.

psnr_y, ssim_y   on luma (16 to 235, peak 255), SSIM with a Gaussian window (sigma 1.5)
gain             PSNR-Y over bicubic's, face by face
psnr_rgb, vif    over the three channels
lpips            AlexNet's, lower is better
kid_mobilenetv2  the set of faces against the originals' set, on MobileNetV2, lower is better
identity         cosine similarity of dlib's face embeddings

Each score but KID is the mean over the faces, with a 95 % bootstrap interval. The last three need
`python -m benchmarks.fetch` once.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.table import markdown_table
from benchmarks.metrics.recognition import RecognitionRow, read_people, recognize
from benchmarks.metrics.ssim_vif import interval, ssim_y, vif
from benchmarks.metrics.upscalers import (
    BICUBIC,
    Upscaler,
    artifact_upscaler,
    bicubic_upscaler,
    checkpoint_upscaler,
)
from runtime.dataset import load_faces
from runtime.errors import EXIT_MISSING, EXIT_USAGE, EdgeError
from runtime.image import Pixels, psnr, psnr_y, shrink
from runtime.progress import silent

BASIC = ("psnr_y", "ssim_y", "psnr_rgb")  # a row always has them
FORMATS = {  # of the table's columns
    **{"psnr_y": "{:.2f}", "gain": "{:+.2f}", "ssim_y": "{:.3f}", "psnr_rgb": "{:.2f}"},
    **{"vif": "{:.3f}", "lpips": "{:.3f}", "kid_mobilenetv2": "{:.4f}", "identity": "{:.3f}"},
}
METRICS = tuple(name for name in FORMATS if name != "gain")  # which comes with psnr_y
OF_A_SET = "kid_mobilenetv2"  # of one face there is none

Scores = NDArray[np.float64]
Metric = Callable[[Pixels, Pixels], Scores]  # (sr, hr) -> one score a face; KID: one for the set
Note = Callable[[str], None]


@dataclass(frozen=True)
class QualityRow:
    """The quality of one upscaler on one data set of `n` faces; None: not measured."""

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
class Quality:
    rows: tuple[QualityRow, ...]


def measure_quality(
    data: Sequence[str | Path],
    artifacts: Sequence[str | Path | None] = (),
    checkpoints: Sequence[str | Path] = (),
    metrics: Sequence[str] = BASIC,
    note: Note = silent,
) -> Quality:
    """Compare bicubic, artifacts and PyTorch checkpoints on each data set.

    An artifact that is None stands for the one that `runtime.infer` chooses. `note` gets a line for
    each metric that is left out because its network was not fetched.
    """
    measured = load_metrics(metrics, note)
    sets = {source: load_faces([source]) for source in data}
    rows = []
    for opening in upscalers(artifacts, checkpoints):
        with opening as upscaler:
            rows += [compare(upscaler, str(source), hr, measured) for source, hr in sets.items()]
    return Quality(tuple(rows))


def recognition(
    probe_folder: str | Path,
    gallery_folder: str | Path,
    artifacts: Sequence[str | Path | None] = (),
    checkpoints: Sequence[str | Path] = (),
) -> tuple[RecognitionRow, ...]:
    """Compare super-resolved low-quality faces with photos of the same people (Table VIII)."""
    from benchmarks.metrics.identity import FaceEmbedding

    embed = FaceEmbedding.load()
    probes = read_people(Path(probe_folder), probes=True)
    photos = read_people(Path(gallery_folder), probes=False)
    rows = []
    for opening in upscalers(artifacts, checkpoints):
        with opening as upscaler:
            rows.append(recognize(upscaler, probes, photos, embed))
    return tuple(rows)


def upscalers(
    artifacts: Sequence[str | Path | None], checkpoints: Sequence[str | Path]
) -> Iterator[AbstractContextManager[Upscaler]]:
    """Yield bicubic, then those named; each is opened only when it is measured."""
    yield bicubic_upscaler()
    for artifact in artifacts:
        yield artifact_upscaler(artifact)
    for checkpoint in checkpoints:
        yield checkpoint_upscaler(checkpoint)


def load_metrics(names: Sequence[str], note: Note) -> dict[str, Metric]:
    """Load the basic and the named metrics; those whose network was not fetched are left out."""
    if unknown := [name for name in names if name not in METRICS]:
        raise EdgeError(f"{unknown[0]}: unknown metric, expected {', '.join(METRICS)}", EXIT_USAGE)
    found: dict[str, Metric] = {}
    for name in METRICS:
        if name in names or name in BASIC:
            try:
                found[name] = _metric(name)
            except EdgeError as error:
                if error.status != EXIT_MISSING:
                    raise
                note(f"{name} is left out: {error}")
    return found


def _metric(name: str) -> Metric:
    """Networks are loaded, and torch imported, only for the metrics that need them."""
    if name == "lpips":
        from aminet.training.lpips import LPIPS

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


def compare(upscaler: Upscaler, data: str, hr: Pixels, metrics: dict[str, Metric]) -> QualityRow:
    """Shrink the faces hr (N, 128, 128, 3) to the upscaler's input, upscale them and compare."""
    lr = np.stack([shrink(face, upscaler.lr_side) for face in hr])
    sr = upscaler.upscale_all(lr)
    fit = [name for name in metrics if name != OF_A_SET or len(hr) > 1]
    scores = {name: metrics[name](sr, hr) for name in fit}
    scores["gain"] = scores["psnr_y"] - metrics["psnr_y"](BICUBIC.upscale_all(lr), hr)
    return QualityRow(
        upscaler.artifact,
        upscaler.backend,
        Path(data).stem,
        len(hr),
        **{name: float(np.mean(score)) for name, score in scores.items()},
        intervals={name: interval(s) for name, s in scores.items() if len(s) == len(hr) > 1},
    )


def over_bicubic(row: QualityRow) -> str:
    """Format the gain and the 95 % interval of its mean: `+2.91 (2.67 to 3.15)`."""
    if row.gain is None:
        return ""
    mean = FORMATS["gain"].format(row.gain)
    low, high = row.intervals.get("gain", (row.gain, row.gain))
    return mean if low == high else f"{mean} ({low:.2f} to {high:.2f})"


def quality_table(rows: Sequence[QualityRow]) -> str:
    """Markdown, one line a data set: the network, bicubic, and the gain over it."""
    bicubic = {row.data: row for row in rows if row.artifact == "bicubic"}
    lines = [
        (
            *(row.data, str(row.n), f"**{row.psnr_y:.2f}**", f"{bicubic[row.data].psnr_y:.2f}"),
            *(over_bicubic(row), f"{row.ssim_y:.3f}", f"{bicubic[row.data].ssim_y:.3f}"),
        )
        for row in rows
        if row.artifact != "bicubic"
    ]
    columns = ("data", "faces", "PSNR-Y dB", "bicubic", "gain (95 %)", "SSIM-Y", "bicubic")
    return markdown_table(columns, lines)
