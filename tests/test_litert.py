"""LiteRT files from export to the face, proved before they are published and where they run."""

import json
import shutil
import sys
import threading

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

import tiny_artifact
from export.litert import main as export_main
from export.tflite.model import TfliteModel
from runtime import selection
from runtime.atomic import sha256_file
from runtime.backends import installed
from runtime.backends.litert import LiteRtSession
from runtime.check import check
from runtime.errors import EXIT_DRIFT, EXIT_ERROR, EXIT_MISSING, EXIT_USAGE, EdgeError
from runtime.image import to_tensor
from runtime.infer import main as infer_main
from runtime.manifest import probes_path, read_manifest
from runtime.session import open_session

LR = to_tensor(tiny_artifact.faces(4))


@pytest.fixture(scope="module")
def made(tiny_model, tmp_path_factory):
    """A model's folder with the LiteRT files made of fp32.onnx and int8.onnx; to be copied."""
    folder = tmp_path_factory.mktemp("made") / "tiny"
    shutil.copytree(tiny_model, folder)
    assert export_main(["--artifact", str(folder)]) == 0
    return folder


@pytest.fixture
def folder(made, tmp_path):
    shutil.copytree(made, tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def with_litert(monkeypatch):
    packages = {"onnxruntime": "onnxruntime", "litert": "ai_edge_litert"}
    monkeypatch.setattr(installed, "PACKAGES", packages)


@pytest.fixture
def other_numbers(monkeypatch):
    """A version of LiteRT that computes something else."""
    compute = Interpreter.get_tensor

    def get_tensor(self, index):
        return compute(self, index) * 0.9

    monkeypatch.setattr(Interpreter, "get_tensor", get_tensor)


def error_of(*arguments, **options):
    with pytest.raises(EdgeError) as caught:
        open_session(*arguments, **options)
    return caught.value


def stretched():
    """A LiteRT file of the contract with an operator that XNNPACK does not run."""
    model = TfliteModel()
    lr = model.tensor("lr", (1, 16, 16, 3))
    size = model.constant("size", np.array([128, 128], np.int32))
    sr = model.tensor("sr", (1, 128, 128, 3))
    options = schema.ResizeNearestNeighborOptionsT()
    model.operator("RESIZE_NEAREST_NEIGHBOR", [lr, size], [sr], options)
    return model.to_bytes({"lr": lr}, {"sr": sr}, "stretched", {})


# Export


@pytest.mark.parametrize("name", ["fp32", "fp16", "int8"])
def test_each_file_has_a_manifest_and_passes_its_check(made, name):
    path = made / "litert" / f"{name}.tflite"
    manifest, source = read_manifest(path), "int8" if name == "int8" else "fp32"
    assert manifest.parent_sha256 == sha256_file(made / f"{source}.onnx")
    assert (manifest.precision, manifest.target) == (name, "litert")
    assert manifest.executes_as.startswith("int8, " if name == "int8" else "fp32")
    assert probes_path(path) == made / "probes.npz"
    report = check(str(path))
    assert report.passed
    assert report.backend == "litert"


def test_int8_is_held_to_what_its_onnx_file_reached(made):
    def reached(path):
        return read_manifest(path).measured_on[0].fidelity_db

    onnx, litert = reached(made / "int8.onnx"), reached(made / "litert" / "int8.tflite")
    assert abs(onnx - litert) < 0.5
    assert check(str(made / "litert" / "int8.tflite")).limit_db >= litert - 2.0001


def test_json_lists_the_files_and_how_they_ran(folder, capsys):
    assert export_main(["--artifact", str(folder / "int8.onnx"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    (file,) = report["artifacts"]
    assert report["artifact"] == str(folder / "litert" / "int8.tflite")
    assert file["flags"]["outside_xnnpack"] == []
    assert 0.3 < file["flags"]["int8_mac_share"] < 1


def test_files_written_elsewhere_bring_their_probes(folder, tmp_path):
    out = tmp_path / "elsewhere"
    assert export_main(["--artifact", str(folder / "fp32.onnx"), "--out", str(out)]) == 0
    assert (out / "probes.npz").read_bytes() == (folder / "probes.npz").read_bytes()
    assert check(str(out / "fp32.tflite")).passed


def test_a_version_that_computes_something_else_publishes_nothing(folder, other_numbers, capsys):
    """What was there stays as it was."""
    before = {path: path.read_bytes() for path in (folder / "litert").iterdir()}
    assert export_main(["--artifact", str(folder)]) == EXIT_DRIFT
    assert {path: path.read_bytes() for path in (folder / "litert").iterdir()} == before
    first, second = capsys.readouterr().err.splitlines()
    assert "fp32.tflite: litert" in first
    assert "nothing was written; install the versions in constraints.txt" in first
    assert "int8.tflite: litert" in second


def test_an_operator_without_a_writer_is_named(artifact, capsys):
    assert export_main(["--artifact", str(artifact)]) == EXIT_ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {artifact}: Resize 'enlarged' cannot be converted")
    assert not (artifact.parent / "litert").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.onnx", "none.onnx: is not there"),
        ("empty", "holds none of fp32.onnx, int8.onnx"),
        ("litert/fp32.tflite", "is fp32 for litert, expected one of fp32.onnx, int8.onnx"),
    ],
)
def test_what_it_cannot_be_made_of_is_named(folder, capsys, name, message):
    (folder / "empty").mkdir()
    assert export_main(["--artifact", str(folder / name)]) == EXIT_ERROR
    assert message in capsys.readouterr().err


# The backend


def test_it_computes_what_onnx_runtime_does_face_by_face(made):
    with open_session(made / "litert" / "fp32.tflite") as litert:
        sr = litert.run(LR)
    with open_session(made / "fp32.onnx", "onnxruntime") as onnxruntime:
        expected = onnxruntime.run(LR)
    assert (sr.dtype, sr.shape) == (np.float32, (4, 3, 128, 128))
    assert np.abs(sr - expected).max() < 1e-4


def test_threads_share_a_session(made):
    content = (made / "litert" / "int8.tflite").read_bytes()
    results = {}
    with LiteRtSession(content, "int8.tflite") as session:
        expected = session.run(LR)

        def work(number):
            results[number] = session.run(LR)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(results) == 4
    assert all(np.array_equal(expected, result) for result in results.values())


def test_what_xnnpack_does_not_run_is_reported():
    with LiteRtSession(stretched(), "stretched.tflite") as session:
        assert session.execution().outside_xnnpack == ("RESIZE_NEAREST_NEIGHBOR",)
        assert session.execution().int8_mac_share == 0


def test_opening_it_says_nothing(made, capfd):
    with open_session(made / "litert" / "fp32.tflite"):
        pass
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no flatbuffer", "cannot be opened|cannot open it"),
        (b"", "cannot open it"),
        (stretched()[:400], "cannot open it"),
        (stretched().replace(b"lr\0", b"rl\0"), "has rl float32"),
    ],
    ids=["text", "empty", "truncated", "another contract"],
)
def test_what_is_no_file_of_the_contract_is_named(content, message):
    with pytest.raises(EdgeError, match=message):
        LiteRtSession(content, "x.tflite")


