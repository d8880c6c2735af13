"""The demo's images and table."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import demo, walkthrough
from benchmarks.astronaut import FRAME_EYES, aligned_astronaut, camera_face
from benchmarks.side_by_side import BAND, CELL, draw
from benchmarks.walkthrough import DemoRow
from runtime.errors import EdgeError
from runtime.image import luma, psnr_y, read_image, upscale_bicubic


def test_astronaut_has_her_eyes_where_the_training_faces_have_them():
    brightness = luma(aligned_astronaut())
    for x, y in np.rint(FRAME_EYES).astype(int):
        pupil, around = (
            brightness[y - 1 : y + 2, x - 1 : x + 2],
            brightness[y - 8 : y + 9, x - 8 : x + 9],
        )
        assert pupil.mean() < around.mean() - 40


def test_a_camera_shows_her_face_small_and_noisy():
    original, seen = aligned_astronaut(), camera_face(24)
    assert seen.shape == (24, 24, 3)
    assert 15 < psnr_y(upscale_bicubic(seen), original) < 30
    assert np.array_equal(seen, camera_face(24))


@pytest.mark.parametrize(
    ("lr_side", "title", "faces"),
    [(16, "input, 16x16", 3), (64, "input, 24 px, camera noise", 1)],
)
def test_image_has_a_column_for_each_way_to_upscale(artifact, tmp_path, lr_side, title, faces):
    sessions = [
        SimpleNamespace(
            manifest=SimpleNamespace(model=model),
            artifact=artifact,
            lr_side=lr_side,
            upscale=upscale_bicubic,
        )
        for model in ("amigan-real", "m", "m")
    ]
    columns = walkthrough.columns(sessions)
    titles = [title, "bicubic", "m", "amigan-real", "original"]
    assert [column.title for column in columns] == titles
    draw(columns, tmp_path / "demo.png")
    height, width, _ = read_image(tmp_path / "demo.png").shape
    assert width == 5 * (CELL + BAND) + BAND
    assert height == faces * (CELL + BAND) + 2 * BAND


def test_without_weights_the_training_command_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(
        walkthrough, "weights_path", lambda model: tmp_path / f"{model}.safetensors"
    )
    with pytest.raises(EdgeError, match=r"no model has weights.* python -m aminet\.train"):
        walkthrough.demo(tmp_path / "demo.png")


def test_default_model_comes_first_and_each_small_one_has_an_image(monkeypatch, tmp_path):
    for model in walkthrough.MODELS:
        (tmp_path / model).touch()
    monkeypatch.setattr(walkthrough, "weights_path", lambda model: tmp_path / model)
    first, second = walkthrough.trained_models()  # without the paper's, which take many minutes
    assert walkthrough.image_path("d/demo.png", first) == Path("d/demo.png")
    assert walkthrough.image_path("d/demo.png", second) == Path(f"d/demo-{second}.png")


def test_engines_stand_in_the_table_without_a_time():
    row = DemoRow("aminet-edge/fp32.onnx", "onnxruntime", "fp32", 20_900_000, 19.75, 99.1)
    engine = SimpleNamespace(
        model="aminet-edge",
        engine="artifacts/aminet-edge/trt/8.6-1/fp32.engine",
        precision="fp32",
        bytes=26_000_000,
    )
    lines = demo.table([row], [engine]).splitlines()
    assert lines[1].split()[2:] == ["fp32", "20.9", "19.75", "99.1"]
    assert lines[2].split()[:4] == ["aminet-edge/fp32.engine", "tensorrt", "fp32", "26.0"]
    assert lines[2].endswith("26.0             not run: no GPU")


def test_demo_shows_and_measures_the_trained_model(
    edge_artifact, edge_quantized, edge_halves, monkeypatch, tmp_path, capsys
):
    """What makes the ONNX files is called elsewhere, once for all tests: it takes a minute."""
    exported = SimpleNamespace(
        artifact=edge_artifact, nodes_before=2, nodes_after=1, max_abs_diff=0.0
    )
    monkeypatch.setattr(walkthrough, "export", lambda model, progress: exported)
    monkeypatch.setattr(walkthrough, "convert", {edge_artifact: edge_halves}.get)
    monkeypatch.setattr(walkthrough, "quantize", lambda *given, progress: edge_quantized)
    named = ["--model", "aminet-edge"]
    assert demo.main([*named, "--out", str(tmp_path / "demo.png"), "--json"]) == 0
    captured = capsys.readouterr()
    printed = json.loads(captured.out)
    rows = {(Path(row["artifact"]).name, row["backend"]): row for row in printed["rows"]}
    assert rows.keys() >= {
        *((name, "onnxruntime") for name in ("fp32.onnx", "fp16.onnx", "int8.onnx")),
        *((name, "openvino") for name in ("fp32.onnx", "int8.onnx")),
    }
    assert rows["fp32.onnx", "openvino"]["computes_in"] == "fp32"
    assert rows["int8.onnx", "onnxruntime"]["computes_in"] == "int8"
    assert all(row["p50_ms"] > 0 and row["fidelity_db"] > 45 for row in rows.values())
    engines = [(Path(one["engine"]).name, one["builder"]) for one in printed["engines"]]
    assert ("fp32.engine", "tensorrt-rtx") in engines
    assert ("int8-trt.engine", "tensorrt-rtx") in engines
    steps = [line for line in captured.err.splitlines() if not re.search(r"\(\d+ s\)$", line)]
    assert "aminet-edge: exported fp32.onnx, 2 nodes simplified to 1, values within" in steps[0]
    assert "amigan-edge: exported fp32.onnx and quantized int8.onnx" in steps[-1]
    assert len(steps) <= 11
    assert printed["images"] == [str(tmp_path / "demo.png")]
    assert read_image(tmp_path / "demo.png").shape[1] == 4 * (CELL + BAND) + BAND
