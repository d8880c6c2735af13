"""docs/results.md says what was measured, marks what is the paper's, and leaves out the rest."""

import json
import re

import pytest

from benchmarks import results
from benchmarks.results import U_SHAPES, edff_cost
from benchmarks.studies.quantizers import BEGIN, END, table
from runtime.errors import EdgeError
from test_quantizers import FOUND

QUALITY = {
    "rows": [
        {"artifact": "bicubic", "backend": "pillow", "data": "helen-test", "n": 25, "psnr_y": 23.5}
        | {"ssim_y": 0.66, "psnr_rgb": 22.0, "vif": None, "lpips": 0.61},
        {"artifact": "aminet-edge best", "backend": "torch", "data": "helen-test", "n": 25}
        | {"psnr_y": 26.25, "ssim_y": 0.77, "psnr_rgb": 24.9, "vif": None, "lpips": 0.27}
        | {"gain": 2.75, "intervals": {"gain": [2.514, 2.986]}},
    ]
}
SPEED = {"rows": [{"artifact": "aminet-edge/fp32.onnx", "backend": "onnxruntime", "p50_ms": 9.25}]}

INT8 = {"artifact": "aminet-edge/int8.onnx", "backend": "onnxruntime"}
DRIFT = {
    "rows": [
        {**INT8, "emulated": False, "calibrated_with": "its own set", "faces": 500}
        | {"drift_db": 0.0123, "worst_drift_db": 0.07, "int8_mac_share": 0.988}
        | {"share_of_bytes": 0.27}
    ]
}
RATIOS = {"rows": [{**INT8, "p50_ms": 4.5, "of_fp32": 2.1, "of_best_fp32": 1.7}]}


@pytest.fixture
def measured(tmp_path):
    (tmp_path / "quality.json").write_text(json.dumps(QUALITY))
    (tmp_path / "speed.json").write_text(json.dumps(SPEED))
    return tmp_path


def lines_with(page, words):
    return [line for line in page.splitlines() if words in line]


def test_our_rows_stand_beside_the_papers(measured):
    page = results.results(measured)
    (ours,) = lines_with(page, "aminet-edge best")
    assert ours == "| aminet-edge best (torch) | +2.75 (2.51 to 2.99) | 26.25 | 0.7700 | 0.2700 |"
    (papers,) = lines_with(page, "*the paper's AMINet*")
    assert papers == "| *the paper's AMINet* | +4.06 | 27.01 | 0.8042 | 0.2067 |"


def test_what_was_not_measured_has_no_column_and_no_table(measured):
    page = results.results(measured)
    assert "VIF" not in page
    assert "celeba" not in page.lower()


def test_costs_are_counted_and_times_are_the_commands(measured):
    (row,) = lines_with(results.results(measured), "| aminet-edge |")
    assert re.search(r"\| \d\.\d\d M \| 0\.\d\d G \|", row)
    assert "9.2 (fp32.onnx, onnxruntime)" in row
    (larger,) = lines_with(results.results(measured), "| aminet |")
    assert "15.6 M, 15.6 G" in larger


def test_smaller_files_stand_with_what_they_lose_and_gain(measured):
    (measured / "drift.json").write_text(json.dumps(DRIFT))
    (measured / "ratios.json").write_text(json.dumps(RATIOS))
    page = results.results(measured)
    (row,) = lines_with(page, "| aminet-edge/int8.onnx |")
    figures = "0.012 | 0.070 | 98.8% | 0.27x | 2.10x | 1.70x |"
    assert row == f"| aminet-edge/int8.onnx | onnxruntime | its own set | {figures}"
    assert "500 real faces" in page
    assert "4.5 (int8.onnx, onnxruntime)" in page


def test_without_measurements_only_the_counted_tables_are_written(tmp_path):
    page = results.results(tmp_path)
    assert "Quality" not in page
    assert [line for line in page.splitlines() if line.startswith("## ")] == [
        "## Cost (Table X)",
        "## EDFF alone (Table VI)",
    ]


def test_cost_of_edff_by_hand():
    """1x1 convolution of 2C to C, 3x3 and 5x5 of C to C, 7x7 of the two maps to two weights."""
    params = sum(2 * c * c + c + (9 + 25) * c * c + 2 * c + 2 * 2 * 49 + 2 for c in (32, 64, 128))
    cost = edff_cost(U_SHAPES["SPARNet"])
    assert cost.params == params
    macs = sum(
        side * side * (36 * c * c + 196)
        for c, side in zip((32, 64, 128), results.SIDES, strict=True)
    )
    assert cost.macs == macs


def test_what_is_not_json_is_named(tmp_path):
    (tmp_path / "x.json").write_text("no")
    with pytest.raises(EdgeError, match=r"x\.json: is not JSON"):
        results.results(tmp_path)


def test_quality_of_another_version_is_named(measured):
    rows = [{**QUALITY["rows"][0], "sharpness": 1.0}]
    (measured / "quality.json").write_text(json.dumps({"rows": rows}))
    with pytest.raises(EdgeError, match=r"not what benchmarks\.accuracy writes"):
        results.results(measured)


def test_command_writes_the_page(measured, capsys):
    out = measured / "docs" / "results.md"
    assert results.main(["--measured", str(measured), "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert out.read_text().startswith("# Results")


def test_engines_stand_where_quantization_is_explained(measured, tmp_path):
    (measured / "engines.json").write_text(json.dumps(FOUND))
    doc = tmp_path / "quantization.md"
    doc.write_text(f"before\n{BEGIN}\n{END}\n")
    out = ["--measured", str(measured), "--out", str(tmp_path / "results.md")]
    assert results.main([*out, "--doc", str(doc)]) == 0
    assert table(FOUND) in doc.read_text()
