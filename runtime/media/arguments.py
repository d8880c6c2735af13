"""The arguments of `python -m runtime.infer`."""

from __future__ import annotations

import argparse

PRECISIONS = ("fp32", "fp16", "int8", "fp8")  # runtime.manifest has them too, and imports numpy


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runtime.infer",
        description="Upscale faces to 128x128, and the small faces of photos and videos where they"
        " are. The result of x.jpg is x_sr.png beside it.",
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="IMG_OR_DIR",
        help="images, videos, folders, globs, tars, parquet files; - is an image on standard input",
    )
    parser.add_argument(
        "--out",
        metavar="P",
        help="a folder; the file for a single input; a .tar or .parquet for all results (default:"
        " beside each input)",
    )
    model = parser.add_argument_group("model")
    model.add_argument(
        "--artifact",
        metavar="F",
        help="an ONNX file, an engine or a folder (default: aminet-real in artifacts for photos if"
        " it is there, else aminet-edge)",
    )
    model.add_argument(
        "--style",
        choices=("natural", "sharp"),
        default="natural",
        help="natural: closest to the truth; sharp: the AMIGAN models, more detail that is"
        " invented (default: natural)",
    )
    model.add_argument(
        "--backend",
        default="auto",
        metavar="B",
        help="onnxruntime, openvino, litert or tensorrt (default: auto, the fastest here)",
    )
    model.add_argument(
        "--provider",
        choices=("cpu", "cuda", "tensorrt"),
        help="what ONNX Runtime computes with (default: cpu)",
    )
    model.add_argument(
        "--require-precision",
        choices=PRECISIONS,
        help="exit with 6 unless the model is computed in it (default: any)",
    )
    model.add_argument(
        "--fallback",
        action="store_true",
        help="take the next backend or artifact if one fails (default: an error)",
    )
    images = parser.add_argument_group("images")
    images.add_argument(
        "--mode",
        choices=("auto", "face", "photo"),
        default="auto",
        help="auto takes what is about square and at most 32 px for a face, the rest for photos"
        " (default: auto)",
    )
    images.add_argument(
        "--reduce",
        action="store_true",
        help="shrink faces that are larger than the model's first (default: an error)",
    )
    images.add_argument(
        "--scale",
        type=int,
        choices=range(1, 9),
        metavar="1-8",
        help="of photos and videos (default: 2; up to 8 for photos of less than a megapixel)",
    )
    images.add_argument(
        "--faces-only",
        action="store_true",
        help="write each face of a photo by itself (default: the photo)",
    )
    images.add_argument(
        "--draw-boxes",
        action="store_true",
        help="draw what was found into photos and videos (default: not)",
    )
    run = parser.add_argument_group("run")
    run.add_argument(
        "--overwrite",
        action="store_true",
        help="make results again, and replace what others made (default: results that are newer"
        " are kept, other files are an error)",
    )
    run.add_argument(
        "--workers",
        type=_positive,
        metavar="N",
        help="images that are worked on at the same time (default: one for each usable core)",
    )
    run.add_argument(
        "--shard",
        metavar="I/N",
        help="every N-th file, tar or parquet file, from the I-th on, which begins with 1 (default:"
        " 1/1)",
    )
    run.add_argument(
        "--image-column",
        metavar="C",
        help="of parquet files: where the images are (default: `image`, or the only one that has"
        " bytes)",
    )
    run.add_argument("--json", action="store_true", help="print one JSON object (default: text)")
    run.add_argument(
        "--json-lines",
        action="store_true",
        help="print a JSON object for each result as it comes (default: text)",
    )
    return parser


def _positive(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text}, expected a number from 1 on")
    return int(text)
