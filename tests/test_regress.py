"""Regressions: each kind, planted, is caught; a busy machine decides nothing."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from benchmarks import baseline, regress, regression
from benchmarks.baseline import StoredSpeed, learn_tolerance
from benchmarks.harness import facts, machine
from benchmarks.regression import Regression, RegressionReport, Try, compare_speeds
from quantize.activations import calibrate
from quantize.calibration import read_calibration
from quantize.qdq import quantize_layers
from quantize.source import read_source
from quantize.targets import TARGETS
from runtime.atomic import sha256_bytes, write_bytes
from runtime.errors import EXIT_DRIFT, EXIT_ERROR, EXIT_SLOWER, EXIT_USAGE
from runtime.manifest import read_manifest, write_manifest

FILES = ("fp32.onnx", "int8.onnx")


def arguments(folder, *more, files=FILES):
    artifacts = [str(folder / name) for name in files]
    checkpoint = str(folder / "checkpoint.safetensors")
    baselines = str(folder / "baselines")
    return [
        *("--artifact", *artifacts, "--checkpoint", checkpoint, "--baselines", baselines, *more)
    ]


def idle(patch):
    """Take the machine for idle, whatever runs beside these tests; and measure for a short time."""
    patch.setattr(machine, "STAT", Path("nowhere"))
    patch.setattr(regression, "SECONDS", 0.1)
    patch.setattr(regression, "SAMPLE_SECONDS", 0)


@pytest.fixture(scope="module")
def accepted_once(tiny_model, tmp_path_factory):
    """A tiny model with its baseline."""
    folder = tmp_path_factory.mktemp("accepted") / "tiny"
    shutil.copytree(tiny_model, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        idle(patch)
        patch.setattr(regression, "REPEATS", 1)
        assert regress.main(arguments(folder, "--accept", "the first")) == 0
    return folder


@pytest.fixture
def accepted_in_both(accepted_once, tmp_path, monkeypatch):
    """A copy of it, to be spoiled."""
    folder = tmp_path / "tiny"
    shutil.copytree(accepted_once, folder)
    monkeypatch.chdir(folder)
    idle(monkeypatch)
    return folder


@pytest.fixture
def accepted(accepted_in_both, monkeypatch):
    """The same, looked at in ONNX Runtime alone."""
    monkeypatch.setattr(facts, "BACKENDS", ("onnxruntime",))
    return accepted_in_both


def int8_alone(folder, *more):
    return arguments(folder, "--accuracy-only", *more, files=("int8.onnx",))


def plant(path, model):
    """Put another graph in an artifact's place, so that its manifest fits."""
    content = model if isinstance(model, bytes) else model.SerializeToString()
    write_bytes(path, content)
    write_manifest(path, replace(read_manifest(path), sha256=sha256_bytes(content)))


def lines(capsys):
    """The lines about what became worse and slower."""
    reported = capsys.readouterr().err.splitlines()
    return [line for line in reported if line.startswith(("worse: ", "slower: "))]


def test_what_is_as_it_was_passes(accepted_in_both, capsys):
    assert regress.main(arguments(accepted_in_both, "--accuracy-only")) == 0
    assert lines(capsys) == []


def test_a_baseline_says_what_and_why(accepted):
    (path,) = (accepted / "baselines").iterdir()
    stored = json.loads(path.read_text())
    assert path.stem == stored["key"] == regression.this_key()
    assert stored["accepted"]["reason"] == "the first"
    int8 = next(f for f in stored["facts"] if f["artifact"] == "tiny/int8.onnx")
    assert int8["operators"]["QLinearConv"] > 5
    assert 0.5 < int8["int8_mac_share"] <= 1
    assert {speed["artifact"] for speed in stored["speeds"]} == {"tiny/fp32.onnx", "tiny/int8.onnx"}
    assert all(speed["speedup_vs_eager"] > 0 for speed in stored["speeds"])


def test_a_file_for_tensorrt_has_the_share_of_its_manifest(accepted):
    """ONNX Runtime, its proxy, fuses next to nothing there."""
    found = facts.gather(accepted / "int8-trt.onnx", "onnxruntime")
    assert found.int8_mac_share == read_manifest(accepted / "int8-trt.onnx").flags["int8_mac_share"]
    assert list(baseline.beyond_limits(found)) == []


