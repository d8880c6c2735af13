"""Many faces: calls at once on one thread each, in the shape that was the fastest here."""

import threading

import numpy as np
import pytest

import tiny_artifact
from runtime import session as sessions
from runtime import shapes
from runtime.backends.base import ALL_CORES, Threads
from runtime.errors import EXIT_USAGE, EdgeError
from runtime.image import to_tensor, write_image
from runtime.infer import InferOptions, infer
from runtime.media import models
from runtime.session import open_session
from runtime.shapes import BATCH, find_shape, ways_to_share
from runtime.timing import take_turns

FACES = to_tensor(tiny_artifact.faces(6))


@pytest.mark.parametrize(
    ("threads", "workers", "cores", "ways"),
    [
        (None, 1, 8, [ALL_CORES]),
        (None, None, 1, [ALL_CORES]),
        (None, None, 2, [Threads(1, 2), ALL_CORES]),
        (None, None, 8, [Threads(1, 8), Threads(1, 4), ALL_CORES]),
        (None, 3, 8, [Threads(1, 3)]),
        (2, None, 8, [Threads(2, 4)]),
        (4, None, 2, [Threads(4, 1)]),
        (2, 1, 8, [Threads(2, 1)]),
        (2, 3, 8, [Threads(2, 3)]),
    ],
)
def test_the_ways_to_share_the_cores(threads, workers, cores, ways):
    assert ways_to_share(threads, workers, cores) == ways


@pytest.mark.parametrize(("threads", "workers"), [(0, 1), (-1, None), (None, 0)])
def test_no_threads_and_no_workers_are_refused(artifact, threads, workers):
    with pytest.raises(EdgeError, match="expected 1 or more") as caught:
        open_session(artifact, threads=threads, workers=workers)
    assert caught.value.status == EXIT_USAGE


def test_threads_of_a_gpu_are_refused(artifact):
    with pytest.raises(EdgeError, match="computes on a GPU; leave it out"):
        open_session(artifact, "onnxruntime-cuda", threads=2)


class Timed:
    """Stands in for a session; a call takes what `call_ms` and `face_ms` say."""

    artifact, backend, lr_side, verdict = "tiny.onnx", "onnxruntime", 16, None

    def __init__(self, threads, call_ms, face_ms, levels=0):
        self.threads, self.call_ms, self.face_ms, self.levels = threads, call_ms, face_ms, levels

    def run(self, lr):
        shift = self.levels / 255 if len(lr) > 1 else 0
        return np.full((len(lr), 3, 128, 128), 0.5 + shift, np.float32)

    def close(self):
        pass


@pytest.mark.parametrize(
    ("tried", "taken"),
    [
        ([Timed(Threads(1, 2), 0, 8), Timed(ALL_CORES, 0, 6)], (1, 2, 1)),  # two beat one
        ([Timed(Threads(1, 2), 0, 8), Timed(ALL_CORES, 0, 3)], (None, 1, 1)),  # they do not
        ([Timed(ALL_CORES, 8, 2)], (None, 1, BATCH)),  # a call costs, not a face
        ([Timed(ALL_CORES, 8, 2, levels=3)], (None, 1, 1)),  # which changes too much
    ],
)
def test_the_fastest_shape_is_taken(tried, taken, monkeypatch):
    def take_turns(runs, lr, turns, callers, _):
        return [
            [(run.__self__.call_ms + len(lr) * run.__self__.face_ms) / callers] * turns
            for run in runs
        ]

    monkeypatch.setattr(shapes, "take_turns", take_turns)
    session, shape = find_shape(tried)
    assert (shape.threads, shape.workers, shape.batch) == taken
    assert session.threads == Threads(shape.threads, shape.workers)


def test_callers_run_at_once():
    all_are_in = threading.Barrier(4, timeout=20)  # breaks, and raises, if they are not
    times = take_turns([lambda lr: all_are_in.wait()], FACES[:1], turns=2, callers=4)
    assert [len(taken) for taken in times] == [2]


def test_the_shape_is_measured_once_and_remembered(artifact, monkeypatch):
    monkeypatch.setattr(sessions, "usable_cores", lambda: 2)
    with open_session(artifact, workers=None) as first:
        assert (first.threads.each, first.workers) in ((1, 2), (None, 1))
        assert first.choice.shape.workers == first.workers
        assert not first.choice.remembered
    with open_session(artifact, workers=None) as second:
        assert second.choice.remembered
        assert (second.threads, second.batch) == (first.threads, first.batch)
        assert second.verdict.remembered
    with open_session(artifact) as alone:  # another question, another choice
        assert alone.threads == ALL_CORES
        assert not alone.choice.remembered


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_workers_share_a_session_of_any_backend(every_backend, artifact, backend):
    with open_session(artifact, backend) as alone:
        expected = [alone.run(face[None]) for face in FACES]
    results = {}
    with open_session(artifact, backend, workers=3) as session:
        assert (session.threads, session.workers) == (Threads(1, 3), 3)
        assert session._runner.options.endswith("1 thread a call, 3 calls at once")

        def work(worker):
            results[worker] = [session.run(face[None]) for face in FACES]

        workers = [threading.Thread(target=work, args=(i,)) for i in range(session.workers)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert len(results) == 3
    for result in results.values():
        assert np.allclose(result, expected, atol=1e-4)


def test_no_thread_spins_where_others_want_the_cores(artifact, monkeypatch):
    from runtime.backends import onnxruntime

    monkeypatch.setattr(onnxruntime, "usable_cores", lambda: 4)
    spins = {}
    asked = (ALL_CORES, Threads(4), Threads(2), Threads(2, 2), Threads(1, 4))
    for threads in (*asked, Threads(3, spin=False)):
        settings = onnxruntime.import_onnxruntime().SessionOptions()
        onnxruntime._share_cores(settings, threads)
        try:
            entry = settings.get_session_config_entry("session.intra_op.allow_spinning")
        except RuntimeError:  # it is not set: ONNX Runtime's threads spin
            entry = "1"
        spins[str(threads)] = entry == "1"
    assert [name for name, spin in spins.items() if spin] == ["default threads", "4 threads"]


@pytest.mark.parametrize(("faces", "spins"), [(1, False), (2, True)])
def test_threads_spin_for_more_than_one_image_alone(artifact, tmp_path, faces, spins, monkeypatch):
    opened = []
    monkeypatch.setattr(models, "open_session", lambda *_, **how: opened.append(how) or session)
    for number in range(faces):
        write_image(tmp_path / "in" / f"{number}.png", tiny_artifact.faces(2)[number])
    options = InferOptions(artifact=str(artifact), backend="onnxruntime", workers=1)
    session = open_session(artifact, "onnxruntime")  # which infer closes
    assert infer([str(tmp_path / "in")], options).faces == faces
    assert [how["spin"] for how in opened] == [spins]
