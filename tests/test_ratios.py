"""Speed is compared in turns, and each file with FP32 in its own backend."""

import json

import numpy as np

from benchmarks.studies import ratios
from benchmarks.studies.ratios import times_as_fast
from quantize.fp16 import convert
from runtime.errors import EXIT_ERROR


def test_a_ratio_is_of_each_turn_and_not_of_a_burst():
    fp32, own = np.array([4.0, 4, 4, 40, 40]), np.array([2.0, 2, 2, 20, 20])
    assert times_as_fast(own, fp32) == 2
    assert times_as_fast(fp32, own) == 0.5


def test_each_file_is_compared_in_each_backend(artifact, tmp_path, capsys):
    convert(artifact)
    out = tmp_path / "measured" / "ratios.json"
    arguments = [
        "--artifact",
        str(artifact.parent),
        "--seconds",
        "0.1",
        "--out",
        str(out),
        "--json",
    ]
    assert ratios.main(arguments) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(out.read_text())
    found = {(row["artifact"], row["backend"]): row for row in printed["rows"]}
    assert list(found) == [
        (f"tiny/{name}", backend)
        for backend in ("onnxruntime", "openvino")
        for name in ("fp32.onnx", "fp16.onnx")
    ]
    assert found["tiny/fp32.onnx", "openvino"]["of_fp32"] == 1
    assert min(row["of_best_fp32"] for row in printed["rows"]) > 0
    assert found["tiny/fp16.onnx", "onnxruntime"]["executes_as"]


def test_without_fp32_there_is_nothing_to_compare_with(tmp_path, capsys):
    assert ratios.main(["--artifact", str(tmp_path)]) == EXIT_ERROR
    assert "fp32.onnx: is not there" in capsys.readouterr().err


def test_a_table_has_a_line_for_each(artifact):
    lines = ratios.table(ratios.ratios(artifact.parent, seconds=0.1)).splitlines()
    assert [line.split(" | ")[1] for line in lines[2:]] == ["onnxruntime", "openvino"]