@pytest.mark.parametrize("lr", [LR[:, :, :8], LR.astype(np.float64)], ids=["shape", "type"])
def test_another_input_is_refused(lr):
    with (
        LiteRtSession(stretched(), "x.tflite") as session,
        pytest.raises(EdgeError, match="expected float32"),
    ):
        session.run(lr)


def test_a_version_that_computes_something_else_is_refused_on_the_device(made, other_numbers):
    error = error_of(made / "litert" / "int8.tflite")
    assert error.status == EXIT_DRIFT
    assert "drifts from FP32 in litert on this machine" in str(error)


def test_without_litert_the_command_that_installs_it_is_named(made, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    error = error_of(made / "litert" / "int8.tflite")
    assert error.status == EXIT_MISSING
    assert "pip install 'aminet-edge[litert]'" in str(error)


# Choosing it


def test_a_named_backend_takes_its_own_file_of_a_folder(made, face):
    assert infer_main([str(face), "--artifact", str(made), "--backend", "litert"]) == 0
    with open_session(made, "litert") as session:
        assert session.artifact == made / "litert" / "int8.tflite"


def test_a_folder_without_a_file_for_it_is_named(artifact):
    error = error_of(artifact.parent, "litert")
    assert error.status == EXIT_MISSING
    assert "expected litert/int8.tflite or litert/fp32.tflite" in str(error)
    assert "python -m export.litert" in str(error)


@pytest.mark.parametrize(
    ("name", "backend", "status", "message"),
    [
        ("fp32.onnx", "litert", EXIT_MISSING, "is no LiteRT file, which --backend litert needs"),
        ("litert/fp32.tflite", "openvino", EXIT_USAGE, "is a LiteRT file, which --backend openv"),
    ],
)
def test_a_file_of_another_kind_is_refused(made, name, backend, status, message):
    error = error_of(made / name, backend)
    assert error.status == status
    assert message in str(error)


@pytest.mark.parametrize(
    ("times_ms", "artifact", "backend"),
    [
        ([3.0, 3.0, 1.0], "litert/int8.tflite", "litert"),
        ([1.0, 3.0, 3.0], "int8.onnx", "onnxruntime"),
    ],
)
def test_auto_takes_it_only_where_it_is_faster(
    made, with_litert, monkeypatch, times_ms, artifact, backend
):
    """The times are made up: what is chosen and kept is real."""
    monkeypatch.setattr(selection, "take_turns", lambda *_: [[ms] for ms in times_ms])
    for remembered in (False, True):
        with open_session(made) as session:
            assert (session.artifact, session.backend) == (made / artifact, backend)
            assert session.choice.remembered == remembered


def test_auto_leaves_out_a_file_that_drifts(folder, with_litert, other_numbers):
    with open_session(folder) as session:
        assert session.backend == "onnxruntime"
    (failed,) = [trial for trial in session.choice.trials if trial.error]
    assert failed.artifact == "litert/int8.tflite"
