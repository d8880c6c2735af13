"""What each file loses on real faces, also when real ones have calibrated it."""

import json

import pytest

import tiny_artifact
from benchmarks.studies import real_faces
from quantize.fp16 import convert
from quantize.int8 import quantize
from quantize.targets import TARGETS
from runtime.errors import EXIT_ERROR
from runtime.image import write_image


@pytest.fixture
def calib(tmp_path):
    for number, face in enumerate(tiny_artifact.faces(24, seed=9)):
        write_image(tmp_path / "calib" / f"{number:02}.png", face)
    return tmp_path / "calib"


def test_each_file_in_the_backends_it_is_for(artifact, calib, hr_faces, tmp_path, capsys):
    convert(artifact)
    quantize(artifact, [calib], [TARGETS["cpu"]])
    out = tmp_path / "measured" / "drift.json"
    files = ["--artifact", str(artifact.parent), "--data", str(hr_faces), "--out", str(out)]
    assert real_faces.main([*files, "--calib", str(calib), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(out.read_text())
    found = [(r["artifact"], r["backend"], r["calibrated_with"]) for r in printed["rows"]]
    both = ("onnxruntime", "openvino")
    assert found[:5] == [
        *(("tiny/fp16.onnx", backend, "") for backend in both),
        ("tiny/fp16-trt.onnx", "onnxruntime", ""),
        *(("tiny/int8.onnx", backend, real_faces.SYNTHETIC) for backend in both),
    ]
    assert ("tiny/int8-trt.onnx", "onnxruntime", real_faces.REAL_CALIBRATION) in found
    for row in printed["rows"]:
        assert row["drift_db"] <= row["worst_drift_db"] < 0.5
        assert row["faces"] == 3
        assert row["share_of_bytes"] < 0.6


def test_without_fp32_there_is_nothing_to_compare_with(tmp_path, hr_faces, capsys):
    assert real_faces.main(["--artifact", str(tmp_path), "--data", str(hr_faces)]) == EXIT_ERROR
    assert "fp32.onnx: not found" in capsys.readouterr().err
