"""The study of back-projection finds constants that trust clean frames and not noisy ones."""

import json

import numpy as np
import pytest

from benchmarks.studies import trust
from benchmarks.studies.trust import SHARES, Cell, main
from tiny_networks import BLOCKED, write_checkpoint
from tiny_training import write_disks


def test_a_cell_interpolates_between_the_measured_shares():
    """A face that gains from all that was removed, and one that loses by it."""
    shares = np.array(SHARES)
    cell = Cell("clean", 32, np.array([0.5, 1.5]), np.stack([shares, -shares]))
    assert cell.gain(clean=0.8, noisy=1.2) == pytest.approx((1 - 0.1) / 2)
    assert cell.gain(clean=1.6, noisy=2.0) == 0
    assert cell.row.gain_none == 0
    assert cell.row.ratio == 1.0


def test_every_kind_and_size_has_a_row(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trust, "SIZES", (24,))
    write_checkpoint(tmp_path / "tiny.safetensors", BLOCKED)
    (tmp_path / "faces").mkdir()
    faces = write_disks(tmp_path / "faces", 2)
    words = ["--data", str(faces), "--checkpoint", str(tmp_path / "tiny.safetensors")]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["kind"] for row in found["rows"]] == ["clean", "camera", "dark"]
    assert found["best_gain"] >= found["gain"] - 1e-3
    for row in found["rows"]:
        assert row["best_gain"] >= max(row["gain_none"], row["gain_all"])
        assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
