"""`--backend auto`: the fastest within its limit, chosen once, remembered with its reason."""

import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest

import tiny_artifact
from runtime import cache, diagnosis, infer, selection, shapes, timing
from runtime.errors import EXIT_MISSING, EdgeError
from runtime.selection import Trial, pick
from runtime.session import open_session
from runtime.shapes import Shape

ORT, OV = "onnxruntime", "openvino"
# The determinant, which only ONNX Runtime can compute.
ONLY_IN_ORT = tiny_artifact.FP32.replace(
    "sr = Add (enlarged, detail)",
    """
        determinants = Det (lr)
        zero = Constant <value = float {0}> ()
        nothing = Mul (determinants, zero)
        axes = Constant <value = int64[2] {2, 3}> ()
        none = Unsqueeze (nothing, axes)
        sum = Add (enlarged, detail)
        sr = Add (sum, none)
    """,
)


def trial(backend, ms, artifact="int8.onnx"):
    return Trial(artifact, backend, ms, 50.0)


@pytest.mark.parametrize(
    ("trials", "taken"),
    [
        ([trial(ORT, 8.0), trial(OV, 4.0)], 1),
        ([trial(ORT, 4.4), trial(OV, 4.0)], 0),  # not worth a slower start
        ([trial(ORT, 4.4), trial(ORT, 4.0, "fp32.onnx")], 0),
        ([trial(ORT, 4.0), trial(ORT, 9.0, "fp32.onnx")], 0),
        ([trial(ORT, 9.0), trial(ORT, 4.0, "fp32.onnx")], 1),
        ([trial(OV, 9.0), trial(OV, 4.0, "fp32.onnx")], 1),
        ([Trial("int8.onnx", OV, error="drifts"), trial(ORT, 9.0)], 1),
    ],
)
def test_the_fastest_is_taken(trials, taken):
    winner, reason = pick(trials)
    assert winner is trials[taken]
    assert reason.startswith(f"{winner.face_ms:.2f} ms a face; ")


@pytest.mark.parametrize(
    ("open_ms", "once", "taken"),
    [
        ((150.0, 400.0, 40.0), False, OV),
        ((150.0, 400.0, 40.0), True, ORT),
        ((150.0, 400.0, 500.0), True, ORT),  # the library was loaded by another of its files
        ((430.0, 400.0, 40.0), True, ORT),  # about as fast
        ((130.0, 50.0, 40.0), True, ORT),  # not noticed
        ((900.0, 400.0, 40.0), True, OV),
    ],
)
def test_for_one_image_the_start_counts(open_ms, once, taken):
    """OpenVINO has a face sooner, and the first one later."""
    timed = (trial(ORT, 3.2), trial(OV, 2.1), trial(OV, 5.1, "fp32.onnx"))
    trials = [replace(each, open_ms=ms) for each, ms in zip(timed, open_ms, strict=True)]
    winner, reason = pick(trials, once=once)
    assert (winner.backend, winner.artifact) == (taken, "int8.onnx")
    assert ("ms for the start and a face" in reason) is once


def test_one_image_and_many_are_two_choices(every_backend, artifact):
    with open_session(artifact, once=True) as first:
        assert all(t.open_ms > 0 for t in first.choice.trials)
    with open_session(artifact) as many:
        assert not many.choice.remembered
    for once, choice in ((True, first.choice), (False, many.choice)):
        with open_session(artifact, once=once) as again:
            assert again.choice == replace(choice, remembered=True)


def test_a_command_with_one_image_counts_the_start(every_backend, artifact, face, tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / "faces").mkdir(exist_ok=True)
        shutil.copy(face, tmp_path / "faces" / name)
    for source in (face, tmp_path / "faces"):
        assert infer.main([str(source), "--artifact", str(artifact), "--out", str(tmp_path)]) == 0
    chosen_for = [key["for"] for key, _ in cache.records() if "choice" in key]
    assert sorted(chosen_for) == ["many", selection.ONE_IMAGE]
    assert [choice.once for choice in diagnosis.examine(str(artifact)).choices].count(True) == 1


