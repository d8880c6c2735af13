"""Faces of photos, framed as the training faces: `python -m runtime.align photos/ --out faces/`.

Training, calibration, the drift on real faces and benchmarks.accuracy want 128x128 faces that are
framed alike. This finds those of images, folders and tars, turns each upright, cuts it out and
writes it as PNG under the image's own name; the second face of x.jpg becomes x-2.png. A folder's
tree is kept. Faces that have fewer pixels and those that the photo's edge cuts off are left out and
counted: a network would learn to draw what was never seen.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from runtime.dataset import is_tar_name, iter_faces
from runtime.errors import EXIT_ERROR, EdgeError, run_command
from runtime.image import SR_SIDE, Pixels, write_image
from runtime.media.alignment import MEAN_LANDMARKS, Frame, mirror
from runtime.media.detector import Detector, FoundFace
from runtime.progress import Steps

MIN_SIDE = 128  # px of the photo that the frame is across: no pixel is made up
SURE = 0.8  # a face under this share of the least side is too small without another look
LOOKS = 2  # a third changes the frame no more
LOOK_SIDE = 256  # px of the view that a face's landmarks are taken from, twice its frame across
MAX_OUTSIDE = 1.0  # px of the photo: so much of the frame beyond its edge is not seen
TOO_SMALL, CUT_OFF, NO_FACE = "too small", "cut off by the edge", "without a face"
HELP = {TOO_SMALL: " (--min-side)", CUT_OFF: " (--edges)", NO_FACE: ""}


@dataclass(frozen=True)
class AlignOptions:
    """Which faces are taken; the defaults are for training."""

    min_side: float = MIN_SIDE
    edges: bool = False  # also those that the photo's edge cuts off: its last pixels go on
    largest: bool = False  # the largest of each image only
    overwrite: bool = False


@dataclass(frozen=True)
class AlignedFace:
    """A face that was written; in the image its frame is `side_px` across and `turned_deg`."""

    input: str
    output: str
    side_px: float
    turned_deg: float  # clockwise, before it was turned upright
    score: float  # the detector's, 0.5 to 1


@dataclass(frozen=True)
class LeftOut:
    """A face, or a image, that was not taken, and why."""

    input: str
    reason: str


@dataclass(frozen=True)
class Aligned:
    """What was written and left out; `errors` are images that cannot be read or written."""

    faces: tuple[AlignedFace, ...]
    left_out: tuple[LeftOut, ...]
    errors: tuple[str, ...]
    images: int  # that were read


@dataclass(frozen=True, eq=False)
class SourceImage:
    """One input (H, W, 3), and where its faces go in the folder for results."""

    name: str
    place: Path
    pixels: Pixels

    def target(self, number: int) -> Path:
        return self.place.with_name(f"{self.place.stem}{f'-{number}' if number > 1 else ''}.png")


def align(
    sources: Sequence[str | Path],
    out: str | Path,
    options: AlignOptions | None = None,
    watch: Callable[[int], None] = lambda done: None,
) -> Aligned:
    """Write the faces of images, folders and tars into the folder `out`, 128x128 each.

    EdgeError for a folder or tar that is not there or holds no image, for an `out` inside of one,
    and without the detector (status 5). `watch(done)` is called after each image.
    """
    options, out = options or AlignOptions(), Path(out)
    _refuse_inside(out, sources)
    detector = Detector()
    faces: list[AlignedFace] = []
    left_out: list[LeftOut] = []
    errors: list[str] = []
    written: set[Path] = set()
    done = 0
    for done, image in enumerate(_images(sources, errors), 1):
        found = _find(image.pixels, detector, options.min_side)
        if not found:
            left_out.append(LeftOut(image.name, NO_FACE))
        number = 0
        for frame, score in found[:1] if options.largest else found:
            if reason := _why_not(frame, image.pixels, options):
                left_out.append(LeftOut(image.name, reason))
                continue
            number += 1
            target = out / image.target(number)
            if taken := _is_taken(target, written, options.overwrite):
                errors.append(f"{image.name}: {taken}")
                continue
            write_image(target, _cut_out(image.pixels, frame))
            written.add(target)
            geometry = round(frame.side, 1), round(frame.turned_deg, 1), round(score, 3)
            faces.append(AlignedFace(image.name, str(target), *geometry))
        watch(done)
    return Aligned(tuple(faces), tuple(left_out), tuple(errors), done)


def _images(sources: Sequence[str | Path], errors: list[str]) -> Iterator[SourceImage]:
    for source in map(Path, sources):
        inside = source.is_dir() or is_tar_name(source)
        for face in iter_faces([source], lambda error: errors.append(str(error))):
            name = Path(face.name)
            place = name.relative_to(source) if inside else Path(name.name)
            safe = Path(*(part for part in place.parts if part != ".."))  # a tar may say anything
            yield SourceImage(face.name, safe, face.pixels)


def _find(photo: Pixels, detector: Detector, min_side: float) -> list[tuple[Frame, float]]:
    """Each face's frame and score, the largest first."""
    found = [(Frame.around(face.landmarks), face.score) for face in detector.find(photo)]
    for _ in range(LOOKS):
        found = [
            (_look_again(photo, frame, detector) if frame.side > SURE * min_side else frame, score)
            for frame, score in found
        ]
    return sorted(found, key=lambda each: -each[0].side)