def test_a_broken_scale_is_worse(accepted, capsys):
    """The scale of one channel of one layer, twice as large."""
    path = accepted / "int8.onnx"
    model = onnx.load(path)
    scales = [
        tensor
        for tensor in model.graph.initializer
        if tensor.name.endswith(".weight_scale") and len(tensor.dims) == 1
    ]
    value = numpy_helper.to_array(scales[-1]).copy()
    value[0] *= 2
    scales[-1].CopyFrom(numpy_helper.from_array(value, scales[-1].name))
    plant(path, model)
    assert regress.main(int8_alone(accepted)) == EXIT_DRIFT
    reported = [line for line in lines(capsys) if "tiny/int8.onnx in onnxruntime: fidelity" in line]
    assert any(" dB, was " in line for line in reported)


def test_a_lost_fusion_is_worse(accepted, capsys):
    """Without 8 bits after a convolution ONNX Runtime computes it in FP32."""
    source = read_source(accepted / "fp32.onnx")
    faces = read_calibration([str(accepted / "face-*.png")]).faces
    seen = calibrate(source.model, source.layers, faces)
    target = replace(TARGETS["cpu"], quantized_results=False, quantized_bias=False)
    plant(accepted / "int8.onnx", quantize_layers(seen.model, seen.layers, seen.ranges, target))
    assert regress.main(int8_alone(accepted)) == EXIT_DRIFT
    assert any("% in INT8, was " in line for line in lines(capsys))


def plant_slow_graph(path):
    """Compute the same outputs after a product of large matrices that adds nothing to them."""
    model = onnx.load(path)
    large = np.zeros((1000, 1000), np.float32)
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(large, "large"))
    graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), "first"))
    (last,) = [node for node in graph.node if "sr" in node.output]
    last.output[:] = ["before"]
    graph.node.extend(
        [
            helper.make_node("ReduceMax", ["lr"], ["most"], keepdims=0),
            helper.make_node("Mul", ["large", "most"], ["filled"]),
            helper.make_node("MatMul", ["filled", "large"], ["product"]),
            helper.make_node("ReduceMax", ["product"], ["nothing"], keepdims=0),
            helper.make_node("Add", ["before", "nothing"], ["sr"]),
        ]
    )
    plant(path, model)


def test_a_slower_graph_is_slower(accepted, monkeypatch, capsys):
    monkeypatch.setattr(regression, "TRIES", 1)
    monkeypatch.setattr(baseline, "worse", lambda now, then: [])  # its nodes and its size
    plant_slow_graph(accepted / "fp32.onnx")
    only = arguments(accepted, "--wide", files=("fp32.onnx",))
    assert regress.main(only) == EXIT_SLOWER
    assert any(line.startswith("slower: tiny/fp32.onnx in onnxr") for line in lines(capsys))


def test_on_a_busy_machine_a_slower_graph_neither_passes_nor_fails(accepted, monkeypatch, capsys):
    monkeypatch.setattr(baseline, "worse", lambda now, then: [])
    monkeypatch.setattr(regression, "background_share", lambda seconds: 0.4)
    plant_slow_graph(accepted / "fp32.onnx")
    assert regress.main(arguments(accepted, files=("fp32.onnx",))) == EXIT_ERROR
    reported = capsys.readouterr()
    assert "speed: not comparable: busy (background processes took 40% of the CPU)" in reported.err
    assert "error: the machine is busy; run it again when it is idle" in reported.err
    assert "1 compared" in reported.out  # the accuracy alone


def test_a_busy_machine_makes_no_baseline(accepted, monkeypatch, capsys):
    monkeypatch.setattr(regression, "background_share", lambda seconds: 0.4)
    assert regress.main(arguments(accepted, "--accept", "new", files=("int8.onnx",))) == EXIT_ERROR
    assert "not accepted: the machine is busy" in capsys.readouterr().err
    (path,) = (accepted / "baselines").iterdir()
    assert json.loads(path.read_text())["accepted"]["reason"] == "the first"


@pytest.mark.parametrize(
    ("kinds", "undecided", "status"),
    [
        ((), (), 0),
        (("slower",), (), EXIT_SLOWER),
        (("slower", "worse"), (), EXIT_DRIFT),
        ((), ("a speed",), EXIT_ERROR),
        (("worse",), ("a speed",), EXIT_DRIFT),
    ],
)
def test_exit_status_is_that_of_the_worst(kinds, undecided, status):
    regressions = tuple(Regression(kind, "") for kind in kinds)
    report = RegressionReport("key", True, regressions, (), undecided, (), (), ())
    assert report.status == status