def test_all_backends_are_tried_once(every_backend, artifact):
    said = []
    with open_session(artifact, say=said.append) as first:
        assert {(t.artifact, t.backend) for t in first.choice.trials} == {
            ("fp32.onnx", ORT),
            ("fp32.onnx", OV),
        }
        assert all(t.face_ms > 0 and t.fidelity_db > 48 for t in first.choice.trials)
        assert f"{first.choice.trials[0].face_ms:.2f}" in first.choice.reason
    assert said == [f"first start: trying 2 ways to run {artifact.parent} on the probes"]
    with open_session(artifact, say=said.append) as second:
        assert second.choice.remembered
        assert (second.backend, second.choice.reason) == (first.backend, first.choice.reason)
        assert second.verdict.remembered
    assert len(said) == 1


def test_a_choice_is_for_these_files_alone(artifact):
    open_session(artifact).close()
    tiny_artifact.write_artifact(artifact.parent, max_drop_db=0.02)
    with open_session(artifact) as session:
        assert not session.choice.remembered


def test_another_backend_is_another_choice(artifact, request):
    open_session(artifact).close()
    request.getfixturevalue("every_backend")
    with open_session(artifact) as session:
        assert len(session.choice.trials) == 2


def test_a_backend_that_fails_is_not_taken(every_backend, artifact):
    tiny_artifact.write_artifact(artifact.parent, model=tiny_artifact.build(ONLY_IN_ORT))
    with open_session(artifact) as session:
        assert session.backend == ORT
        (failed,) = [t for t in session.choice.trials if t.error]
        assert (failed.backend, failed.face_ms) == (OV, None)
        assert "OpenVINO cannot open it" in failed.error
        assert "fp32.onnx in openvino was not taken" in session.choice.reason
        assert session.passed_over == ()


def test_a_remembered_choice_that_drifts_is_chosen_anew(artifact, monkeypatch):
    open_session(artifact).close()
    shape = Shape(threads=None, workers=1, batch=1, face_ms=1.0)
    stale = selection.Choice("int8.onnx", ORT, "was faster", shape)
    monkeypatch.setattr(selection, "recall", lambda key: stale)
    with open_session(artifact) as session:
        assert session.artifact == artifact


def test_a_batch_is_as_good_as_its_faces(artifact):
    with open_session(artifact) as session:
        assert session.batch in (1, shapes.BATCH)
        assert session.choice.shape.batch_levels <= shapes.MAX_BATCH_LEVELS


def run(*arguments):
    return infer.main([str(argument) for argument in arguments])


def test_an_absent_backend_is_5_and_with_fallback_the_next(face, artifact, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, OV, None)
    asked = (face, "--artifact", artifact, "--backend", OV)
    assert run(*asked) == EXIT_MISSING
    assert "pip install 'aminet-edge[openvino]'" in capsys.readouterr().err
    assert run(*asked, "--fallback", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["backend"] == ORT
    assert "backend openvino is not installed" in report["passed_over"][0]


def test_a_failing_backend_falls_back_aloud(every_backend, face, artifact, capsys):
    tiny_artifact.write_artifact(artifact.parent, model=tiny_artifact.build(ONLY_IN_ORT))
    asked = (face, "--artifact", artifact, "--backend", OV)
    assert run(*asked) == 1
    capsys.readouterr()
    assert run(*asked, "--fallback") == 0
    said = capsys.readouterr()
    assert f"passed over: {artifact}: OpenVINO cannot open it" in said.err
    assert "in onnxruntime" in said.out


def test_if_nothing_passes_the_first_reason_is_given(every_backend, artifact):
    artifact.write_bytes(b"damaged")
    with pytest.raises(EdgeError, match="is not the file that its manifest describes"):
        open_session(artifact)


def test_all_take_turns_long_enough_to_have_the_caches():
    seen = []
    runs = [lambda lr, name=name: seen.append(name) for name in "abc"]
    times = timing.take_turns(runs, np.zeros(1), 5)
    block = timing.WARM_UP_RUNS + timing.TIMED_RUNS
    assert "".join(seen) == "".join(name * block for name in "abc") * 5
    assert {len(taken) for taken in times} == {5}