def _look_again(photo: Pixels, frame: Frame, detector: Detector) -> Frame:
    """The frame by what the detector sees of the face in it, and of its mirror image.

    In a photo it sees large faces turned by 4 degrees, and turned ones of another size.
    """
    wide = frame.grown(2)
    less = max(1, int(wide.side / LOOK_SIDE / 2))  # of a huge face less is enough to look at
    smaller = np.array(Image.fromarray(photo).reduce(less)) if less > 1 else photo
    seen = wide.scaled(1 / less).cut_out(smaller)
    view = np.array(Image.fromarray(seen).resize((LOOK_SIDE, LOOK_SIDE)))
    upright = _nearest_to_center(detector.find(view))
    mirrored = _nearest_to_center(detector.find(np.ascontiguousarray(view[:, ::-1])))
    if upright is None or mirrored is None:
        return frame
    mean = (upright.landmarks + mirror(mirrored.landmarks, LOOK_SIDE)) / 2
    return Frame.around(wide.to_photo(mean * SR_SIDE / LOOK_SIDE), MEAN_LANDMARKS)


def _nearest_to_center(found: Sequence[FoundFace]) -> FoundFace | None:
    def distance(face: FoundFace) -> float:
        left, top, right, bottom = face.box
        return abs(left + right - LOOK_SIDE) + abs(top + bottom - LOOK_SIDE)

    return min(found, key=distance, default=None)


def _why_not(frame: Frame, photo: Pixels, options: AlignOptions) -> str:
    """Why a face is left out; empty if it is taken."""
    if frame.side < options.min_side:
        return TOO_SMALL
    left, top, right, bottom = frame.bounds
    outside = max(-left, -top, right - photo.shape[1], bottom - photo.shape[0])
    return CUT_OFF if outside > MAX_OUTSIDE and not options.edges else ""


def _cut_out(photo: Pixels, frame: Frame) -> Pixels:
    """The face in its frame, (128, 128, 3)."""
    seen = Image.fromarray(frame.cut_out(photo))
    return np.array(seen.resize((SR_SIDE, SR_SIDE), Image.Resampling.BICUBIC))


def _refuse_inside(out: Path, sources: Sequence[str | Path]) -> None:
    for source in map(Path, sources):
        if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
            raise EdgeError(
                f"{out}: lies in {source}, whose images are the input; give a folder of its own"
            )


def _is_taken(target: Path, written: set[Path], overwrite: bool) -> str:
    if target in written:
        return f"{target} is another image's face already; give it a name of its own"
    if target.exists() and not overwrite:
        return f"{target} is there already; give another --out, or --overwrite"
    return ""


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    options = AlignOptions(
        **{name: getattr(arguments, name) for name in AlignOptions.__dataclass_fields__}
    )
    with Steps() as steps:
        found = align(
            arguments.inputs,
            arguments.out,
            options,
            lambda done: steps(f"{done:,} image{'s' * (done != 1)}"),
        )
    for error in found.errors:
        print(f"error: {error}", file=sys.stderr)
    print(json.dumps(asdict(found)) if arguments.json else _describe(found, arguments.out))
    return EXIT_ERROR if found.errors or not found.faces else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runtime.align", description=__doc__.partition("\n\n")[2]
    )
    parser.add_argument("inputs", nargs="+", metavar="IMG_OR_DIR", help="images, folders, tars")
    parser.add_argument("--out", required=True, metavar="DIR", help="a folder of their own")
    parser.add_argument(
        "--min-side",
        type=_px,
        default=MIN_SIDE,
        metavar="PX",
        help=f"of the image, across the frame; smaller faces are left out (default: {MIN_SIDE})",
    )
    parser.add_argument(
        "--edges",
        action="store_true",
        help="also faces that the image's edge cuts off (default: they are left out)",
    )
    parser.add_argument(
        "--largest",
        action="store_true",
        help="only the largest face of each image (default: all)",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace what is in --out (default: an error for each)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object (default: text)")
    return parser


def _px(text: str) -> float:
    try:
        px = float(text)
    except ValueError:
        px = 0.0
    if not 0 < px < math.inf:
        raise argparse.ArgumentTypeError(f"{text}, expected a number of px, more than 0")
    return px


def _describe(found: Aligned, out: str) -> str:
    reasons = Counter(each.reason for each in found.left_out)
    left = [f"{reasons[reason]} {reason}{HELP[reason]}" for reason in HELP if reasons[reason]]
    counted = f"{out}: {_count(len(found.faces), 'face')} of {_count(found.images, 'image')}"
    return f"{counted}; left out: {', '.join(left)}" if left else counted


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


if __name__ == "__main__":
    sys.exit(main())
