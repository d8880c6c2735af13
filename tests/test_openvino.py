"""OpenVINO as a backend: the contract of ONNX Runtime's, in FP32 where nothing is quantized."""

import sys
import threading

import numpy as np
import pytest

import tiny_artifact
from runtime.backends import openvino
from runtime.backends.onnxruntime import OnnxRuntimeSession
from runtime.backends.openvino import OpenVinoSession
from runtime.check import check
from runtime.errors import EXIT_MISSING, EdgeError
from runtime.image import to_tensor
from runtime.session import open_session

MODEL = tiny_artifact.build()
LR = to_tensor(tiny_artifact.faces(4))


@pytest.fixture(scope="module")
def session():
    with OpenVinoSession(MODEL, "tiny.onnx") as opened:
        yield opened


def test_it_computes_what_onnx_runtime_does(session):
    """BF16, its own choice on some processors, would be a hundred times further off."""
    with OnnxRuntimeSession(MODEL, "tiny.onnx") as other:
        expected = other.run(LR)
    sr = session.run(LR)
    assert (sr.dtype, sr.shape) == (np.float32, (4, 3, 128, 128))
    assert np.abs(sr - expected).max() < 1e-4


def test_an_output_outlives_the_next_run(session):
    first = session.run(LR[:1])
    kept = first.copy()
    session.run(LR[1:2])
    assert np.array_equal(first, kept)


def test_threads_share_a_session(session):
    expected = session.run(LR)
    results = {}
    threads = [
        threading.Thread(target=lambda i=i: results.__setitem__(i, session.run(LR)))
        for i in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    assert all(np.array_equal(expected, result) for result in results.values())


def test_convolutions_have_their_names_and_precisions(session):
    precisions = session.convolutions()
    assert {"embedded", "local", "global"} <= precisions.keys()
    assert set(precisions.values()) == {"f32"}


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (b"", "OpenVINO cannot open it"),
        (MODEL[: len(MODEL) // 2], "OpenVINO cannot open it"),
        (
            tiny_artifact.build(tiny_artifact.FP32.replace("lr", "low")),
            "input is low f32 [?,3,16,16], expected lr f32",
        ),
    ],
)
def test_what_is_no_model_of_ours_is_named(model, reason):
    with pytest.raises(EdgeError) as caught:
        OpenVinoSession(model, "face.onnx")
    assert str(caught.value).startswith("face.onnx: ")
    assert reason in str(caught.value)


@pytest.mark.parametrize("lr", [np.zeros((1, 3, 8, 8), np.float32), np.zeros((1, 3, 16, 16))])
def test_tensors_of_another_shape_or_type_are_refused(session, lr):
    with pytest.raises(EdgeError, match="expected float32"):
        session.run(lr)


def test_without_openvino_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(EdgeError, match="pip install") as caught:
        OpenVinoSession(MODEL, "tiny.onnx")
    assert caught.value.status == EXIT_MISSING


def test_sessions_and_checks_take_it_by_name(artifact):
    assert openvino.is_installed()
    with open_session(artifact, "openvino") as opened:
        assert (opened.backend, opened.verdict.passed) == ("openvino", True)
    assert check(str(artifact), "openvino").passed
