"""INT8 files hold a budget on the backend that runs them, or are not there."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

import tiny_artifact
from quantize import calibration, sensitivity
from quantize.budget import CORRELATION, WORST, Budget, Candidate, Judgement, hold
from quantize.calibration import harsher, looks_like_faces, read_faces
from quantize.int8 import main, quantize
from quantize.layers import Layer
from quantize.quantizer import Options
from quantize.targets import TARGETS, parse_targets
from runtime.drift import Fidelity
from runtime.errors import EXIT_DRIFT, EXIT_ERROR, EXIT_PRECISION, EXIT_USAGE, EdgeError
from runtime.image import write_image
from runtime.manifest import manifest_path, read_manifest
from runtime.session import open_session

CPU, OPENVINO, TENSORRT = TARGETS.values()
PLAIN_MISSES_DB = 0.0127  # over it with all layers in INT8, under it with one


@pytest.fixture
def calib(tmp_path):
    """24 faces, so 18 to calibrate with and 6 to judge with."""
    folder = tmp_path / "calib"
    for number, face in enumerate(tiny_artifact.faces(24, seed=9)):
        write_image(folder / f"{number:02}.png", face)
    return folder


@pytest.fixture
def subject(artifact, monkeypatch):
    """A tiny fp32.onnx, of a model of 27 dB, in a folder that ./artifacts/aminet-edge is."""
    monkeypatch.chdir(artifact.parents[2])
    manifest = read_manifest(artifact)
    tiny_artifact.write_artifact(artifact.parent, psnr_y=27.0, measured_on=manifest.measured_on)
    return artifact


def error_of(action, *arguments, **options):
    with pytest.raises(EdgeError) as caught:
        action(*arguments, **options)
    return caught.value


def files(subject):
    return sorted(path.name for path in subject.parent.iterdir() if path.suffix == ".onnx")


def test_each_target_gets_what_it_needs(subject, calib):
    result = quantize(subject, [calib])
    assert result.failures == ()
    cpu, openvino, tensorrt, half = result.artifacts
    assert files(subject) == ["fp32.onnx", "int8-trt-fp16.onnx", "int8-trt.onnx", "int8.onnx"]
    assert openvino.artifact == cpu.artifact  # it holds the budget there
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
    backends = [m.backend for m in read_manifest(subject.with_name("int8.onnx")).measured_on]
    assert backends == ["onnxruntime", "openvino"]


def test_manifest_says_of_what_it_was_made_and_how_it_runs(subject, calib):
    quantize(subject, [calib], [CPU], Options(max_drop_db=0.02))
    fp32, int8 = read_manifest(subject), read_manifest(subject.with_name("int8.onnx"))
    assert (int8.precision, int8.target, int8.computed_in) == ("int8", "cpu", "int8")
    assert int8.executes_as == "int8, 100.0% of the multiply-adds, seen in the backend"
    assert (int8.parent_sha256, int8.probes_sha256) == (fp32.sha256, fp32.probes_sha256)
    assert int8.calibration_sha256 == read_faces([calib]).sha256
    assert (int8.psnr_y, int8.max_drop_db) == (27.0, 0.02)
    assert int8.flags["reverted"] == []


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_inference_takes_the_int8_file_in_both_backends(subject, calib, backend):
    quantize(subject, [calib], [CPU, OPENVINO])
    with open_session(backend=backend) as session:
        assert session.artifact.name == "int8.onnx"
        assert (session.backend, session.passed_over) == (backend, ())
        assert session.verdict.fidelity_db > session.verdict.limit_db


def test_the_same_again_is_the_same_file(subject, calib):
    first = quantize(subject, [calib], [CPU])
    content = subject.with_name("int8.onnx").read_bytes()
    assert quantize(subject, [calib], [CPU]) == first
    assert subject.with_name("int8.onnx").read_bytes() == content


def test_layers_are_given_back_for_a_budget_that_all_in_int8_misses(subject, calib):
    (made,) = quantize(subject, [calib], [CPU], Options(max_drop_db=PLAIN_MISSES_DB)).artifacts
    assert made.expected_drift_db <= PLAIN_MISSES_DB
    assert set(made.reverted) == {"embed", "global_weight"}
    assert 0.5 < made.int8_mac_share < 0.95
    assert read_manifest(made.artifact).flags["reverted"] == list(made.reverted)


def test_a_budget_that_cannot_be_held_leaves_no_file(subject, calib, capsys):
    arguments = ["--calib", str(calib), "--max-drop-db", "0.0005", "--target", "cpu"]
    assert main(arguments) == EXIT_DRIFT
    error = capsys.readouterr().err
    assert "does not hold 0.0005 dB" in error
    assert "(2 layers given back: " in error
    assert files(subject) == ["fp32.onnx"]
    assert not list(subject.parent.glob("int8*"))


def test_openvino_gets_a_file_of_its_own_where_the_shared_one_drifts(subject, calib):
    quantize(subject, [calib], [CPU])
    tight = Options(max_drop_db=0.0137)
    (made,) = quantize(subject, [calib], [OPENVINO], tight).artifacts
    assert made.artifact.endswith("int8-openvino.onnx")
    assert made.int8_mac_share == 1  # results need no 8 bits there
    manifest = read_manifest(made.artifact)
    assert manifest.target == "openvino"
    (again,) = quantize(subject, [calib], [OPENVINO]).artifacts
    assert again.artifact.endswith("int8.onnx")
    assert not list(subject.parent.glob("int8-openvino*"))  # which would be preferred


def test_drift_is_measured_on_real_faces(subject, calib, hr_faces):
    (made,) = quantize(subject, [calib], [CPU], Options(data=(str(hr_faces),))).artifacts
    assert abs(made.drift_db) < 0.03
    assert made.drift_db <= made.worst_drift_db


def test_json_has_what_programs_need(subject, calib, capsys):
    assert main(["--calib", str(calib), "--target", "cpu", "--json"]) == 0
    (made,) = json.loads(capsys.readouterr().out)["artifacts"]
    assert {
        *("artifact", "target", "measured_on", "fidelity_db", "expected_drift_db", "drift_db"),
        *("worst_drift_db", "int8_mac_share", "reverted"),
    } <= made.keys()


def test_layers_that_do_not_run_in_int8_can_be_refused(subject, calib, monkeypatch):
    unfused = replace(CPU, quantized_results=False)
    (made,) = quantize(subject, [calib], [unfused]).artifacts
    assert made.int8_mac_share < 0.1  # only what another layer reads
    shutil.rmtree(subject.parent / "none", ignore_errors=True)
    error = error_of(quantize, subject, [calib], [unfused], Options(require_precision=True))
    assert error.status == EXIT_PRECISION
    assert "onnxruntime does not compute 2 of 3 quantized layers in INT8" in str(error)


# The loop, on layers of which the first costs most.

LAYERS = tuple(
    Layer(name, name, "x", "y", "y", name, None, macs)
    for name, macs in (("a", 10), ("b", 10), ("c", 40), ("d", 40))
)
COST = {"a": 8.0, "b": 4.0, "c": 2.0, "d": 1.0}  # squared error


def attempt(layers):
    error = sum(COST[layer.name] for layer in layers)
    fidelity_db = 60 - error
    seen = Judgement(fidelity_db, fidelity_db)
    probed = Fidelity(fidelity_db, fidelity_db, fidelity_db)
    return Candidate(b"", tuple(layers), seen, probed, frozenset(), "1")


@pytest.mark.parametrize(
    ("least_db", "kept"), [(44, "abcd"), (46, "bcd"), (53, "bcd"), (56, "cd"), (58, "d")]
)
def test_the_costliest_layers_are_given_back_and_no_more(least_db, kept):
    budget = Budget(0.03, 27.0 + least_db - Budget(0.03, 27.0).least_seen_db())
    if kept == "d":  # 40 of 100 multiply-adds
        with pytest.raises(EdgeError) as caught:
            hold(budget, LAYERS, 100, attempt, lambda: COST)
        assert caught.value.status == EXIT_DRIFT
    else:
        held = hold(budget, LAYERS, 100, attempt, lambda: COST)
        assert "".join(sorted(layer.name for layer in held.layers)) == kept


def test_a_layer_too_large_to_be_given_back_does_not_end_the_search():
    a, b, _, d = LAYERS
    layers = (replace(a, macs=60), replace(b, macs=20), replace(d, macs=20))
    budget = Budget(0.03, 27.0 + 50 - Budget(0.03, 27.0).least_seen_db())
    held = hold(budget, layers, 100, attempt, lambda: COST)
    assert [layer.name for layer in held.layers] == ["a", "d"]


@pytest.mark.parametrize(
    ("seen", "probed_db", "allowed"),
    [
        (Judgement(53, 42), 49, True),
        (Judgement(51, 51), 51, False),  # the worst of hundreds would lose too much
        (Judgement(53, 41), 49, False),  # one face is far off
        (Judgement(53, 42), 48, False),  # every start would refuse it
        (Judgement(40, 30, 0.03, 0.15), 49, True),  # what was measured outweighs what is expected
        (Judgement(49, 42, 0.04, 0.05), 49, False),
        (Judgement(49, 42, 0.01, 0.16), 49, False),
    ],
)
def test_budget(seen, probed_db, allowed):
    assert Budget(0.03, 27.0).allows(seen, Fidelity(probed_db, probed_db, 20)) is allowed


def test_what_the_worst_face_loses_is_the_error_that_adds_to_the_one_there_is():
    """By its definition, on errors that correlate as much as is expected."""
    budget = Budget(0.03, 27.0)
    residual = np.array([1.0, 0.0])
    size = 10 ** ((27.0 - budget.least_for_the_worst_db()) / 20)
    error = size * np.array([CORRELATION, np.sqrt(1 - CORRELATION**2)])
    lost_db = 20 * np.log10(np.linalg.norm(residual + error))
    assert lost_db == pytest.approx(WORST * 0.03, rel=0.15)


def test_what_is_not_finite_is_over_any_budget():
    probed = Fidelity(100, 100, 100, finite=False)
    assert not Budget(10, None).allows(Judgement(100, 100), probed)


# Calibration sets.


def test_every_fourth_face_judges(calib):
    faces = read_faces([calib])
    assert (len(faces.faces), len(faces.held_out), faces.skipped) == (18, 6, ())


def test_a_pattern_and_larger_faces_will_do(calib):
    write_image(calib / "24.png", np.kron(tiny_artifact.faces(1)[0], np.ones((8, 8, 1), "u1")))
    assert len(read_faces([str(calib / "*.png")]).faces) == 19


def test_a_broken_picture_is_skipped_and_named(subject, calib, capsys):
    (calib / "07.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    assert main(["--calib", str(calib), "--target", "cpu"]) == 0
    assert f"note: skipped: {calib / '07.png'}: is damaged" in capsys.readouterr().err


def break_many(folder):
    for number in range(5):
        (folder / f"{number:02}.png").write_bytes(b"broken")


def keep_few(folder):
    for path in sorted(folder.iterdir())[10:]:
        path.unlink()


def make_alike(folder):
    for path in folder.iterdir():
        write_image(path, tiny_artifact.faces(1)[0])


def make_flat(folder):
    for number, path in enumerate(folder.iterdir()):
        write_image(path, np.full((16, 16, 3), 10 * number, np.uint8))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (break_many, "5 of 24 pictures cannot be used, such as"),
        (keep_few, "holds 10 faces, expected at least 16"),
        (make_alike, "shows the same or nothing in all pictures"),
        (make_flat, "shows the same or nothing in all pictures"),
        (lambda folder: [path.unlink() for path in folder.iterdir()], "holds no picture"),
        (shutil.rmtree, "is not there"),
    ],
)
def test_sets_that_cannot_calibrate(calib, spoil, reason):
    spoil(calib)
    error = error_of(read_faces, [calib])
    assert error.status == EXIT_ERROR
    assert str(error).startswith(str(calib))
    assert reason in str(error)


def test_a_set_far_from_faces_is_named():
    faces = np.zeros((4, 16, 16, 3), np.uint8)
    faces[:, 4:12, 4:12] = 200
    assert looks_like_faces(faces, faces)
    assert not looks_like_faces(255 - faces, faces)


def test_no_more_faces_are_read_than_are_used(calib, monkeypatch):
    monkeypatch.setattr(calibration, "MOST_FACES", 16)
    faces = read_faces([calib])
    assert len(faces.faces) + len(faces.held_out) == 16


def test_harsher_faces_keep_their_mean_color():
    face = np.zeros((1, 16, 16, 3), np.uint8) + 100
    face[:, :8] += 20
    assert sorted(np.unique(harsher(face))) == [94, 126]


def test_halves_of_two_faces_are_among_the_harsher_ones():
    faces = np.full((2, 16, 16, 3), [[[[100]]], [[[120]]]], np.uint8)
    _, _, stacked, _, beside, _ = harsher(faces)
    assert {*stacked[:8].flat, *beside[:, :8].flat} == {94}
    assert {*stacked[8:].flat, *beside[:, 8:].flat} == {126}


# What is no subject.


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: manifest_path(path).unlink(), "nothing without its manifest"),
        (lambda path: path.unlink(), "is not there"),
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
def test_what_cannot_be_quantized_is_one_line(subject, calib, spoil, reason, capsys):
    spoil(subject)
    assert main(["--calib", str(calib)]) == EXIT_ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert reason in line


def test_targets_are_named_as_in_the_table():
    assert parse_targets("tensorrt,cpu") == (CPU, TENSORRT)
    assert error_of(parse_targets, "cpu,gpu").status == EXIT_USAGE
    assert main(["--max-drop-db", "-1"]) == EXIT_USAGE


# Sensitivity.


def test_sensitivity_has_each_layer_and_a_plot(subject, calib, tmp_path, capsys):
    plot = tmp_path / "plot.svg"
    arguments = ["--artifact", str(subject), "--calib", str(calib), "--plot", str(plot), "--json"]
    assert sensitivity.main(arguments) == 0
    layers = json.loads(capsys.readouterr().out)["layers"]
    assert {layer["layer"] for layer in layers} == {"embed", "local_weight", "global_weight"}
    fidelities = [layer["fidelity_db"] for layer in layers]
    assert fidelities == sorted(fidelities)  # the costliest first
    assert all(layer["ms_saved"] is not None for layer in layers)
    assert plot.read_text().count("<rect") == 4
    assert sensitivity.main(arguments[:4]) == 0
    assert "local_weight" in capsys.readouterr().out


def test_a_stopped_measurement_goes_on_where_it_was(subject, calib, monkeypatch):
    opened = []
    open_content = sensitivity.open_content

    def count(*arguments):
        opened.append(arguments)
        return open_content(*arguments)

    monkeypatch.setattr(sensitivity, "open_content", count)
    options = Options(max_drop_db=PLAIN_MISSES_DB, minutes=0)
    error = error_of(quantize, subject, [calib], [CPU], options)
    assert "0 of 3 layers measured after 0 minutes; run it again to go on" in str(error)
    opened.clear()
    sensitivity.sensitivity(subject, [calib])
    assert len(opened) == 4  # FP32, and each layer alone
    opened.clear()
    quantize(subject, [calib], [CPU], replace(options, minutes=1))
    assert len(opened) == 1  # FP32; the rest was remembered
