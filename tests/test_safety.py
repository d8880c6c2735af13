"""No damage goes unnoticed, and no file can name another one or ask for memory without a bound."""

import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
from dataclasses import fields
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import tiny_artifact
from runtime.backends.onnxruntime import OnnxRuntimeSession
from runtime.backends.openvino import OpenVinoSession
from runtime.dataset import iter_faces, load_faces
from runtime.errors import EXIT_DRIFT, EdgeError
from runtime.image import MAX_BYTES, read_image
from runtime.manifest import Manifest, manifest_path, probes_path
from runtime.session import open_session

ROOT = Path(__file__).parent.parent
FACE = tiny_artifact.faces(1, seed=3)[0]
FLIPS = 100
SOAK_FLIPS = round(1000 * float(os.environ.get("AMINET_SOAK_SHARE", "1")))


def flip(path, generator):
    """Change one bit in one byte of a file; what undoes it."""
    sound = path.read_bytes()
    data = bytearray(sound)
    data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    path.write_bytes(data)
    return lambda: path.write_bytes(sound)


def files_to_flip(artifact, cache):
    """What a session reads, with all that is remembered after one start."""
    open_session(artifact).close()
    remembered = [path for path in sorted(cache.rglob("*")) if path.is_file()]
    assert [path.suffix for path in remembered].count(".bin") == 1  # the optimized model
    return [artifact, manifest_path(artifact), probes_path(artifact)], remembered


def flip_and_open(artifact, cache, count):
    """A flip in the artifact is an error; one in the cache makes it new, with the same faces."""
    generator = random.Random(count)
    shipped, remembered = files_to_flip(artifact, cache)
    with open_session(artifact) as session:
        expected = session.upscale(FACE)
    for number in range(count):
        path = generator.choice(shipped if number % 2 else remembered)
        undo = flip(path, generator)
        try:
            with open_session(artifact) as session:
                assert path in remembered, f"{path} was changed and nobody noticed"
                assert session.verdict.passed
                assert np.array_equal(session.upscale(FACE), expected)
        except EdgeError:
            assert path in shipped
        undo()


def test_a_flipped_byte_is_caught(artifact, cache):
    flip_and_open(artifact, cache, FLIPS)


@pytest.mark.soak
def test_a_thousand_flipped_bytes_are_caught(artifact, cache):
    flip_and_open(artifact, cache, SOAK_FLIPS)


def test_a_flipped_byte_is_caught_by_the_command(artifact, cache, face):
    generator = random.Random(5)
    shipped, remembered = files_to_flip(artifact, cache)
    command = [sys.executable, "-m", "runtime.infer", face, "--artifact", artifact]
    command += ["--backend", "onnxruntime"]
    optimized = [path for path in remembered if path.suffix == ".bin"]
    expected = None
    for path in (*optimized, *shipped, artifact):
        undo = flip(path, generator)
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if path in shipped:
            assert ended.returncode == 1
            assert ended.stderr.startswith("error: ")
            assert ended.stderr.count("\n") == 1
            assert not face.with_name("face_sr.png").exists()
        else:
            assert ended.returncode == 0
            expected = read_image(face.with_name("face_sr.png"))
            face.with_name("face_sr.png").unlink()
        undo()
    with open_session(artifact) as session:
        assert np.array_equal(session.upscale(read_image(face)), expected)


def after(lines):
    """The tiny network with something done to its output."""
    text = tiny_artifact.FP32.replace("sr = Add (enlarged, detail)", "sum = Add (enlarged, detail)")
    end = text.rindex("}")
    return tiny_artifact.build(text[:end] + lines + text[end:])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            "zero = Constant <value = float {0}> () none = Sub (sum, sum) sr = Div (none, zero)",
            "not",
        ),
        ("zero = Constant <value = float {0}> () sr = Div (sum, zero)", "not finite"),
        (
            "gray = Constant <value = float {0.5}> () none = Sub (sum, sum) sr = Add (none, gray)",
            "dr",
        ),
        ("sr = Sub (sum, sum)", "drifts"),
    ],
    ids=["nan", "inf", "gray", "black"],
)
def test_outputs_of_no_sense_are_caught(artifact, lines, message):
    tiny_artifact.write_artifact(artifact.parent, model=after(lines))
    with pytest.raises(EdgeError, match=message) as caught:
        open_session(artifact)
    assert caught.value.status == EXIT_DRIFT


def test_numbers_that_are_not_finite_are_caught_later_too(artifact):
    """Inf for one input alone, which the probes do not have."""
    lines = """
        level = Constant <value = float {0.625}> ()
        far = ReduceMax <keepdims = 1> (lr)
        off = Sub (level, far)
        near = Div (off, off)
        sr = Mul (sum, near)
    """
    tiny_artifact.write_artifact(artifact.parent, model=after(lines))
    lr = np.zeros((1, 3, 16, 16), np.float32)
    with open_session(artifact) as session:
        session.run(lr)
        lr[0, 0, 0, 0] = 0.625
        with pytest.raises(EdgeError, match="not finite"):
            session.run(lr)


