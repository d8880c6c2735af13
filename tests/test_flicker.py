"""Flicker is nothing for a still face that is followed, and more for one that trembles."""

import json

import numpy as np
import pytest

from aminet.training.degradation import turn
from benchmarks.studies import flicker as study
from benchmarks.studies.flicker import drift, flicker, main
from runtime.dataset import load_faces
from tiny_networks import BLOCKED, write_checkpoint
from tiny_training import write_disks


def test_flicker_is_what_a_shift_back_leaves(tmp_path):
    (face,) = load_faces([write_disks(tmp_path, 1)])
    moved = [turn(face, 0, shift=shift) for shift in drift(6)]
    levels = [2, -2] * 3
    trembling = [
        np.clip(f.astype(int) + step, 0, 255) for f, step in zip(moved, levels, strict=True)
    ]
    still = flicker(moved)
    assert still < 2  # the disk's edge, resampled twice
    assert flicker([face.astype(np.uint8) for face in trembling]) > still + 0.5
    assert flicker([face] * 6) > still + 0.5  # a face that does not follow its own drift


def test_every_upscaler_has_a_row(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(study, "SIZES", (24,))
    monkeypatch.setattr(study, "KINDS", ("camera",))
    write_checkpoint(tmp_path / "tiny.safetensors", BLOCKED)
    (tmp_path / "faces").mkdir()
    words = ["--data", str(write_disks(tmp_path / "faces", 1)), "--frames", "3", "--json"]
    assert main([*words, "--checkpoint", str(tmp_path / "tiny.safetensors")]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["upscaler"] for row in rows] == ["clean faces", "bicubic", "tiny"]
    assert rows[1]["flicker"] > rows[0]["flicker"] == pytest.approx(0.5, abs=0.5)
