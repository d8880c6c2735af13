"""Post-training quantizers are compared on one network, in each backend that runs their files."""

import pytest

import tiny_artifact
from benchmarks.studies.quantized_files import OBSERVERS, OUR_OBSERVER
from benchmarks.studies.quantizers import compare_quantizers
from runtime.image import write_image


@pytest.mark.soak
def test_each_file_is_evaluated_in_each_backend_that_runs_it(artifact, tmp_path, hr_faces):
    pytest.importorskip("nncf")
    for number, face in enumerate(tiny_artifact.faces(24, seed=9)):
        write_image(tmp_path / "calib" / f"{number:02}.png", face)
    found = compare_quantizers(artifact, [tmp_path / "calib"], [str(hr_faces)])
    rows = {(row.quantizer, row.observer, row.backend): row for row in found.rows}
    assert len({row.quantizer for row in found.rows if row.backend == "openvino"}) == 8
    assert len(rows) == len(found.rows) == 22
    ours = rows["quantize.int8, cpu", OUR_OBSERVER, "onnxruntime"]
    assert ours.int8_mac_share == 1
    assert ours.fidelity_db > 45
    assert rows["none", "", "openvino"].fidelity_db > 80
    for observer in OBSERVERS:
        theirs = rows["onnxruntime.quantization, U8S8", observer, "onnxruntime"]
        assert theirs.int8_mac_share > 0.9
        assert theirs.bytes < 0.6 * artifact.stat().st_size
    assert rows["NNCF on OpenVINO", "MINMAX", "openvino"].int8_mac_share > 0.9
