"""A batch is divided among the threads of a call, of which each computes its faces alone."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import tiny_artifact
from runtime.backends.base import Threads
from runtime.errors import EdgeError
from runtime.image import to_tensor
from runtime.manifest import manifest_path, probes_path
from runtime.session import open_session

FACES = to_tensor(tiny_artifact.faces(7))


def second(session):
    """The model that was opened for calls on one thread; None before it was needed."""
    divided = session._divided
    return divided._opened[0] if divided and divided._opened else None


@pytest.mark.parametrize("verify", [True, False])
def test_a_divided_batch_equals_its_faces(artifact, verify):
    with open_session(artifact, "onnxruntime", threads=3, verify=verify) as session:
        single = np.concatenate([session.run(face[None]) for face in FACES])
        session.run(FACES[:2])
        assert second(session) is None, "two faces are too few for three threads"
        for count in (3, 7):
            assert np.array_equal(session.run(FACES[:count]), single[:count])
        assert second(session).threads == Threads(1, 3)
        assert (second(session).verdict is not None) == verify
        with pytest.raises(EdgeError, match=r"lr is float32 \(4, 3, 8, 8\)"):
            session.run(np.zeros((4, 3, 8, 8), np.float32))
        with pytest.raises(EdgeError, match="values from 0 to 255"):
            session.run(FACES * 255 / FACES.max())


def test_parts_are_computed_at_once(artifact, monkeypatch):
    all_are_in = threading.Barrier(3, timeout=20)  # breaks, and raises, if they are not
    with open_session(artifact, "onnxruntime", threads=3, verify=False) as session:
        session.run(FACES)
        runner = second(session)._runner
        run = runner.run
        monkeypatch.setattr(runner, "run", lambda lr: (all_are_in.wait(), run(lr))[1])
        assert session.run(FACES).shape == (7, 3, 128, 128)


def test_any_number_of_threads_may_bring_the_first_batch(artifact):
    with open_session(artifact, "onnxruntime", threads=2) as session:
        expected = np.concatenate([session.run(face[None]) for face in FACES])
        with ThreadPoolExecutor(6) as pool:
            found = list(pool.map(session.run, [FACES] * 6))
    assert all(np.array_equal(sr, expected) for sr in found)


@pytest.mark.parametrize("then", ["gone", "another"])
def test_what_was_opened_goes_on_when_its_file_does_not(artifact, tmp_path, then):
    with open_session(artifact, "onnxruntime", threads=2) as session:
        expected = np.concatenate([session.run(face[None]) for face in FACES])
        if then == "gone":
            artifact.unlink()
        else:
            halved = {name: value / 2 for name, value in tiny_artifact.weights().items()}
            model = tiny_artifact.build(tiny_artifact.FP32, halved)
            other = tiny_artifact.write_artifact(tmp_path / "other", model=model)
            for file in (Path, manifest_path, probes_path):
                file(other).replace(file(artifact))
        assert np.array_equal(session.run(FACES), expected)
        assert second(session) is None


@pytest.mark.parametrize(
    ("backend", "options"),
    [
        ("onnxruntime", {"threads": 1}),
        ("onnxruntime", {"workers": 2}),  # its callers are the threads
        ("onnxruntime", {"threads": 2, "spin": False}),  # opened for one image
        ("openvino", {"threads": 2}),
    ],
)
def test_nothing_is_opened_twice_where_that_is_no_faster(every_backend, artifact, backend, options):
    with open_session(artifact, backend, **options) as session:
        assert session.run(FACES).shape == (7, 3, 128, 128)
        assert session._divided is None


def test_nothing_is_left_running(artifact):
    before = threading.active_count()
    session = open_session(artifact, "onnxruntime", threads=3)
    session.run(FACES)
    assert threading.active_count() > before
    session.close()
    assert threading.active_count() == before
