"""The released aminet-edge in INT8: what it must keep, on synthetic faces and on real ones."""

from pathlib import Path

import pytest

from face_tars import ROOT, face_tars
from runtime.check import check

WEIGHTS = ROOT / "aminet" / "weights" / "aminet-edge.safetensors"
# File and backend -> PSNR-Y lost at most, in the mean and on the worst face.
DRIFT_DB = {
    ("int8.onnx", "onnxruntime"): (0.02, 0.1),
    ("int8.onnx", "openvino"): (0.03, 0.15),
    ("int8-trt.onnx", "onnxruntime"): (0.03, 0.15),
    ("int8-trt-fp16.onnx", "onnxruntime"): (0.03, 0.15),
}
# The files for TensorRT, whose pairs ONNX Runtime does not fuse, take twice as long a face: the 500
# of celeba-test are theirs in the soak alone.
CASES = [
    pytest.param(name, backend, faces, id=f"{name} in {backend}, {faces}", marks=marks)
    for name, backend in DRIFT_DB
    for faces, marks in (
        [("celeba-val", ()), ("celeba-test", pytest.mark.soak)]
        if "trt" in name
        else [("celeba-test", ())]
    )
]

pytestmark = pytest.mark.skipif(not WEIGHTS.is_file(), reason=f"{WEIGHTS} is not there")


@pytest.fixture(scope="module")
def made(edge_quantized):
    return edge_quantized


def test_nearly_all_is_int8_and_meets_the_budget(made, edge_artifact):
    assert made.failures == ()
    assert [(Path(one.artifact).name, one.measured_on.split()[0]) for one in made.artifacts] == [
        ("int8.onnx", "onnxruntime"),
        ("int8.onnx", "openvino"),
        ("int8-trt.onnx", "onnxruntime"),
        ("int8-trt-fp16.onnx", "onnxruntime"),
    ]
    for one in made.artifacts:
        assert one.int8_mac_share > 0.95
        assert one.expected_drift_db < 0.03
        assert one.bytes < 0.3 * edge_artifact.stat().st_size


def test_fp16_keeps_60_db_stored_or_computed_whatever_sums_are(edge_halves):
    for made in edge_halves:
        assert min(made.fidelity_db, made.extremes_fidelity_db) >= 60
        assert made.fp16_sums_fidelity_db is None or made.fp16_sums_fidelity_db >= 60


@pytest.mark.faces
@pytest.mark.parametrize(("name", "backend", "faces"), CASES)
def test_drift_on_real_faces(made, edge_artifact, name, backend, faces):
    data = [str(tar) for tar in face_tars(faces)]
    report = check(str(edge_artifact.with_name(name)), backend, data)
    mean_db, worst_db = DRIFT_DB[name, backend]
    assert report.passed
    assert report.data.drift_db <= mean_db
    assert report.data.worst_drift_db <= worst_db
