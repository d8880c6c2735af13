"""INT8 files meet a budget in the backend that runs them, or are not written."""

import json
import shutil
from dataclasses import replace

import pytest

import tiny_artifact
from quantize.calibration import read_calibration
from quantize.int8 import main, quantize
from quantize.options import Int8Options
from quantize.targets import TARGETS, parse_targets
from runtime.check import check
from runtime.drift import write_probes
from runtime.errors import EXIT_DRIFT, EXIT_ERROR, EXIT_PRECISION, EXIT_USAGE, EdgeError
from runtime.image import write_image
from runtime.manifest import manifest_path, read_manifest, write_manifest
from runtime.session import open_session

CPU, OPENVINO, TENSORRT = TARGETS.values()
PLAIN_MISSES_DB = 0.0127  # over it with all layers in INT8, under it with one


def error_of(action, *arguments, **options):
    with pytest.raises(EdgeError) as caught:
        action(*arguments, **options)
    return caught.value


def files(source):
    return sorted(path.name for path in source.parent.iterdir() if path.suffix == ".onnx")


def test_each_target_gets_what_it_needs(source, calib):
    result = quantize(source, [calib])
    assert result.failures == ()
    cpu, openvino, tensorrt, half = result.artifacts
    assert files(source) == ["fp32.onnx", "int8-trt-fp16.onnx", "int8-trt.onnx", "int8.onnx"]
    assert openvino.artifact == cpu.artifact  # it meets the budget there
    assert [made.int8_mac_share for made in result.artifacts] == [1, 1, 1, 1]
    assert [made.emulated for made in result.artifacts] == [False, False, True, True]
    assert all(made.fidelity_db > 48.6 and made.reverted == () for made in result.artifacts)
    assert half.bytes < tensorrt.bytes < cpu.bytes
    budgets = [read_manifest(made.artifact).max_drop_db for made in (cpu, tensorrt, half)]
    assert (
        budgets
        == [CPU.max_drop_db, TENSORRT.max_drop_db, TENSORRT.max_drop_db]
        == [0.02, 0.03, 0.03]
    )
    backends = [m.backend for m in read_manifest(source.with_name("int8.onnx")).measured_on]
    assert backends == ["onnxruntime", "openvino"]


def test_manifest_says_of_what_it_was_made_and_how_it_runs(source, calib):
    quantize(source, [calib], [CPU], Int8Options(max_drop_db=0.02))
    fp32, int8 = read_manifest(source), read_manifest(source.with_name("int8.onnx"))
    assert (int8.precision, int8.target, int8.computed_in) == ("int8", "cpu", "int8")
    assert int8.executes_as == "int8, 100.0% of the multiply-adds, seen in the backend"
    assert (int8.parent_sha256, int8.probes_sha256) == (fp32.sha256, fp32.probes_sha256)
    assert int8.calibration_sha256 == read_calibration([calib]).sha256
    assert (int8.psnr_y, int8.max_drop_db) == (27.0, 0.02)
    assert int8.flags["reverted"] == []


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_inference_takes_the_int8_file_in_both_backends(source, calib, backend):
    quantize(source, [calib], [CPU, OPENVINO])
    with open_session(backend=backend) as session:
        assert session.artifact.name == "int8.onnx"
        assert (session.backend, session.passed_over) == (backend, ())
        assert session.verdict.fidelity_db > session.verdict.limit_db


def test_the_same_again_is_the_same_file(source, calib):
    first = quantize(source, [calib], [CPU])
    content = source.with_name("int8.onnx").read_bytes()
    assert quantize(source, [calib], [CPU]) == first
    assert source.with_name("int8.onnx").read_bytes() == content


def test_layers_are_kept_in_fp32_for_a_budget_that_all_in_int8_misses(source, calib):
    (made,) = quantize(source, [calib], [CPU], Int8Options(max_drop_db=PLAIN_MISSES_DB)).artifacts
    assert made.expected_drift_db <= PLAIN_MISSES_DB
    assert set(made.reverted) == {"embed", "global_weight"}
    assert 0.5 < made.int8_mac_share < 0.95
    assert read_manifest(made.artifact).flags["reverted"] == list(made.reverted)


def test_a_budget_that_cannot_be_met_leaves_no_file(source, calib, capsys):
    arguments = ["--calib", str(calib), "--max-drop-db", "0.0005", "--target", "cpu"]
    assert main(arguments) == EXIT_DRIFT
    error = capsys.readouterr().err
    assert "misses the budget of 0.0005 dB" in error
    assert "(2 layers kept in FP32: " in error
    assert files(source) == ["fp32.onnx"]
    assert not list(source.parent.glob("int8*"))