def test_an_unknown_kind_of_processor_has_limits_alone(accepted, monkeypatch, capsys):
    monkeypatch.setattr(regression, "this_key", lambda: "abacus-onnxruntime-9")
    assert regress.main(int8_alone(accepted, "--json")) == 0
    captured = capsys.readouterr()
    assert "no baseline for abacus-onnxruntime-9: only the manifests' limits count" in captured.err
    assert json.loads(captured.out)["known"] is False


def test_beyond_the_manifests_limit_is_worse_anywhere(accepted, monkeypatch, capsys):
    manifest = read_manifest(accepted / "int8.onnx")
    measured = [replace(one, fidelity_db=80.0) for one in manifest.measured_on]
    write_manifest(accepted / "int8.onnx", replace(manifest, measured_on=tuple(measured)))
    monkeypatch.setattr(regression, "this_key", lambda: "abacus-onnxruntime-9")
    assert regress.main(int8_alone(accepted)) == EXIT_DRIFT
    assert "the manifest asks for 78.0" in capsys.readouterr().err
    status = regress.main(arguments(accepted, "--accept", "worse is fine", files=("int8.onnx",)))
    assert status == EXIT_DRIFT  # nor can it become a baseline


def test_another_openvino_is_not_compared(accepted_in_both, capsys):
    (path,) = (accepted_in_both / "baselines").iterdir()
    path.write_text(
        path.read_text().replace(
            '"backend": "openvino",\n   "backend_version": "2',
            '"backend": "openvino",\n   "backend_version": "1',
        )
    )
    assert regress.main(int8_alone(accepted_in_both)) == 0
    assert "the baseline is of 1" in capsys.readouterr().err


SPEED = StoredSpeed("m/a.onnx", "onnxruntime", 2, 4.0, 0.15)


@pytest.mark.parametrize(
    ("speedup", "wide", "slower"),
    [(3.5, False, False), (3.3, False, True), (3.3, True, False), (1.9, True, True)],
)
def test_slower_is_what_the_tolerance_does_not_cover(speedup, wide, slower):
    line = baseline.slower(replace(SPEED, speedup_vs_eager=speedup), SPEED, wide=wide)
    assert (line is not None) == slower


IDLE, BUSY = 0.02, 0.4


def tries(*measured):
    """What each run measures: (speed-up, background share)."""
    left = iter(measured)

    def measure():
        speedup, share = next(left)
        return Try((replace(SPEED, speedup_vs_eager=speedup),), share)

    return measure


@pytest.mark.parametrize(
    ("measured", "slower", "undecided"),
    [
        ([(4.0, IDLE)], False, False),
        ([(1.0, IDLE), (4.0, IDLE)], False, False),  # one slow try is no regression
        ([(1.0, IDLE), (3.0, IDLE), (2.0, IDLE)], True, False),
        (
            [(9.0, BUSY), (9.0, BUSY), (9.0, BUSY)],
            False,
            True,
        ),  # nor a fast one a pass
        ([(1.0, BUSY), (1.0, BUSY), (1.0, BUSY)], False, True),
        ([(9.0, BUSY), (1.0, IDLE), (9.0, BUSY)], True, False),
        ([(1.0, BUSY), (4.0, IDLE)], False, False),
    ],
)
def test_only_an_idle_machine_decides(measured, slower, undecided):
    compared = compare_speeds(tries(*measured), {SPEED.name: SPEED}, wide=False)
    assert (bool(compared.slower), bool(compared.not_comparable)) == (slower, undecided)
    if undecided:
        assert "not comparable: busy (background processes took 40%" in compared.not_comparable[0]


def test_tolerance_is_learned_from_repeats():
    assert learn_tolerance([4.0, 4.0, 4.1]) == baseline.LEAST_TOLERANCE
    assert learn_tolerance([4.0, 3.0, 5.0]) == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        (["--accept", " "], EXIT_USAGE, "expected a reason"),
        (["--artifact", "absent.onnx"], EXIT_ERROR, "absent.onnx"),
        ([], EXIT_ERROR, "make demo"),
    ],
)
def test_what_cannot_be_compared_is_one_line(more, status, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert regress.main(more) == status
    assert message in capsys.readouterr().err


def test_a_damaged_baseline_is_named(accepted, capsys):
    (path,) = (accepted / "baselines").iterdir()
    path.write_text("{}")
    assert regress.main(arguments(accepted, "--accuracy-only")) == EXIT_ERROR
    assert f"{path.name}: is no baseline" in capsys.readouterr().err
