"""Quality on degraded faces of 12 to 64 px: clean, from a camera, in the dark.

    python -m benchmarks.wild --data celeba-test.tar lfw-test.tar helen-test.tar

Every 128x128 face is shrunk to a frame of each size and degraded as each kind says (fixed seeds):

clean    bicubic shrinking alone
camera   a slight blur, noise of 2 to 8 levels, JPEG of quality 50 to 93
dark     two stops under, noise of 1 to 4 levels after the darkening, JPEG

The ground truth is the clean face under the same light. A network with 64-px input sees the frame
resampled to 64x64; a 16-px network sees it at 16x16, and its face is then corrected by
back-projection. Photo mode does that to 64-px networks too, as far as it trusts the frame:
--photo-mode measures it. Figures are means of the faces' own. `gain` is PSNR-Y over
bicubic upscaling of the same frame, with a 95 % bootstrap interval in the JSON; --turn measures
faces that are turned by some degrees after alignment.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aminet.training.degradation import KINDS, turn
from benchmarks.harness.table import markdown_table
from runtime.atomic import write_bytes
from runtime.dataset import load_faces
from runtime.errors import EXIT_USAGE, EdgeError, needs, run_command
from runtime.progress import Progress, Steps, silent

if TYPE_CHECKING:
    from aminet.training.wild_validation import WildCell
    from benchmarks.metrics.quality import Metric
    from benchmarks.metrics.wild_upscalers import FrameUpscaler

SIZES = (12, 16, 20, 24, 32, 40, 48, 64)  # px of the frame
METRICS = ("ssim_y", "lpips", "identity")  # beside PSNR-Y and its gain
FLOORS = {  # dB over bicubic on celeba-test, asked of aminet-real
    **{("clean", 16): 2.9, ("clean", 24): 2.6, ("clean", 32): 2.2, ("clean", 48): 1.3},
    **{("camera", 16): 1.8, ("camera", 24): 2.0, ("camera", 32): 2.0, ("camera", 48): 1.8},
    **{("dark", size): 1.2 for size in (16, 24, 32, 48)},
}
AIMS = {
    **{("clean", 16): 3.4, ("clean", 24): 3.1, ("clean", 32): 2.7, ("clean", 48): 1.8},
    **{("camera", 16): 2.3, ("camera", 24): 2.8, ("camera", 32): 2.8, ("camera", 48): 2.6},
    **{("dark", size): 2.0 for size in (16, 24, 32, 48)},
}
FORMATS = {
    **{"psnr_y": "{:.2f}", "gain": "{:+.2f}", "ssim_y": "{:.3f}"},
    **{"lpips": "{:.3f}", "identity": "{:.3f}"},
}
TITLES = {
    **{"psnr_y": "PSNR-Y, dB", "gain": "PSNR-Y over bicubic, dB", "ssim_y": "SSIM-Y"},
    **{"lpips": "LPIPS (lower is better)", "identity": "Identity (cosine similarity)"},
}


@dataclass(frozen=True)
class WildRow:
    """One upscaler on the frames of one size and kind; None: not measured."""

    data: str
    kind: str
    size: int
    upscaler: str
    backend: str
    n: int
    psnr_y: float
    gain: float
    gain_interval: tuple[float, float]
    worse: float  # share of the faces that bicubic upscaling serves better
    ssim_y: float | None = None
    lpips: float | None = None
    identity: float | None = None


@dataclass(frozen=True)
class Wild:
    """All rows of one run, and what they were made with."""

    seed: int
    turn: float  # degrees, to either side in turn
    rows: tuple[WildRow, ...]


def wild(
    data: Sequence[str | Path],
    upscalers: Sequence["FrameUpscaler"],
    *,
    sizes: Sequence[int] | None = None,
    kinds: Sequence[str] = tuple(KINDS),
    faces: int | None = None,
    turned: float = 0.0,
    metrics: Sequence[str] = (),
    seed: int = 0,
    progress: Progress = silent,
) -> Wild:
    """Measure each upscaler in every cell of data set, kind and size, on up to `faces` faces."""
    from aminet.training.wild_validation import WildCell
    from benchmarks.metrics.quality import load_metrics

    measured = {name: metric for name, metric in load_metrics(metrics, progress).items()}
    measured = {name: metric for name, metric in measured.items() if name in metrics}
    rows = []
    for source in data:
        hr = list(load_faces([source], limit=faces))
        if turned:
            hr = [turn(face, turned * (-1) ** place) for place, face in enumerate(hr)]
        for kind in kinds:
            for size in sizes or SIZES:
                progress(f"{Path(source).stem}, {kind}, {size} px")
                cell = WildCell.make(kind, size, hr, seed)
                rows += [compare(cell, Path(source).stem, one, measured) for one in upscalers]
    return Wild(seed, turned, tuple(rows))


def compare(
    cell: "WildCell", data: str, upscaler: "FrameUpscaler", metrics: dict[str, "Metric"]
) -> WildRow:
    """Upscale the frames of a cell and measure them against the clean faces."""
    from benchmarks.metrics.ssim_vif import interval

    sr, hr = upscaler.upscale_all(cell.frames), np.stack(cell.hr)
    psnr_y = cell.psnr_y(list(sr))
    gain = psnr_y - cell.bicubic
    return WildRow(
        data,
        cell.kind,
        cell.size,
        upscaler.name,
        upscaler.backend,
        len(sr),
        float(psnr_y.mean()),
        float(gain.mean()),
        interval(gain),
        float((gain < 0).mean()),
        **{name: float(np.mean(metric(sr, hr))) for name, metric in metrics.items()},
    )


def table(rows: Sequence[WildRow], metrics: Sequence[str] = tuple(FORMATS)) -> str:
    """Markdown: a table for each data set and metric measured, kinds and sizes across."""
    parts = []
    for data in dict.fromkeys(row.data for row in rows):
        here = [row for row in rows if row.data == data]
        for metric in metrics:
            if all(getattr(row, metric) is not None for row in here):
                grid = _grid(here, metric, FORMATS[metric])
                parts.append(f"{TITLES[metric]}, {data}, {here[0].n} faces:\n\n{grid}")
    return "\n\n".join(parts)


def gain_table(rows: Sequence[WildRow]) -> str:
    """Markdown: PSNR-Y over bicubic alone, a table for each data set."""
    return table(rows, ["gain"])


def _grid(rows: Sequence[WildRow], metric: str, form: str) -> str:
    sizes = list(dict.fromkeys(row.size for row in rows))
    lines = ["| kind | upscaler | " + " | ".join(f"{size} px" for size in sizes) + " |"]
    lines.append("| --- | --- |" + " ---: |" * len(sizes))
    found = {(row.kind, row.upscaler, row.size): getattr(row, metric) for row in rows}
    for kind, name in dict.fromkeys((row.kind, row.upscaler) for row in rows):
        if metric == "gain" and name == "bicubic":
            continue
        cells = " | ".join(form.format(found[kind, name, size]) for size in sizes)
        lines.append(f"| {kind} | {name} | {cells} |")
    return "\n".join(lines)


def asked_table(rows: Sequence[WildRow]) -> str:
    """Markdown: the gain asked of aminet-real on celeba-test (FLOORS, AIMS) beside the measured.

    The network alone and, where it was measured, with photo mode's back-projection.
    """
    found = {
        (row.upscaler.removeprefix("aminet-real"), row.kind, row.size): f"{row.gain:+.2f}"
        for row in rows
        if row.data == "celeba-test" and row.backend == "torch"
    }
    known = {"": "network", " + back-projection": "in photo mode"}
    measured = {after for after, _, _ in found}
    columns = {after: title for after, title in known.items() if after in measured}
    lines = [
        (
            *(f"{kind} {size} px", f"{floor:+.1f}", f"{AIMS[kind, size]:+.1f}"),
            *(found.get((after, kind, size), "") for after in columns),
        )
        for (kind, size), floor in FLOORS.items()
        if ("", kind, size) in found
    ]
    return markdown_table(("celeba-test, over bicubic", "floor", "aim", *columns.values()), lines)


def poses_table(upright: Sequence[WildRow], turned: Sequence[WildRow], degrees: float) -> str:
    """Markdown: the gain on upright faces and on those turned, for the sizes of both."""
    lines = [f"| data | kind | size | upscaler | upright | turned by {degrees:g} degrees |"]
    lines.append("| --- | --- | ---: | --- | ---: | ---: |")
    found = {(r.data, r.kind, r.size, r.upscaler, r.backend): r.gain for r in upright}
    for row in turned:
        key = (row.data, row.kind, row.size, row.upscaler, row.backend)
        if key in found and row.upscaler != "bicubic":
            lines.append(
                f"| {row.data} | {row.kind} | {row.size} px | {row.upscaler} | {found[key]:+.2f}"
                f" | {row.gain:+.2f} |"
            )
    return "\n".join(lines)


def read_json(path: Path) -> Wild:
    """What write_json wrote."""
    content = json.loads(path.read_text())
    rows = tuple(
        WildRow(**{**row, "gain_interval": tuple(row["gain_interval"])}) for row in content["rows"]
    )
    return Wild(content["seed"], content["turn"], rows)


def write_json(path: Path, result: Wild) -> None:
    rounded = asdict(result) | {"rows": [_rounded(row) for row in result.rows]}
    write_bytes(path, f"{json.dumps(rounded, indent=1)}\n".encode())


def _rounded(row: WildRow) -> dict[str, object]:
    values = asdict(row) | {"gain_interval": [round(end, 4) for end in row.gain_interval]}
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(given: argparse.Namespace) -> int:
    if given.faces is not None and given.faces < 1:
        raise EdgeError(f"wild: --faces {given.faces}, expected 1 or more", EXIT_USAGE)
    with needs("train,eval"), ExitStack() as stack, Steps() as progress:
        upscalers = [stack.enter_context(opening) for opening in _openings(given)]
        result = wild(
            given.data,
            upscalers,
            sizes=given.sizes,
            kinds=given.kinds,
            faces=given.faces,
            turned=given.turn,
            metrics=given.metrics,
            seed=given.seed,
            progress=progress,
        )
    if given.out:
        write_json(given.out, result)
    print(json.dumps(asdict(result)) if given.json else table(result.rows))
    return 0


def _openings(given: argparse.Namespace) -> Iterator[AbstractContextManager["FrameUpscaler"]]:
    from aminet.checkpoint import load_checkpoint
    from aminet.config import LR_SIDE
    from benchmarks.metrics.wild_upscalers import (
        artifact_frames,
        bicubic_frames,
        checkpoint_frames,
        realesrgan_frames,
    )

    yield bicubic_frames()
    for checkpoint in given.checkpoint:
        yield checkpoint_frames(checkpoint)
        if given.photo_mode and load_checkpoint(checkpoint).config.lr_side > LR_SIDE:
            yield checkpoint_frames(checkpoint, back_projected=True)
    for artifact in given.artifact:
        yield artifact_frames(artifact, given.backend)
    if given.realesrgan:
        yield realesrgan_frames()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.wild",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--data", nargs="+", required=True, metavar="TAR_OR_DIR", help="128x128 faces")
    add("--checkpoint", nargs="+", default=[], metavar="F", help="a checkpoint, in PyTorch")
    add("--photo-mode", action="store_true", help="64-px networks also with back-projection")
    add("--artifact", nargs="+", default=[], metavar="F", help="an exported model")
    add("--backend", default="auto", metavar="B", help="of artifacts (default: the fastest here)")
    add(
        "--realesrgan",
        action="store_true",
        help="Real-ESRGAN x4plus too, which takes seconds a face",
    )
    add("--sizes", nargs="+", type=int, default=SIZES, metavar="PX", choices=range(4, 129))
    add("--kinds", nargs="+", default=tuple(KINDS), choices=tuple(KINDS))
    add("--faces", type=int, help="only so many of each data set")
    add("--turn", type=float, default=0.0, metavar="DEGREES", help="turn the faces, to either side")
    add("--metrics", nargs="*", default=(), choices=METRICS, help="beside PSNR-Y; slow")
    add("--seed", type=int, default=0)
    add("--out", type=Path, metavar="F.json")
    add("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
