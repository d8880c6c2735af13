"""Nothing is enlarged before the artifact was proved; verdicts are remembered, and distrusted."""

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tiny_artifact
from runtime import cache as cache_module
from runtime.cpu import processor
from runtime.drift import write_probes
from runtime.errors import EXIT_DRIFT, EXIT_ERROR, EXIT_MISSING, EXIT_USAGE, EdgeError
from runtime.image import to_pixels, to_tensor, upscale_bicubic
from runtime.manifest import probes_path, read_manifest, write_manifest
from runtime.session import _kept_session, open_session, upscale

FAULTY = tiny_artifact.build(
    tiny_artifact.FP32, {**tiny_artifact.weights(), "embed": np.ones((16, 3, 3, 3), np.float32)}
)
FACE = tiny_artifact.faces(1, seed=3)[0]


def error_of(*arguments, **options):
    with pytest.raises(EdgeError) as caught:
        open_session(*arguments, **options)
    return caught.value


def records(cache):
    """The verdicts that are remembered."""
    return [path for path in cache.rglob("*.json") if "fidelity_db" in record_of(path)]


def record_of(path):
    return json.loads(path.read_text())["record"]


def test_run_and_enlarge_agree(artifact):
    with open_session(artifact) as session:
        sr = session.run(to_tensor(FACE[None]))
        assert (sr.dtype, sr.shape) == (np.float32, (1, 3, 128, 128))
        assert np.array_equal(session.upscale(FACE), to_pixels(sr)[0])


def test_pillow_images_become_pillow_images(artifact, monkeypatch):
    monkeypatch.chdir(artifact.parent.parent.parent)
    with open_session(artifact) as session:
        expected = session.upscale(FACE)
        for mode in ("RGB", "RGBA", "P"):
            image = session.upscale(Image.fromarray(FACE).convert(mode))
            assert (image.size, image.mode) == ((128, 128), "RGB")
    _kept_session.cache_clear()
    try:
        assert np.array_equal(upscale(Image.fromarray(FACE)), expected)
        assert np.array_equal(upscale(FACE), expected)
    finally:
        _kept_session().close()
        _kept_session.cache_clear()


def test_larger_faces_need_reduce(artifact):
    with open_session(artifact) as session:
        hr = upscale_bicubic(FACE)
        with pytest.raises(EdgeError, match="reduce=True"):
            session.upscale(hr)
        assert session.upscale(hr, reduce=True).shape == (128, 128, 3)


def test_a_batch_equals_its_faces(artifact):
    lr = to_tensor(tiny_artifact.faces(5))
    with open_session(artifact) as session:
        single = np.concatenate([session.run(face[None]) for face in lr])
        assert np.array_equal(session.run(lr), single)


def test_threads_share_a_session(artifact):
    lr = to_tensor(tiny_artifact.faces(4))
    results = {}
    with open_session(artifact) as session:
        expected = session.run(lr)

        def work(index):
            results[index] = session.run(lr)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(results) == 8
    assert all(np.array_equal(expected, result) for result in results.values())


@pytest.mark.parametrize("lr", [np.zeros((1, 3, 8, 8), np.float32), np.zeros((1, 3, 16, 16))])
def test_tensors_of_another_shape_or_type_are_refused(artifact, lr):
    with open_session(artifact) as session, pytest.raises(EdgeError, match="expected float32"):
        session.run(lr)


def test_the_verdict_is_remembered(artifact, cache):
    with open_session(artifact) as first, open_session(artifact) as second:
        assert (first.verdict.remembered, second.verdict.remembered) == (False, True)
        assert first.verdict.fidelity_db == second.verdict.fidelity_db == 100
        assert first.verdict.limit_db == second.verdict.limit_db == 80
    assert len(records(cache)) == 1


@pytest.mark.parametrize("backend", ["auto", "onnxruntime"])
def test_threads_that_sleep_are_proved_by_those_that_spin(artifact, backend):
    with open_session(artifact, backend) as first:
        assert first.threads.spin
    with open_session(artifact, backend, spin=False) as second:
        assert not second.threads.spin
        assert second.verdict.remembered  # they compute the same


def test_what_is_kept_is_opened_even_if_it_is_replaced_meanwhile(cache):
    key = {"optimized": "this"}
    cache_module.remember_file(key, b"old")
    with cache_module.recalled_file(key) as kept:
        cache_module.remember_file(key, b"new")
        if os.path.isdir("/proc/self/fd"):
            assert Path(kept.place).read_bytes() == b"old"
    with cache_module.recalled_file(key) as kept:
        assert Path(kept.place).read_bytes() == b"new"
    (file,) = (cache / "files").iterdir()
    for damage in (lambda: file.write_bytes(b"nEw"), file.unlink, file.mkdir):
        damage()
        with cache_module.recalled_file(key) as kept:
            assert kept is None


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("fp32.onnx", "python -m export.onnx"),
        ("fp16.onnx", "python -m quantize.fp16 --artifact"),
        ("int8.onnx", "python -m quantize.int8 --artifact"),
    ],
)
def test_what_a_new_export_has_outdated_is_made_again_as_it_was_made(artifact, name, command):
    other = tiny_artifact.write_artifact(artifact.parent, name)
    write_probes(probes_path(artifact), tiny_artifact.make_probes(seed=2))
    fix = f"{command} --model tiny" if name == "fp32.onnx" else f"{command} {artifact}"
    assert str(error_of(other)).endswith(f"Create {name} again with: {fix}")


