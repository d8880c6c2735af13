"""The log is lines of JSON, and its curves are a image that shows them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from aminet.model import AMINet
from aminet.training import logbook
from aminet.training.validation import Validation
from runtime.errors import EdgeError
from runtime.image import read_image
from tiny_training import TINY, write_disks


def test_lines_come_back_and_a_half_written_one_is_passed_over(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    logbook.append(log, {"step": 50, "loss": 0.1})
    logbook.append(log, {"step": 100, "loss": float("nan")})
    with log.open("a") as file:
        file.write('{"step": 15')
    lines = logbook.read(log)
    assert [line["step"] for line in lines] == [50, 100]
    assert logbook.points(lines, "loss") == [(50, 0.1)]
    assert logbook.points(lines, "psnr_y") == []


def test_the_log_is_a_table_too(tmp_path: Path) -> None:
    log, out = tmp_path / "log.jsonl", tmp_path / "log.csv"
    logbook.append(log, {"step": 50, "loss": 0.1})
    logbook.append(log, {"step": 50, "psnr_y": 25.0})
    logbook.write_csv(log, out)
    assert out.read_text().splitlines() == ["step,loss,psnr_y", "50,0.1,", "50,,25.0"]


def test_curves_have_a_panel_for_each_quantity_of_the_log(tmp_path: Path) -> None:
    log, out = tmp_path / "log.jsonl", tmp_path / "curves.png"
    logbook.write_curves(log, out)
    assert not out.exists()
    for step in (50, 100):
        logbook.append(log, {"step": step, "loss": 1 / step})
    logbook.write_curves(log, out)
    height, width, _ = read_image(out).shape
    logbook.append(log, {"step": 100, "psnr_y": 25.0, "bicubic_psnr_y": 24.0, "dark-16": 0.4})
    logbook.write_curves(log, out)
    assert read_image(out).shape == (3 * height, width, 3)
    assert list(logbook.panels(logbook.read(log)).values()) == [
        {"loss": [(50, 1 / 50), (100, 1 / 100)]},
        {"network": [(100, 25.0)], "bicubic": [(100, 24.0)]},
        {"dark-16": [(100, 0.4)]},
    ]


def test_a_log_that_cannot_be_written_says_why() -> None:
    with pytest.raises(EdgeError, match=r"/dev/full: the disk is full; make room and run it again"):
        logbook.append(Path("/dev/full"), {"step": 1})


def test_tensorboard_has_the_scalars_of_the_log(tmp_path: Path) -> None:
    """A run that goes on from an earlier step replaces what came after it."""
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for first, loss in ((0, 0.5), (50, 0.25)):
        with logbook.open_log(tmp_path / "log.jsonl", first, tensorboard=True) as log:
            log.add({"step": first + 50, "seconds": 1.0, "loss": loss, "rate": 1e-3})
            log.add({"step": first + 90, "seconds": 2.0, "loss": loss / 2, "clean-16": 1.5})
    events = accumulators.EventAccumulator(str(tmp_path / logbook.EVENTS))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["clean-16", "loss", "rate"]
    found = [(each.step, each.value) for each in events.Scalars("loss")]
    assert found == [(50, 0.5), (100, 0.25), (140, 0.125)]
    assert len(logbook.read(tmp_path / "log.jsonl")) == 4


def test_contact_sheet_has_four_columns_and_a_row_a_face(tmp_path: Path) -> None:
    validation = Validation.load([write_disks(tmp_path, 3)])
    torch.manual_seed(0)
    sheet = validation.sheet(AMINet(TINY).eval())
    assert sheet.shape == (3 * 128, 4 * 128, 3)
    assert np.array_equal(sheet[:128, -128:], validation.hr[0])
    assert len(np.unique(sheet[:128, :128].reshape(-1, 3), axis=0)) <= 256
