"""Whatever it is given, the runtime answers in one line with the right status, and writes nothing.

A case is a function that spoils something and returns the pictures to enlarge.
"""

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

import tiny_artifact
from runtime import atomic, check, infer
from runtime.manifest import manifest_path, probes_path, read_manifest, write_manifest
from test_image import png_header
from test_session import FAULTY
from tiny_artifact import FP32

ROOT = Path(__file__).parent.parent


def spoiled_face(data):
    def spoil(artifact, face):
        face.write_bytes(data(face.read_bytes()))

    return spoil


def no_face(artifact, face):
    face.unlink()


def named_pipe(artifact, face):
    face.unlink()
    os.mkfifo(face)


def empty_folder(artifact, face):
    face.unlink()
    face.mkdir()


PICTURES = {
    "empty": (spoiled_face(lambda _: b""), 1, "face.png: is empty"),
    "truncated": (spoiled_face(lambda data: data[:80]), 1, "face.png: is damaged or truncated"),
    "text": (
        spoiled_face(lambda _: b"hello, I am a face"),
        1,
        "is not an image that is read",
    ),
    "bomb": (spoiled_face(lambda _: png_header(60_000, 60_000)), 1, "is 60,000x60,000, expected"),
    "wrong size": (spoiled_face(lambda _: png_header(16, 90)), 1, "face.png: is damaged or trunc"),
    "missing": (no_face, 1, "face.png: not found"),
    "pipe": (named_pipe, 1, "face.png: is not an ordinary file"),
    "empty folder": (empty_folder, 1, "face.png: holds no image or video to upscale"),
}


def graph(text, **fields):
    """Another graph in the artifact's place, with a manifest that fits it."""

    def spoil(artifact, face):
        model = onnx.parser.parse_model(text)
        for name, value in tiny_artifact.weights().items():
            if name in text:
                model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
        tiny_artifact.write_artifact(artifact.parent, model=model.SerializeToString(), **fields)

    return spoil


def other_bytes(change):
    """The artifact's bytes changed; the manifest is as it was."""

    def spoil(artifact, face):
        artifact.write_bytes(change(artifact.read_bytes()))

    return spoil


def other_bytes_and_hash(change):
    """The artifact's bytes changed, and a manifest that fits them."""

    def spoil(artifact, face):
        tiny_artifact.write_artifact(artifact.parent, model=change(artifact.read_bytes()))

    return spoil


def other_manifest(change):
    def spoil(artifact, face):
        content = json.loads(manifest_path(artifact).read_text())
        change(content)
        manifest_path(artifact).write_text(json.dumps(content))

    return spoil


def no_manifest(artifact, face):
    manifest_path(artifact).unlink()


def no_artifact(artifact, face):
    artifact.unlink()


def random_weights(artifact, face):
    write_manifest(artifact, replace(read_manifest(artifact), random_weights=True))


def no_probes(artifact, face):
    probes_path(artifact).unlink()


def probes_of_another_model(artifact, face):
    """Of a model with the same faces, but other weights."""
    weights = {name: 2 * value for name, value in tiny_artifact.weights().items()}
    probes = tiny_artifact.make_probes(tiny_artifact.build(initializers=weights))
    tiny_artifact.write_probes(probes_path(artifact), probes)


def probes_of_another_model_and_hash(artifact, face):
    probes_of_another_model(artifact, face)
    write_manifest(
        artifact,
        replace(read_manifest(artifact), probes_sha256=atomic.sha256_file(probes_path(artifact))),
    )


def text_for_probes(artifact, face):
    probes_path(artifact).write_text("probes")
    digest = atomic.sha256_file(probes_path(artifact))
    write_manifest(artifact, replace(read_manifest(artifact), probes_sha256=digest))