def test_another_manifest_is_checked_anew(artifact):
    open_session(artifact).close()
    tiny_artifact.write_artifact(artifact.parent, max_drop_db=0.02)
    with open_session(artifact) as session:
        assert not session.verdict.remembered


def damage(record):
    stored = json.loads(record.read_text())
    stored["record"]["fidelity_db"] = 99.0
    record.write_text(json.dumps(stored))


@pytest.mark.parametrize(
    "spoil",
    [
        damage,
        lambda record: record.write_bytes(b""),
        lambda record: record.write_text("[]"),
        lambda record: record.write_text('{"digest": 1, "record": {}, "key": {}}'),
        lambda record: record.write_text("[" * 50_000),
        lambda record: record.write_bytes(b"\xff" * 10),
        lambda record: record.write_bytes(b" " * (1 << 17)),
        lambda record: (record.unlink(), record.mkdir()),
    ],
    ids=["altered", "empty", "list", "other", "deep", "binary", "big", "folder"],
)
def test_a_damaged_record_is_no_record(artifact, cache, spoil):
    open_session(artifact).close()
    (record,) = records(cache)
    spoil(record)
    with open_session(artifact) as session:
        assert not session.verdict.remembered


def test_without_a_writable_cache_it_is_checked_each_time(artifact, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for _ in range(2):
        with open_session(artifact) as session:
            assert not session.verdict.remembered
            assert session.verdict.passed


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_module.cache_folder() == tmp_path / "aminet-edge"
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        monkeypatch.setenv("HOME", "/home/someone")
        assert cache_module.cache_folder() == Path("/home/someone/.cache/aminet-edge")


def no_home():
    raise RuntimeError("Could not determine home directory.")


def test_without_a_home_nothing_is_remembered(artifact, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(cache_module.Path, "home", no_home)
    assert cache_module.cache_folder() is None
    for _ in range(2):
        with open_session(artifact) as session:
            assert not session.verdict.remembered


def test_a_faulty_artifact_is_refused_each_time(artifact, cache):
    tiny_artifact.write_artifact(artifact.parent, model=FAULTY)
    for _ in range(2):
        error = error_of(artifact)
        assert error.status == EXIT_DRIFT
        assert "drifts from FP32 in onnxruntime on this machine: fidelity" in str(error)
    assert not records(cache)


def test_unverified_sessions_still_compare_the_hashes(artifact):
    manifest = read_manifest(artifact)
    tiny_artifact.write_artifact(artifact.parent, model=FAULTY)
    with open_session(artifact, verify=False) as session:
        assert session.verdict is None
    write_manifest(artifact, manifest)
    assert "is not the file that its manifest describes" in str(error_of(artifact, verify=False))


def test_a_sound_int8_is_taken_before_fp32(artifact):
    model = tiny_artifact.build(tiny_artifact.INT8, tiny_artifact.quantized_weights())
    int8 = tiny_artifact.write_artifact(artifact.parent, "int8.onnx", model)
    with open_session(artifact.parent, "onnxruntime") as session:
        assert session.artifact == int8
        assert session.passed_over == ()


def test_fp32_is_taken_where_int8_drifts(artifact, monkeypatch):
    int8 = tiny_artifact.write_artifact(artifact.parent, "int8.onnx", FAULTY)
    monkeypatch.chdir(artifact.parent.parent.parent)  # where ./artifacts/aminet-edge is
    with open_session() as session:
        assert session.artifact.name == "fp32.onnx"
        assert [reason.split(":")[0] for reason in session.passed_over] == [
            os.path.relpath(int8, Path.cwd())
        ]


def test_a_damaged_int8_is_not_passed_over_in_silence(artifact):
    int8 = tiny_artifact.write_artifact(artifact.parent, "int8.onnx")
    int8.write_bytes(b"damaged")
    assert error_of(artifact.parent).status == EXIT_ERROR
    with open_session(artifact.parent, fallback=True) as session:
        assert session.artifact == artifact
        assert "int8.onnx: is not the file" in session.passed_over[0]


def test_a_named_artifact_is_replaced_only_when_allowed(artifact):
    int8 = tiny_artifact.write_artifact(artifact.parent, "int8.onnx", FAULTY)
    assert error_of(int8).status == EXIT_DRIFT
    with open_session(int8, fallback=True) as session:
        assert session.artifact == artifact


def test_a_folder_without_a_model_is_named(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert f"{empty}: no model found, expected int8.onnx or " in str(error_of(empty))


@pytest.mark.parametrize(
    ("backend", "status", "message"),
    [
        (
            "tensorrt",
            EXIT_MISSING,
            "is not a TensorRT engine, which --backend tensorrt needs. Create one with",
        ),
        ("onnxruntime-cuda", EXIT_MISSING, "the installed ONNX Runtime has no CUDAExecution"),
        ("coreml", EXIT_USAGE, "no backend is called coreml, expected auto, onnxruntime, openvino"),
    ],
)
def test_backends_that_are_not_here(artifact, backend, status, message):
    error = error_of(artifact, backend)
    assert error.status == status
    assert message in str(error)


def test_the_processor_has_a_name():
    assert processor()
    assert processor() == processor().strip()
