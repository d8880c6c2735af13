"""A run's log: a JSON object a line in log.jsonl, the same in log.csv, its curves as a picture."""

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from runtime.atomic import write_bytes
from runtime.errors import FULL_DISK, EdgeError
from runtime.image import Pixels, write_image

SIZE = (720, 300)  # px of one panel
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 32, 36  # px around the curve
INK, FAINT, PAPER = "#1a1a1a", "#b0b0b0", "#ffffff"
BLUE, ORANGE = "#1f5fa8", "#c8641e"

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """One line of a panel: (step, value) points."""

    name: str
    points: Points
    colour: str


def append(path: Path, line: dict[str, Any]) -> None:
    """Add one line to the log."""
    try:
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        full = error.errno in FULL_DISK
        mend = "the disk is full; make room" if full else f"{error.strerror}; mend that"
        raise EdgeError(f"{path}: {mend} and run it again") from error


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a half-written one, of a killed run, is passed over."""
    lines = []
    for text in path.read_text().splitlines() if path.is_file() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


def write_csv(log: Path, out: Path) -> None:
    """Write the log as a table: a column for each name, empty in the lines that lack it."""
    lines = read(log)
    columns = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows(lines)
    write_bytes(out, text.getvalue().encode())


def write_curves(log: Path, out: Path) -> None:
    """Draw the loss and, where faces were held out, their PSNR-Y over the steps."""
    lines = read(log)
    loss = Curve("loss", points(lines, "loss"), BLUE)
    psnr_y = Curve("PSNR-Y, dB", points(lines, "psnr_y"), BLUE)
    bicubic = Curve("bicubic", points(lines, "bicubic_psnr_y"), ORANGE)
    panels = [panel([loss])] if loss.points else []
    panels += [panel([psnr_y, bicubic])] if psnr_y.points else []
    if panels:
        write_image(out, np.concatenate(panels))


def points(lines: list[dict[str, Any]], key: str) -> Points:
    """A quantity over the steps; figures that are not finite leave a gap."""
    return [(line["step"], line[key]) for line in lines if np.isfinite(line.get(key, np.nan))]


def panel(curves: list[Curve]) -> Pixels:
    """The curves in one frame, with the range of both axes written at it: (H, W, 3)."""
    picture = Image.new("RGB", SIZE, PAPER)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    every = [point for curve in curves for point in curve.points]
    (left, right), (low, high) = ((min(v), max(v)) for v in zip(*every, strict=True))
    box = (LEFT, TOP, SIZE[0] - RIGHT, SIZE[1] - BOTTOM)
    pen.rectangle(box, outline=FAINT)
    for curve in curves:
        line = [
            (
                box[0] + (box[2] - box[0]) * (x - left) / ((right - left) or 1),
                box[3] - (box[3] - box[1]) * (y - low) / ((high - low) or 1),
            )
            for x, y in curve.points
        ]
        pen.line(line, curve.colour, width=2)
    for number, curve in enumerate(curves):
        pen.text((LEFT + 120 * number, TOP // 2), curve.name, curve.colour, font, anchor="lm")
    pen.text((LEFT - 6, box[3]), f"{low:.4g}", INK, font, anchor="rm")
    pen.text((LEFT - 6, box[1]), f"{high:.4g}", INK, font, anchor="rm")
    pen.text((box[0], box[3] + 16), f"step {left:.0f}", INK, font, anchor="lm")
    pen.text((box[2], box[3] + 16), f"{right:.0f}", INK, font, anchor="rm")
    return np.array(picture)