def test_where_the_budget_is_missed_a_file_of_an_earlier_export_is_deleted(source, calib, capsys):
    """No start would accept it, and a folder that holds it would not start at all."""
    quantize(source, [calib], [CPU])
    path, missed = source.with_name("int8.onnx"), Int8Options(max_drop_db=0.0005)
    (failure,) = quantize(source, [calib], [CPU], missed).failures
    assert "deleted" not in failure
    assert path.is_file()  # of this export: as good as it was
    write_manifest(path, replace(read_manifest(path), probes_sha256="0" * 64))
    (failure,) = quantize(source, [calib], [CPU], missed).failures
    assert failure.endswith("; deleted int8.onnx of an earlier fp32.onnx")
    assert not list(source.parent.glob("int8*"))
    with open_session(source.parent) as session:
        assert session.artifact == source


def test_openvino_gets_a_file_of_its_own_where_the_shared_one_drifts(source, calib):
    quantize(source, [calib], [CPU])
    tight = Int8Options(max_drop_db=0.0137)
    (made,) = quantize(source, [calib], [OPENVINO], tight).artifacts
    assert made.artifact.endswith("int8-openvino.onnx")
    assert made.int8_mac_share == 1  # results need no 8 bits there
    manifest = read_manifest(made.artifact)
    assert manifest.target == "openvino"
    (again,) = quantize(source, [calib], [OPENVINO]).artifacts
    assert again.artifact.endswith("int8.onnx")
    assert not list(source.parent.glob("int8-openvino*"))  # which would be preferred


def test_drift_is_measured_on_real_faces(source, calib, hr_faces):
    (made,) = quantize(source, [calib], [CPU], Int8Options(data=(str(hr_faces),))).artifacts
    assert abs(made.drift_db) < 0.03
    assert made.drift_db <= made.worst_drift_db


def test_json_has_what_programs_need(source, calib, capsys):
    assert main(["--calib", str(calib), "--target", "cpu", "--json"]) == 0
    (made,) = json.loads(capsys.readouterr().out)["artifacts"]
    assert {
        *("artifact", "target", "measured_on", "fidelity_db", "expected_drift_db", "drift_db"),
        *("worst_drift_db", "int8_mac_share", "reverted"),
    } <= made.keys()


def test_layers_that_do_not_run_in_int8_can_be_refused(source, calib, monkeypatch):
    unfused = replace(CPU, quantized_results=False)
    (made,) = quantize(source, [calib], [unfused]).artifacts
    assert made.int8_mac_share < 0.1  # only what another layer reads
    shutil.rmtree(source.parent / "none", ignore_errors=True)
    error = error_of(quantize, source, [calib], [unfused], Int8Options(require_precision=True))
    assert error.status == EXIT_PRECISION
    assert "onnxruntime does not compute 2 of 3 quantized layers in INT8" in str(error)


def test_a_model_of_a_larger_input_takes_the_set_of_its_side(tmp_path):
    """Its manifest says so, and the probes are run at that side."""
    model = tiny_artifact.build(tiny_artifact.FP32_64, tiny_artifact.weights_64())
    write_probes(tmp_path / "probes.npz", tiny_artifact.make_probes(model))
    fp32 = tiny_artifact.write_artifact(tmp_path, model=model, lr_side=64, psnr_y=27.0)
    for folder, side in (("calib", 16), ("calib/64px", 64)):
        for number, face in enumerate(tiny_artifact.faces(24, seed=9, side=side)):
            write_image(tmp_path / folder / f"{number:02}.png", face)
    (made,) = quantize(fp32, [tmp_path / "calib"], [CPU], Int8Options(max_drop_db=0.5)).artifacts
    assert read_manifest(made.artifact).lr_side == 64
    assert check(made.artifact).passed


# What cannot be a source model.


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (
            lambda path: manifest_path(path).unlink(),
            "without its manifest an artifact is",
        ),
        (lambda path: path.unlink(), "not found"),
        (lambda path: path.write_bytes(b"onnx"), "is not the file that its manifest describes"),
        (
            lambda path: tiny_artifact.write_artifact(path.parent, random_weights=True),
            "has random weights",
        ),
        (
            lambda path: tiny_artifact.write_artifact(path.parent, precision="int8"),
            "is int8 already",
        ),
        (
            lambda path: tiny_artifact.write_artifact(
                path.parent, model=tiny_artifact.build(tiny_artifact.FP32.replace("lr", "low"))
            ),
            "expected lr tensor(float)",
        ),
    ],
)
def test_what_cannot_be_quantized_is_one_line(source, calib, spoil, reason, capsys):
    spoil(source)
    assert main(["--calib", str(calib)]) == EXIT_ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert reason in line


def test_targets_are_named_as_in_the_table():
    assert parse_targets("tensorrt,cpu") == (CPU, TENSORRT)
    assert error_of(parse_targets, "cpu,gpu").status == EXIT_USAGE
    assert main(["--max-drop-db", "-1"]) == EXIT_USAGE
