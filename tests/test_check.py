"""`python -m runtime.check`: never believes a remembered verdict, and measures real faces."""

import json

import pytest

import tiny_artifact
from runtime import check
from runtime.errors import EdgeError
from runtime.manifest import Manifest
from runtime.session import open_session
from test_session import FAULTY


def run(*arguments):
    return check.main([str(argument) for argument in arguments])


def test_a_sound_artifact_passes(artifact, capsys):
    assert run(artifact) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "faces      100.0 dB to FP32, at least 80.0" in said.out


def test_a_folder_or_nothing_is_what_infer_would_try_first(artifact, capsys, monkeypatch):
    int8 = tiny_artifact.write_artifact(artifact.parent, "int8.onnx")
    monkeypatch.chdir(artifact.parent.parent.parent)
    for named in ([], [artifact.parent], ["--artifact", artifact.parent]):
        assert run(*named, "--json") == 0
        assert json.loads(capsys.readouterr().out)["artifact"].endswith("aminet-edge/int8.onnx")
    assert run("--artifact", artifact) == 0
    assert int8.unlink() is None
    assert run() == 0


def test_json_has_all_figures(artifact, capsys):
    assert run(artifact, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] is True
    assert report["backend"] == "onnxruntime"
    assert report["fidelity_db"] == report["worst_fidelity_db"] == 100
    assert report["extremes_fidelity_db"] == 100
    assert (report["limit_db"], report["extremes_limit_db"]) == (80, 80)
    assert report["data"] is None


def test_a_faulty_artifact_is_reported_and_fails(artifact, capsys):
    tiny_artifact.write_artifact(artifact.parent, model=FAULTY)
    assert run(artifact, "--json") == 3
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert report["passed"] is False
    assert report["fidelity_db"] < report["limit_db"]
    assert said.err.startswith(f"error: {artifact}: drifts from FP32")
    assert said.err.count("\n") == 1


def test_a_remembered_verdict_is_not_believed(artifact, monkeypatch):
    open_session(artifact).close()
    with open_session(artifact) as session:
        assert session.verdict.remembered
    monkeypatch.setattr("runtime.cache.recall", None)  # would fail if it were asked
    assert check.check(str(artifact)).passed


def test_outputs_that_are_not_finite_fail(artifact):
    weights = tiny_artifact.weights()
    weights["embed_bias"][:] = float("nan")
    tiny_artifact.write_artifact(artifact.parent, model=tiny_artifact.build(initializers=weights))
    report = check.check(str(artifact))
    assert (report.finite, report.passed) == (False, False)


def test_real_faces_show_no_drift_of_fp32_itself(artifact, hr_faces):
    report = check.check(str(artifact), data=[str(hr_faces)])
    assert report.passed
    assert report.data.faces == 3
    assert 20 < report.data.psnr_y < 60
    assert (report.data.drift_db, report.data.worst_drift_db) == (0, 0)
    assert report.data.fidelity_db == 100


def test_real_faces_show_the_drift_of_int8(artifact, hr_faces, capsys):
    model = tiny_artifact.build(tiny_artifact.INT8, tiny_artifact.quantized_weights())
    int8 = tiny_artifact.write_artifact(artifact.parent, "int8.onnx", model, psnr_y=27.0)
    report = check.check(str(int8), data=[str(hr_faces)])
    assert abs(report.data.drift_db) <= report.data.worst_drift_db < 0.1
    assert 50 < report.data.fidelity_db < 100
    assert 0 < report.expected_drift_db < 0.03
    assert run(int8, "--data", hr_faces) == 0
    assert "dB lost against FP32, at most 0.03" in capsys.readouterr().out


def test_drift_on_real_faces_over_the_limit_fails(artifact, hr_faces):
    model = tiny_artifact.build(tiny_artifact.INT8, tiny_artifact.quantized_weights())
    int8 = tiny_artifact.write_artifact(artifact.parent, "int8.onnx", model, max_drop_db=1e-9)
    report = check.check(str(int8), data=[str(hr_faces)])
    assert report.passed == (report.data.drift_db <= 1e-9)


def test_without_fp32_the_drift_is_not_known(artifact, hr_faces, capsys):
    model = tiny_artifact.build(tiny_artifact.INT8, tiny_artifact.quantized_weights())
    int8 = tiny_artifact.write_artifact(artifact.parent, "int8.onnx", model)
    artifact.unlink()
    assert check.check(str(int8), data=[str(hr_faces)]).data.drift_db is None
    assert run(int8, "--data", hr_faces) == 0
    assert "not known: fp32.onnx is not beside the artifact" in capsys.readouterr().out


def test_random_weights_are_refused(artifact):
    tiny_artifact.write_artifact(artifact.parent, random_weights=True)
    with pytest.raises(EdgeError, match="has random weights, for tests"):
        check.check(str(artifact))


def test_an_unknown_psnr_gives_no_expected_drift(artifact):
    assert Manifest.psnr_y is None
    assert check.check(str(artifact)).expected_drift_db is None


def test_errors_are_one_json_object_too(tmp_path, capsys):
    for arguments, status in (([tmp_path / "absent.onnx"], 1), (["--backend"], 2)):
        try:
            ended = check.main([*map(str, arguments), "--json"])
        except SystemExit as usage:
            ended = usage.code
        said = capsys.readouterr()
        answer = json.loads(said.out)
        assert (ended, answer["status"]) == (status, status)
        assert f"error: {answer['error']}" in said.err
