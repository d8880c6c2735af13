"""A run's log: a JSON object a line in log.jsonl, the same in log.csv, its curves as an image.

TensorBoard gets the same scalars as they come, if it is asked for.
"""

import csv
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.atomic import write_bytes, writing
from runtime.errors import FULL_DISK, EdgeError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

EVENTS = "tensorboard"  # the folder of its event files

Line = dict[str, Any]
Points = list[tuple[float, float]]

KINDS = ("clean", "camera", "dark")  # of degraded faces; their columns are clean-16, ...


class Logbook:
    """The log of a run that is under way; `events` are TensorBoard's."""

    def __init__(self, path: Path, events: "SummaryWriter | None" = None) -> None:
        self.path, self._events = path, events

    def add(self, line: Line) -> None:
        """Add one line, with its "step"."""
        append(self.path, line)
        if self._events is None:
            return
        with _naming(self.path.with_name(EVENTS)):
            for name, value in line.items():
                if name not in ("step", "seconds"):
                    self._events.add_scalar(name, value, line["step"])
            self._events.flush()


@contextmanager
def open_log(path: Path, step: int, *, tensorboard: bool) -> Iterator[Logbook]:
    """The log of a run that goes on from `step`; TensorBoard forgets what it has of later ones."""
    if not tensorboard:
        yield Logbook(path)
        return
    from torch.utils.tensorboard import SummaryWriter

    folder = path.with_name(EVENTS)
    with _naming(folder):
        events = SummaryWriter(str(folder), purge_step=step + 1 if step else None)
    try:
        yield Logbook(path, events)
    finally:
        with _naming(folder):
            events.close()


def append(path: Path, line: Line) -> None:
    """Add one line to the log."""
    with _naming(path), path.open("a") as file:
        file.write(json.dumps(line) + "\n")


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn what keeps a log from being written into one line with the fix."""
    try:
        yield
    except OSError as error:
        full = error.errno in FULL_DISK
        fix = "the disk is full; make room" if full else f"{error.strerror}; fix that"
        raise EdgeError(f"{path}: {fix} and run it again") from error


def read(path: Path) -> list[Line]:
    """The lines of a log; a half-written one, of a killed run, is skipped."""
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


def points(lines: list[Line], key: str) -> Points:
    """A quantity over the steps; values that are not finite leave a gap."""
    return [(line["step"], line[key]) for line in lines if np.isfinite(line.get(key, np.nan))]


def panels(lines: list[Line]) -> dict[str, dict[str, Points]]:
    """Title of each panel -> its curves by name; only those that have points."""
    names = dict.fromkeys(name for line in lines for name in line)
    cells = [name for name in names if name.split("-")[0] in KINDS]
    wanted = {
        "loss": {"loss": "loss"},
        "validation PSNR-Y, dB": {"network": "psnr_y", "bicubic": "bicubic_psnr_y"},
        "PSNR-Y over bicubic by kind and frame size, dB": {name: name for name in cells},
        "validation LPIPS": {name: name for name in names if name.split("-")[0] == "lpips"},
        "learning rate": {"rate": "rate"},
    }
    drawn = {
        title: {name: points(lines, key) for name, key in curves.items() if points(lines, key)}
        for title, curves in wanted.items()
    }
    return {title: curves for title, curves in drawn.items() if curves}


def write_curves(log: Path, out: Path) -> None:
    """Draw the loss, the validation and the learning rate over the steps; nothing without a log."""
    drawn = panels(read(log))
    if not drawn:
        return
    from matplotlib.figure import Figure  # takes a second

    figure = Figure(figsize=(8, 2.6 * len(drawn)), layout="constrained")
    for axes, (title, curves) in zip(
        figure.subplots(len(drawn), squeeze=False)[:, 0], drawn.items(), strict=True
    ):
        for name, line in curves.items():
            axes.plot(*zip(*line, strict=True), label=name, marker="." if len(line) < 20 else "")
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
        if len(curves) > 1:
            axes.legend(fontsize="x-small", ncols=4)
    with writing(out) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
