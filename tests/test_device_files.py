"""LiteRT and ncnn files, proved before they are published and again where they run."""

import json
import shutil
import sys
import threading

import ncnn
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

import tiny_artifact
from export.litert import main as export_litert
from export.ncnn import main as export_ncnn
from export.tflite.model import TfliteModel
from runtime import selection
from runtime.atomic import sha256_file
from runtime.backends import installed
from runtime.backends.litert import LiteRtSession
from runtime.backends.ncnn import NcnnSession
from runtime.check import check
from runtime.errors import EXIT_DRIFT, EXIT_ERROR, EXIT_MISSING, EXIT_USAGE, EdgeError
from runtime.image import to_tensor
from runtime.infer import main as infer_main
from runtime.manifest import probes_path, read_manifest
from runtime.session import open_session

LR = to_tensor(tiny_artifact.faces(4))
EXPORT = {"litert": export_litert, "ncnn": export_ncnn}
SUFFIX = {"litert": "tflite", "ncnn": "param"}
BOTH = pytest.mark.parametrize("target", EXPORT)


@pytest.fixture
def made(device_model):
    return device_model


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
    """Versions of LiteRT and ncnn that compute something else."""
    compute, extract = Interpreter.get_tensor, ncnn.Extractor.extract

    def get_tensor(self, index):
        return compute(self, index) * 0.9

    def extract_other(self, name):
        status, made = extract(self, name)
        return status, np.array(made) * 0.9

    monkeypatch.setattr(Interpreter, "get_tensor", get_tensor)
    monkeypatch.setattr(ncnn.Extractor, "extract", extract_other)


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


@BOTH
@pytest.mark.parametrize("name", ["fp32", "fp16", "int8"])
def test_each_file_has_a_manifest_and_passes_its_check(made, target, name):
    path = made / target / f"{name}.{SUFFIX[target]}"
    manifest = read_manifest(path)
    source = "fp32" if name != "int8" else {"litert": "int8", "ncnn": "int8-trt"}[target]
    assert manifest.parent_sha256 == sha256_file(made / f"{source}.onnx")
    assert (manifest.precision, manifest.target) == (name, target)
    assert manifest.executes_as.startswith("int8, " if name == "int8" else "fp32")
    assert probes_path(path) == made / "probes.npz"
    report = check(str(path))
    assert report.passed
    assert report.backend == target


@BOTH
def test_int8_is_held_to_what_its_onnx_file_reached(made, target):
    def reached(path):
        return read_manifest(path).measured_on[0].fidelity_db

    onnx = reached(made / {"litert": "int8.onnx", "ncnn": "int8-trt.onnx"}[target])
    path = made / target / f"int8.{SUFFIX[target]}"
    assert abs(onnx - reached(path)) < 0.5
    assert check(str(path)).limit_db >= reached(path) - 2.0001


@BOTH
def test_json_lists_the_files_and_how_they_ran(folder, capsys, target):
    source = folder / {"litert": "int8.onnx", "ncnn": "int8-trt.onnx"}[target]
    assert EXPORT[target](["--artifact", str(source), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    (file,) = report["artifacts"]
    assert report["artifact"] == str(folder / target / f"int8.{SUFFIX[target]}")
    assert 0.3 < file["flags"]["int8_mac_share"] < 1
    assert file["flags"].get("outside_xnnpack", []) == []


@BOTH
def test_files_written_elsewhere_bring_their_probes(folder, tmp_path, target):
    out = tmp_path / "elsewhere"
    assert EXPORT[target](["--artifact", str(folder / "fp32.onnx"), "--out", str(out)]) == 0
    assert (out / "probes.npz").read_bytes() == (folder / "probes.npz").read_bytes()
    assert check(str(out / f"fp32.{SUFFIX[target]}")).passed


@BOTH
def test_a_version_that_computes_something_else_publishes_nothing(
    folder, other_numbers, capsys, target
):
    """What was there stays as it was."""
    before = {path: path.read_bytes() for path in (folder / target).iterdir()}
    assert EXPORT[target](["--artifact", str(folder)]) == EXIT_DRIFT
    assert {path: path.read_bytes() for path in (folder / target).iterdir()} == before
    first, second = capsys.readouterr().err.splitlines()
    assert f"fp32.{SUFFIX[target]}: {target}" in first
    assert "nothing was written; install the versions in constraints.txt" in first
    assert f"int8.{SUFFIX[target]}: {target}" in second


@BOTH
def test_an_operator_without_a_writer_is_named(artifact, capsys, target):
    assert EXPORT[target](["--artifact", str(artifact)]) == EXIT_ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {artifact}: Resize 'enlarged' cannot be converted")
    assert not (artifact.parent / target).exists()


@BOTH
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.onnx", "none.onnx: not found"),
        ("empty", "holds none of fp32.onnx, int8"),
        ("litert/fp32.tflite", "is fp32 for litert, expected one of fp32.onnx, int8"),
    ],
)
def test_what_it_cannot_be_made_of_is_named(folder, capsys, target, name, message):
    (folder / "empty").mkdir()
    assert EXPORT[target](["--artifact", str(folder / name)]) == EXIT_ERROR
    assert message in capsys.readouterr().err


