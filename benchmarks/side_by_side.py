"""An image of faces side by side: one column for each way to upscale, with captions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from runtime.atomic import writing
from runtime.image import SR_SIDE, Pixels

CELL = 2 * SR_SIDE  # px of the image that a face takes
BAND = 28  # px for the title above the faces, and for a caption under each
INK, PAPER, FAINT = "#1a1a1a", "#ffffff", "#767676"
NO_ORIGINAL = "a synthetic face\nhas no original"


@dataclass(frozen=True)
class Column:
    """A title and, for each face, pixels (None: there are none) and a caption."""

    title: str
    faces: tuple[Pixels | None, ...]
    captions: tuple[str, ...]


def draw(columns: Sequence[Column], out: str | Path) -> None:
    """Write the columns side by side, each face scaled to CELL px without smoothing."""
    size = (len(columns) * (CELL + BAND) + BAND, len(columns[0].faces) * (CELL + BAND) + 2 * BAND)
    image = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(image)
    large, small = ImageFont.load_default(20), ImageFont.load_default(15)
    for x, column in zip(range(BAND, size[0], CELL + BAND), columns, strict=False):
        middle = x + CELL // 2
        pen.text((middle, BAND), column.title, INK, large, anchor="mm")
        for number, (face, caption) in enumerate(zip(column.faces, column.captions, strict=True)):
            y = 2 * BAND + number * (CELL + BAND)
            pen.text((middle, y + CELL + BAND // 2), caption, FAINT, small, anchor="mm")
            if face is None:
                place = (middle, y + CELL // 2)
                pen.text(place, NO_ORIGINAL, FAINT, small, anchor="mm", align="center")
            else:
                cell = Image.fromarray(face).resize((CELL, CELL), Image.Resampling.NEAREST)
                image.paste(cell, (x, y))
    with writing(out) as temporary:
        image.save(temporary)
