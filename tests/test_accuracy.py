"""The quality table: its metrics are the paper's, its bicubic baselines the published ones."""

import json
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from aminet.checkpoint import weights_path
from benchmarks import accuracy
from benchmarks.metrics import quality
from benchmarks.metrics.upscalers import BICUBIC, Upscaler
from calib_data.generate import HERE as CALIB_DATA
from face_tars import face_tars
from runtime.errors import EXIT_USAGE, EdgeError
from runtime.image import psnr_y
from tiny_networks import BATCHED, write_checkpoint

# Bicubic baselines: PSNR-Y in dB, SSIM-Y.
BASELINES = {
    "celeba-val": (23.91, 0.653),
    "celeba-test": (24.06, 0.657),
    "fsrnet-celeba-test": (23.42, 0.630),
    "helen-test": (23.77, 0.665),
    "lfw-test": (23.57, 0.650),
}


@pytest.mark.faces
@pytest.mark.parametrize("name", BASELINES)
def test_bicubic_baselines_are_reproduced(name):
    (row,) = quality.measure_quality(face_tars(name)).rows
    psnr_y, ssim_y = BASELINES[name]
    assert row.psnr_y == pytest.approx(psnr_y, abs=0.01)
    assert row.ssim_y == pytest.approx(ssim_y, abs=0.001)


def metrics(*names):
    return quality.load_metrics(names, note=pytest.fail)


def test_perfect_upscaling_has_perfect_scores():
    hr = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), np.uint8)
    row = quality.compare(Upscaler("oracle", "none", lambda lr: hr), "x", hr, metrics("vif"))
    assert (row.psnr_y, row.ssim_y, row.psnr_rgb) == (100.0, 1.0, 100.0)
    assert row.vif == pytest.approx(1)


def test_scores_are_means_of_the_faces_scores():
    hr = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), np.uint8)
    sr = hr.copy()
    sr[0] //= 2
    row = quality.compare(Upscaler("half", "none", lambda lr: sr), "x", hr, metrics())
    assert row.psnr_y == pytest.approx((psnr_y(sr[0], hr[0]) + 100) / 2)
    assert row.intervals["psnr_y"] == pytest.approx((psnr_y(sr[0], hr[0]), 100))


def test_gain_is_over_bicubic_face_by_face():
    hr = np.random.default_rng(0).integers(0, 256, (8, 128, 128, 3), np.uint8)
    hr[:4] //= 2
    sr = np.roll(hr, 1, axis=1)
    row = quality.compare(Upscaler("rolled", "none", lambda lr: sr), "x", hr, metrics())
    bicubic = quality.compare(BICUBIC, "x", hr, metrics())
    assert row.gain == pytest.approx(row.psnr_y - bicubic.psnr_y)
    low, high = row.intervals["gain"]
    assert low < row.gain < high
    psnr_low, psnr_high = row.intervals["psnr_y"]
    assert high - low < (psnr_high - psnr_low) / 2  # bright faces are harder for both
    assert quality.over_bicubic(row) == f"{row.gain:+.2f} ({low:.2f} to {high:.2f})"
    assert quality.over_bicubic(bicubic) == "+0.00"


def test_one_face_has_no_interval_and_no_distance_between_sets():
    hr = np.random.default_rng(0).integers(0, 256, (1, 128, 128, 3), np.uint8)
    sets = {quality.OF_A_SET: lambda sr, hr: pytest.fail("one face is no set")}
    row = quality.compare(BICUBIC, "x", hr, metrics() | sets)
    assert row.kid_mobilenetv2 is None
    assert row.intervals == {}


@contextmanager
def no_artifact(artifact):
    yield Upscaler("bicubic again", "pillow", BICUBIC.upscale)


def test_json_has_a_row_for_each_upscaler_and_data_set(hr_faces, monkeypatch, capsys):
    monkeypatch.setattr(quality, "artifact_upscaler", no_artifact)
    out = hr_faces.parent / "quality.json"
    arguments = ["--data", str(hr_faces), f"{hr_faces}/", "--out", str(out), "--json"]
    assert accuracy.main(arguments) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == json.loads(out.read_text())
    rows = json.loads(printed.out)["rows"]
    assert [row["data"] for row in rows] == ["hr"] * 4
    assert {"artifact", "backend", "data", "n", "psnr_y", "ssim_y", "psnr_rgb"} <= set(rows[0])
    low, high = rows[0]["intervals"]["vif"]
    assert low <= rows[0]["vif"] <= high
    assert [row["lpips"] for row in rows] == [None] * 4
    left_out = [line for line in printed.err.splitlines() if "is left out" in line]
    assert [line.split()[1] for line in left_out] == ["lpips", "kid_mobilenetv2", "identity"]
    assert all(line.endswith("python -m benchmarks.fetch") for line in left_out)
    assert [row["artifact"] for row in rows] == ["bicubic"] * 2 + ["bicubic again"] * 2


def test_artifact_and_checkpoint_of_one_model_agree(hr_faces, edge_artifact):
    weights = weights_path("aminet-edge")
    if not weights.is_file():
        pytest.skip(f"{weights} not found")
    rows = quality.measure_quality([hr_faces], [edge_artifact], [weights]).rows
    assert [row.backend for row in rows] == ["pillow", "onnxruntime", "torch"]
    assert rows[1].psnr_y == pytest.approx(rows[2].psnr_y, abs=0.01)


def test_table_has_a_line_for_each_row(hr_faces):
    rows = quality.measure_quality([hr_faces], metrics=("vif",)).rows
    lines = [line.split() for line in accuracy.table(rows).splitlines()]
    assert len(lines) == 1 + len(rows)
    assert lines[0][4:] == ["psnr_y", "gain", "ssim_y", "psnr_rgb", "vif"]
    assert lines[1][:4] == ["hr", "bicubic", "pillow", "3"]


def test_unknown_metrics_are_usage_errors(hr_faces):
    with pytest.raises(EdgeError, match=r"fid: unknown metric, expected psnr_y, .*") as unknown:
        quality.measure_quality([hr_faces], metrics=("fid",))
    assert unknown.value.status == EXIT_USAGE


def test_faces_of_another_size_are_named():
    with pytest.raises(EdgeError, match=r"face-000\.png: is (16x16|64x64)"):
        quality.measure_quality([CALIB_DATA])


def test_a_checkpoint_is_measured_at_its_own_input_side(tmp_path, hr_faces):
    """And its gain is over bicubic upscaling of the same input."""
    weights = write_checkpoint(tmp_path / "wide.safetensors", replace(BATCHED, lr_side=64))
    bicubic, wide = quality.measure_quality([hr_faces], checkpoints=[weights]).rows
    assert wide.psnr_y - wide.gain > bicubic.psnr_y + 1  # bicubic from 64 px, not from 16
