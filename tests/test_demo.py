"""The demo's picture and table."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import demo
from runtime.errors import EdgeError
from runtime.image import luma, read_image, shrink, upscale_bicubic


def test_astronaut_has_her_eyes_where_the_training_faces_have_them():
    brightness = luma(demo.aligned_astronaut())
    for x, y in np.rint(demo.FRAME_EYES).astype(int):
        pupil, around = (
            brightness[y - 1 : y + 2, x - 1 : x + 2],
            brightness[y - 8 : y + 9, x - 8 : x + 9],
        )
        assert pupil.mean() < around.mean() - 40


def test_picture_has_a_column_for_each_way_to_enlarge(tmp_path):
    photo = demo.aligned_astronaut()
    model = SimpleNamespace(manifest=SimpleNamespace(model="aminet-edge"), enlarge=upscale_bicubic)
    columns = demo.columns([model], (shrink(photo), shrink(photo[::-1])), photo)
    assert [column.title for column in columns] == [
        "input, 16x16",
        "bicubic",
        "aminet-edge",
        "original",
    ]
    demo.draw(columns, tmp_path / "demo.png")
    height, width, _ = read_image(tmp_path / "demo.png").shape
    assert width == 4 * (demo.CELL + demo.BAND) + demo.BAND
    assert height == 2 * (demo.CELL + demo.BAND) + 2 * demo.BAND


def test_without_weights_the_training_command_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(demo, "weights_path", lambda model: tmp_path / f"{model}.safetensors")
    with pytest.raises(EdgeError, match=r"no model has weights.* python -m aminet\.train"):
        demo.demo(tmp_path / "demo.png")


def test_default_model_comes_first(monkeypatch, tmp_path):
    for model in demo.MODELS:
        (tmp_path / model).touch()
    monkeypatch.setattr(demo, "weights_path", lambda model: tmp_path / model)
    assert demo.trained_models()[0] == "aminet-edge"


def test_engines_stand_in_the_table_without_a_time():
    row = demo.Row("aminet-edge/fp32.onnx", "fp32", "onnxruntime", 20_900_000, 19.75, 99.1)
    engine = SimpleNamespace(
        model="aminet-edge",
        engine="artifacts/aminet-edge/trt/8.6-1/fp32.engine",
        precision="fp32",
        bytes=26_000_000,
        builder="tensorrt-rtx",
        compute_capabilities=("8.6",),
    )
    lines = demo.table([row], [engine]).splitlines()
    assert lines[1].startswith("aminet-edge/fp32.onnx    fp32     onnxruntime")
    assert lines[2] == (
        "aminet-edge/fp32.engine  fp32     tensorrt      26.0 MB   compiled, gated, not executed"
        " (tensorrt-rtx, capability 8.6)"
    )


def test_demo_shows_and_measures_the_trained_model(edge_artifact, monkeypatch, tmp_path, capsys):
    exported = SimpleNamespace(
        artifact=edge_artifact, nodes_before=2, nodes_after=1, max_abs_diff=0.0
    )
    monkeypatch.setattr(demo, "trained_models", lambda: ["aminet-edge"])
    monkeypatch.setattr(demo, "export", lambda model: exported)
    assert demo.main(["--out", str(tmp_path / "demo.png"), "--json"]) == 0
    captured = capsys.readouterr()
    said = json.loads(captured.out)
    rows = said["rows"]
    assert [(Path(row["artifact"]).name, row["backend"]) for row in rows] == [
        ("fp32.onnx", "onnxruntime"),
        ("fp16.onnx", "onnxruntime"),
        ("int8.onnx", "onnxruntime"),
        ("fp32.onnx", "openvino"),
        ("int8.onnx", "openvino"),
    ]
    assert [row["runs_as"] for row in rows[:1] + rows[2:]] == ["fp32", "int8", "fp32", "int8"]
    assert all(row["p50_ms"] > 0 and row["fidelity_db"] > 45 for row in rows)
    assert "aminet-edge: checked int8.onnx on openvino" in captured.err
    assert [(Path(one["engine"]).name, one["builder"]) for one in said["engines"]] == [
        ("fp32.engine", "tensorrt-rtx"),
        ("fp16-trt.engine", "tensorrt-rtx"),
        ("int8-trt.engine", "tensorrt-rtx"),
        ("int8-trt-fp16.engine", "tensorrt-rtx"),
    ]
    assert captured.err.count("compiled and statically checked; not run") == 4
    assert read_image(tmp_path / "demo.png").shape[1] == 4 * (demo.CELL + demo.BAND) + demo.BAND