def flip(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def half(data):
    return data[: len(data) // 2]


CLOSED = FP32.replace("[batch, 3,", "[1, 3,")
IN_64_BIT = """
    <ir_version: 10, opset_import: ["" : 20]>
    tiny (double[batch, 3, 16, 16] lr) => (double[batch, 3, 16, 16] sr) { sr = Relu (lr) }
"""
ONE_AT_A_TIME = """
    <ir_version: 10, opset_import: ["" : 20]>
    tiny (float[batch, 3, 16, 16] lr) => (float[batch, 3, 128, 128] sr) {
        shape = Constant <value = int64[4] {1, 3, 16, 16}> ()
        single = Reshape (lr, shape)
        scales = Constant <value = float[4] {1, 1, 8, 8}> ()
        sr = Resize <mode = "cubic"> (single, , scales)
    }
"""
FAILING = """
    <ir_version: 10, opset_import: ["" : 20]>
    tiny (float[batch, 3, 16, 16] lr) => (float[batch, 3, 128, 128] sr) {
        channels = Constant <value = int64[3] {0, 1, 9}> ()
        chosen = Gather <axis = 1> (lr, channels)
        scales = Constant <value = float[4] {1, 1, 8, 8}> ()
        sr = Resize <mode = "cubic"> (chosen, , scales)
    }
"""
NOT_ITS = "fp32.onnx: is not the file that its manifest describes"
ARTIFACTS = {
    "missing": (no_artifact, 1, "fp32.onnx: not found. Create it with: python -m export.onnx"),
    "altered": (other_bytes(flip), 1, NOT_ITS),
    "truncated": (other_bytes(half), 1, NOT_ITS),
    "empty": (other_bytes(lambda _: b""), 1, NOT_ITS),
    "truncated, hash fits": (other_bytes_and_hash(half), 1, "ONNX Runtime cannot open it"),
    "empty, hash fits": (other_bytes_and_hash(lambda _: b""), 1, "ONNX Runtime cannot open it"),
    "text, hash fits": (other_bytes_and_hash(lambda _: b"onnx"), 1, "ONNX Runtime cannot open it"),
    "other input": (graph(FP32.replace("lr", "x")), 1, "input is x tensor(float)"),
    "other output": (graph(FP32.replace("sr", "y")), 1, "output is y tensor(float)"),
    "other type": (graph(IN_64_BIT), 1, "input is lr tensor(double)"),
    "other side": (
        graph(FP32.replace("16, 16]", "24, 24]").replace("128, 128]", "192, 192]")),
        1,
        "expected lr tensor(float) (batch, 3, 16, 16)",
    ),
    "fixed batch": (graph(CLOSED), 1, "input is lr tensor(float) [1, 3, 16, 16]"),
    "hidden fixed batch": (graph(ONE_AT_A_TIME), 1, "output is sr tensor(float) [1, 3, 128, 128]"),
    "failing": (graph(FAILING), 1, "ONNX Runtime cannot run it"),
    "faulty": (
        lambda artifact, face: tiny_artifact.write_artifact(artifact.parent, model=FAULTY),
        3,
        "drifts from FP32",
    ),
    "random weights": (random_weights, 1, "has random weights, for tests"),
    "no manifest": (no_manifest, 1, "fp32.onnx.json: not found"),
    "altered manifest": (other_manifest(lambda c: c.update(psnr_y=30)), 1, "was altered"),
    "manifest of another file": (
        lambda artifact, face: write_manifest(
            artifact, replace(read_manifest(artifact), sha256="0" * 64)
        ),
        1,
        NOT_ITS,
    ),
    "manifest of a later schema": (
        other_manifest(lambda c: c.update(schema_version=9)),
        1,
        "has schema version 9",
    ),
    "no probes": (no_probes, 1, "probes.npz: not found"),
    "probes of another model": (probes_of_another_model, 1, "are not the probes of fp32.onnx"),
    "probes of another model, hash fits": (probes_of_another_model_and_hash, 3, "drifts from FP32"),
    "text for probes, hash fits": (text_for_probes, 1, "probes.npz: damaged, or no probes"),
}


def assert_one_line(said, message):
    assert said.out == ""
    assert message in said.err
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("case", PICTURES)
def test_bad_pictures(case, artifact, face, capsys):
    spoil, status, message = PICTURES[case]
    spoil(artifact, face)
    assert infer.main([str(face), "--artifact", str(artifact)]) == status
    assert_one_line(capsys.readouterr(), message)
    assert not list(face.parent.glob("*_sr*"))


@pytest.mark.parametrize("case", ARTIFACTS)
def test_bad_artifacts_in_infer(case, artifact, face, capsys):
    spoil, status, message = ARTIFACTS[case]
    older = face.with_name("face_sr.png")
    older.write_bytes(b"older")
    spoil(artifact, face)
    assert infer.main([str(face), "--artifact", str(artifact)]) == status
    assert_one_line(capsys.readouterr(), message)
    assert older.read_bytes() == b"older"


@pytest.mark.parametrize("case", [c for c, (_, status, _) in ARTIFACTS.items() if status == 1])
def test_bad_artifacts_in_check(case, artifact, face, capsys):
    spoil, status, message = ARTIFACTS[case]
    spoil(artifact, face)
    assert check.main([str(artifact), "--json"]) == status
    said = capsys.readouterr()
    assert said.err == f"error: {json.loads(said.out)['error']}\n"
    assert message in said.err
    assert json.loads(said.out)["status"] == status


@pytest.mark.parametrize("case", ["altered", "probes of another model", "manifest of another file"])
def test_a_remembered_verdict_does_not_cover_other_files(case, artifact, face, capsys):
    arguments = [str(face), "--artifact", str(artifact)]
    assert infer.main(arguments) == 0
    capsys.readouterr()
    spoil, status, message = ARTIFACTS[case]
    spoil(artifact, face)
    assert infer.main(arguments) == status
    assert message in capsys.readouterr().err


def without_rights(function):
    """Run it as nobody, if this is root, who may read everything."""
    if os.geteuid() != 0:
        return function()
    try:
        os.seteuid(65534)
    except OSError:
        pytest.skip("root may read every folder here, and cannot become someone else")
    try:
        return function()
    finally:
        os.seteuid(0)


def test_an_unreadable_folder(artifact, tmp_path, capsys):
    infer.main([str(tmp_path / "warm.png"), "--artifact", str(artifact)])  # imports what it needs
    capsys.readouterr()
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    for folder in (tmp_path, *tmp_path.parents[:2], artifact.parent, artifact.parent.parent):
        folder.chmod(0o755)
    status = without_rights(lambda: infer.main([str(closed), "--artifact", str(artifact)]))
    assert status == 1
    assert_one_line(capsys.readouterr(), "closed: cannot be listed: permission denied")


def test_a_full_disk(artifact, face, monkeypatch, capsys):
    older = face.with_name("face_sr.png")
    older.write_bytes(b"older")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.os, "fsync", full)
    before = sorted(face.parent.iterdir())
    assert infer.main([str(face), "--artifact", str(artifact), "--overwrite"]) == 1
    assert_one_line(capsys.readouterr(), "face_sr.png: the disk is full; make room")
    assert older.read_bytes() == b"older"
    assert sorted(face.parent.iterdir()) == before


def test_the_command_itself_answers_in_one_line(artifact, face):
    """Through the shell's door: nothing that ONNX Runtime logs comes along."""
    other_bytes_and_hash(half)(artifact, face)
    command = [sys.executable, "-m", "runtime.infer", face, "--artifact", artifact]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"error: {artifact}: ONNX Runtime cannot open it")
    assert ended.stderr.count("\n") == 1
