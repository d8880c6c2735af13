"""Engines that quantize are compared on one model; their table stands in the documentation."""

import json

import pytest

import tiny_artifact
from benchmarks.studies import quantizers
from benchmarks.studies.quantizers import BEGIN, END, write_table
from face_tars import ROOT
from runtime.errors import EdgeError
from runtime.image import write_image

FOUND = {
    "rows": [
        {
            **{"engine": "quantize.int8, cpu", "observer": "min/max", "backend": "onnxruntime"},
            **{"bytes": 5 << 20, "fidelity_db": 52.0, "worst_fidelity_db": 50.0},
            **{"drift_db": None, "worst_drift_db": None, "int8_mac_share": 0.988, "speed": 2.0},
        }
    ],
    **{"model": "aminet-edge", "checkpoint_sha256": "", "calibration_faces": 96},
    **{"real_faces": 0, "processor": "a processor", "versions": {"onnx": "1.23"}},
}


def test_a_table_says_of_what_it_is():
    lines = quantizers.table(FOUND).splitlines()
    assert lines[0] == "aminet-edge, calibrated with 96 faces, drift on no real faces, a processor,"
    expected = "52.0 | 50.0 |  |  | 98.8% | 2.00x | 5.0 MiB |"
    assert lines[-1] == f"| quantize.int8, cpu | min/max | onnxruntime | {expected}"


def test_the_table_replaces_what_stood_between_the_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_table(page, "| new |")
    assert page.read_text() == f"before\n{BEGIN}\n| new |\n{END}\nafter\n"


def test_a_page_without_marks_is_named_and_left(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n")
    with pytest.raises(EdgeError, match=r"page\.md: has no"):
        write_table(page, "| new |")
    assert page.read_text() == "before\n"


def test_the_documentation_has_the_measured_table():
    measured, page = ROOT / quantizers.OUT, (ROOT / quantizers.DOC).read_text()
    assert page.count(BEGIN) == 1
    if measured.is_file():
        assert quantizers.table(json.loads(measured.read_text())) in page


@pytest.mark.soak
def test_each_engine_is_judged_in_each_backend_that_runs_its_file(artifact, tmp_path, hr_faces):
    pytest.importorskip("nncf")
    for number, face in enumerate(tiny_artifact.faces(24, seed=9)):
        write_image(tmp_path / "calib" / f"{number:02}.png", face)
    found = quantizers.engines(artifact, [tmp_path / "calib"], [str(hr_faces)], turns=2)
    rows = {(row.engine, row.observer, row.backend): row for row in found.rows}
    assert len({row.engine for row in found.rows if row.backend == "openvino"}) == 8
    assert len(rows) == len(found.rows) == 22
    ours = rows["quantize.int8, cpu", "min/max, harsher faces", "onnxruntime"]
    assert ours.int8_mac_share == 1
    assert ours.fidelity_db > 45
    assert rows["none", "", "openvino"].fidelity_db > 80
    for observer in quantizers.OBSERVERS:
        theirs = rows["onnxruntime.quantization, U8S8", observer, "onnxruntime"]
        assert theirs.int8_mac_share > 0.9
        assert theirs.bytes < 0.6 * artifact.stat().st_size
    assert rows["NNCF on OpenVINO", "MINMAX", "openvino"].int8_mac_share > 0.9
