"""What real faces showed once goes with the calibration set, and holds for the same files only."""

import json
from dataclasses import replace

import pytest

from quantize import drift_record
from quantize.drift_record import read_records, write_records
from quantize.int8 import main, quantize
from quantize.options import Int8Options
from quantize.targets import TARGETS
from runtime.errors import EXIT_USAGE, EdgeError
from runtime.manifest import read_manifest, write_manifest

CPU, OPENVINO, TENSORRT = TARGETS.values()
MISSED_DB = 0.0127  # by expectation, with all layers in INT8; these faces lose less
TIGHT = Int8Options(max_drop_db=MISSED_DB)


@pytest.fixture
def recorded(source, calib, hr_faces):
    """The record of a run on real faces, whose files are deleted."""
    options = replace(TIGHT, data=(str(hr_faces),), record=True)
    result = quantize(source, [calib], options=options)
    assert not result.failures
    for made in result.artifacts:
        assert made.drift_faces
        assert not made.drift_recorded
    for path in source.parent.glob("int8*"):
        path.unlink()
    return calib / "drift.json"


def sha256_of(source):
    return read_manifest(source).checkpoint_sha256


def test_without_real_faces_the_recorded_drift_decides(source, calib, recorded):
    result = quantize(source, [calib], options=TIGHT)
    cpu, openvino, *_ = result.artifacts
    assert [made.reverted for made in result.artifacts] == [()] * 4
    assert all(made.drift_recorded and made.drift_db <= MISSED_DB for made in result.artifacts)
    assert openvino.artifact == cpu.artifact
    assert not any("by expectation only" in note for note in result.notes)
    flags = read_manifest(cpu.artifact).flags
    assert (flags["drift_recorded"], flags["drift_faces"]) == (True, cpu.drift_faces)
    of_files = {(each.target, each.file): each for each in read_records([calib], sha256_of(source))}
    assert set(of_files) == {
        *(("cpu", "int8.onnx"), ("openvino", "int8.onnx")),
        *(("tensorrt", "int8-trt.onnx"), ("tensorrt", "int8-trt-fp16.onnx")),
    }
    assert of_files["cpu", "int8.onnx"].drift_db == cpu.drift_db
    recorded.unlink()
    (expected,) = quantize(source, [calib], [CPU], TIGHT).artifacts
    assert expected.reverted
    assert (expected.drift_db, expected.drift_recorded) == (None, False)


@pytest.mark.parametrize(
    "changed",
    [
        {"checkpoint_sha256": "0" * 64},  # other weights
        {"fidelities_db": (60.0, 60.0, 60.0, 60.0)},  # it was closer to FP32 then
        {"max_drop_db": 0.5},
        {"drift_db": 0.02},
        {"worst_drift_db": 0.07},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_of_anything_else_it_says_nothing(source, calib, recorded, changed):
    records = read_records([calib], sha256_of(source))
    recorded.unlink()
    write_records(recorded, [replace(record, **changed) for record in records])
    (made,) = quantize(source, [calib], [CPU], TIGHT).artifacts
    assert made.reverted
    assert not made.drift_recorded


def test_layers_that_were_kept_in_fp32_are_kept_again(source, calib, recorded):
    records = read_records([calib], sha256_of(source))
    write_records(recorded, [replace(record, fp32_layers=("embed",)) for record in records])
    (made,) = quantize(source, [calib], [CPU], TIGHT).artifacts
    assert made.reverted == ("embed",)


def test_real_faces_outweigh_the_record(source, calib, recorded, hr_faces):
    records = read_records([calib], sha256_of(source))
    write_records(recorded, [replace(record, fp32_layers=("embed",)) for record in records])
    (made,) = quantize(source, [calib], [CPU], replace(TIGHT, data=(str(hr_faces),))).artifacts
    assert (made.reverted, made.drift_recorded) == ((), False)


def test_a_model_trained_again_replaces_its_record(source, calib, recorded, hr_faces):
    before = json.loads(recorded.read_text())
    other = replace(read_records([calib], sha256_of(source))[0], model="other", target="cpu")
    write_records(recorded, [other])
    manifest = read_manifest(source)
    write_manifest(source, replace(manifest, checkpoint_sha256="1" * 64))
    arguments = ["--calib", str(calib), "--target", "cpu", "--data", str(hr_faces), "--record"]
    assert main([*arguments, "--max-drop-db", str(MISSED_DB)]) == 0
    after = json.loads(recorded.read_text())
    assert len(after) == len(before) + 1
    of_cpu = {each["model"]: each for each in after if each["target"] == "cpu"}
    assert of_cpu["other"]["checkpoint_sha256"] == manifest.checkpoint_sha256
    assert of_cpu[manifest.model]["checkpoint_sha256"] == "1" * 64


def test_a_damaged_record_is_named(source, calib, recorded, monkeypatch):
    def spoil(change):
        records = json.loads(recorded.read_text())
        change(records[0])
        return json.dumps(records)

    for content in (
        "",
        "{",
        '{"a": 1}',
        "[1]",
        "[{}]",
        "[" * 10_000,
        spoil(lambda record: record.update(drift_db=float("nan"))),
        spoil(lambda record: record.update(drift_db="0.1")),
        spoil(lambda record: record.update(fidelities_db=[50])),
        spoil(lambda record: record.update(fp32_layers=[1])),
        spoil(lambda record: record.pop("target")),
    ):
        recorded.write_text(content)
        with pytest.raises(EdgeError, match=r"drift\.json: not a record of drift .*--record"):
            quantize(source, [calib], [CPU], TIGHT)
    monkeypatch.setattr(drift_record, "MAX_BYTES", 10)
    with pytest.raises(EdgeError, match=r"drift\.json"):
        quantize(source, [calib], [CPU], TIGHT)


def test_a_record_needs_real_faces_and_a_folder(source, calib, hr_faces, capsys):
    assert main(["--calib", str(calib), "--record"]) == EXIT_USAGE
    assert "--record: needs --data" in capsys.readouterr().err
    pattern = [*("--calib", f"{calib}/*.png", "--data", str(hr_faces)), "--record"]
    assert main(pattern) == EXIT_USAGE
    assert "none is a folder" in capsys.readouterr().err