# The backend


@BOTH
def test_it_computes_what_onnx_runtime_does_face_by_face(made, target):
    with open_session(made / target / f"fp32.{SUFFIX[target]}") as session:
        sr = session.run(LR)
    with open_session(made / "fp32.onnx", "onnxruntime") as onnxruntime:
        expected = onnxruntime.run(LR)
    assert (sr.dtype, sr.shape) == (np.float32, (4, 3, 128, 128))
    assert np.abs(sr - expected).max() < 1e-4


@BOTH
def test_threads_share_a_session(made, target):
    results = {}
    with open_session(made / target / f"int8.{SUFFIX[target]}") as session:
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


@BOTH
def test_opening_it_says_nothing(made, capfd, target):
    with open_session(made / target / f"fp32.{SUFFIX[target]}"):
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


@BOTH
def test_a_version_that_computes_something_else_is_refused_on_the_device(
    made, other_numbers, target
):
    error = error_of(made / target / f"int8.{SUFFIX[target]}")
    assert error.status == EXIT_DRIFT
    assert f"drifts from FP32 in {target} on this machine" in str(error)


@BOTH
def test_without_its_library_the_command_that_installs_it_is_named(made, monkeypatch, target):
    monkeypatch.setitem(sys.modules, {"litert": "ai_edge_litert", "ncnn": "ncnn"}[target], None)
    error = error_of(made / target / f"int8.{SUFFIX[target]}")
    assert error.status == EXIT_MISSING
    assert f"pip install 'aminet-edge[{target}]'" in str(error)


PARAM = "7767517\n2 2\nInput lr 0 1 lr 0=16 1=16 2=3\nInterp sr 1 1 lr sr 0=1 1=8.0 2=8.0\n"


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ("no network", "has no input, expected one input lr"),
        (PARAM.replace("2=3", "2=1"), "has Input lr 0 1 lr 0=16 1=16 2=1, expected"),
        (PARAM.replace("sr", "rs"), "a layer that makes sr"),
        (PARAM.replace("Interp", "Enlarge"), "ncnn cannot open it"),
    ],
)
def test_what_is_no_network_of_the_contract_is_named(param, message):
    with pytest.raises(EdgeError, match=message):
        NcnnSession(param.encode(), b"", "x.param")


@pytest.mark.parametrize("change", ["damaged", "of another file", "gone"])
def test_weights_that_do_not_belong_to_a_network_are_named(folder, change):
    weights = folder / "ncnn" / "int8.bin"
    if change == "gone":
        weights.unlink()
    else:
        other = (folder / "ncnn" / "fp16.bin").read_bytes()
        weights.write_bytes(other if change == "of another file" else weights.read_bytes()[:-4])
    assert str(weights) in str(error_of(folder / "ncnn" / "int8.param"))


# Choosing it


@BOTH
def test_a_named_backend_takes_its_own_file_of_a_folder(made, face, target):
    assert infer_main([str(face), "--artifact", str(made), "--backend", target]) == 0
    with open_session(made, target) as session:
        assert session.artifact == made / target / f"int8.{SUFFIX[target]}"


@BOTH
def test_a_folder_without_a_file_for_it_is_named(artifact, target):
    error = error_of(artifact.parent, target)
    assert error.status == EXIT_MISSING
    wanted = [f"{target}/{name}.{SUFFIX[target]}" for name in ("int8", "fp32")]
    assert f"expected {' or '.join(wanted)}" in str(error)
    assert f"python -m export.{target}" in str(error)


@pytest.mark.parametrize(
    ("name", "backend", "status", "message"),
    [
        ("fp32.onnx", "litert", EXIT_MISSING, "is not a LiteRT file, which --backend litert"),
        ("litert/fp32.tflite", "openvino", EXIT_USAGE, "is a LiteRT file, which --backend openv"),
        ("ncnn/fp32.param", "litert", EXIT_USAGE, "is a ncnn network, which --backend litert does"),
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