def outside(tensor, where):
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=where)


def initializers(model):
    return list(model.graph.initializer)


def constants(model):
    attributes = [attribute for node in model.graph.node for attribute in node.attribute]
    return [a.t for a in attributes if a.type == onnx.AttributeProto.TENSOR]


@pytest.mark.parametrize("backend", [OnnxRuntimeSession, OpenVinoSession])
@pytest.mark.parametrize("tensors", [initializers, constants])
@pytest.mark.parametrize("where", ["weights.bin", "../weights.bin", "/etc/passwd"])
def test_a_model_cannot_name_other_files(backend, tensors, where):
    model = onnx.load_model_from_string(tiny_artifact.build())
    outside(tensors(model)[0], where)
    with pytest.raises(EdgeError, match=r"fp32\.onnx: keeps weights in other files"):
        backend(model.SerializeToString(), "fp32.onnx")


def test_a_manifest_cannot_name_other_files(artifact):
    """It has no field for a path, and a field of its own is refused."""
    assert not [f.name for f in fields(Manifest) if "path" in f.name or "file" in f.name]
    content = json.loads(manifest_path(artifact).read_text())
    content["external_data"] = "/etc/passwd"
    manifest_path(artifact).write_text(json.dumps(content))
    with pytest.raises(EdgeError, match="external_data unknown"):
        open_session(artifact)


def add_member(archive, name, kind=tarfile.REGTYPE, target=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    archive.addfile(member)


def test_a_tar_is_never_unpacked(tmp_path):
    tar = tmp_path / "inside" / "faces.tar"
    tar.parent.mkdir()
    picture = tmp_path / "a.png"
    Image.fromarray(FACE).save(picture)
    with tarfile.open(tar, "w") as archive:
        archive.add(picture, "../../out.png")
        archive.add(picture, str(tmp_path / "absolute.png"))
        add_member(archive, "link.png", tarfile.SYMTYPE, "/etc/passwd")
        add_member(archive, "hard.png", tarfile.LNKTYPE, "/etc/passwd")
        add_member(archive, "device.png", tarfile.CHRTYPE)
    before = sorted(tmp_path.rglob("*"))
    assert len(list(iter_faces([tar]))) == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_a_tar_bomb_is_refused_by_its_size(tmp_path):
    """A member that says it holds 100 GB: in truth nothing, or a sparse file of zeros."""
    tar = tmp_path / "faces.tar"
    member = tarfile.TarInfo("bomb.png")
    member.size = 100 << 30
    tar.write_bytes(member.tobuf(format=tarfile.GNU_FORMAT) + bytes(10240))
    with pytest.raises(EdgeError, match=f"expected at most {MAX_BYTES:,}|not a whole, plain tar"):
        load_faces([tar])


def test_compressed_tars_are_refused(tmp_path):
    tar = tmp_path / "faces.tar"
    with tarfile.open(tar, "w:gz") as archive:
        add_member(archive, "a.png")
    with pytest.raises(EdgeError, match="is not a whole, plain tar"):
        load_faces([tar])


def test_two_processes_start_at_once_on_an_empty_cache(artifact, face, cache, tmp_path):
    outs = [tmp_path / f"{name}.png" for name in "ab"]
    command = [sys.executable, "-m", "runtime.infer", face, "--artifact", artifact]
    command += ["--json", "--out"]
    started = [
        subprocess.Popen([*command, out], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for out in outs
    ]
    said = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    difference = read_image(outs[0]).astype(int) - read_image(outs[1])
    assert np.abs(difference).max() <= 1
    assert not list(cache.rglob(".*"))
    third = subprocess.run([*command, outs[0]], cwd=ROOT, capture_output=True, check=True)
    assert json.loads(third.stdout)["verdict_remembered"] is True


def test_a_cache_that_fills_up_drops_its_oldest_files(artifact, cache, monkeypatch):
    monkeypatch.setattr("runtime.cache.KEPT_FILES", 2)
    for number in range(3):
        tiny_artifact.write_artifact(
            artifact.parent, model=tiny_artifact.build() + bytes([10, 1, 48 + number])
        )
        open_session(artifact).close()
    assert len(list((cache / "files").iterdir())) == 2


def test_the_cache_is_the_users_alone_to_lose(artifact, cache):
    open_session(artifact).close()
    shutil.rmtree(cache)
    with open_session(artifact) as session:
        assert not session.verdict.remembered
