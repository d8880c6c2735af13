"""Mutated pictures, manifests, tars, probes, videos and models: an answer or one line, soon.

Whatever is not an EdgeError would be a traceback for the user. Memory is held under a bound for all
of the examples together.
"""

import io
import json
import os
import resource
import shutil
import tarfile
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import tiny_artifact
from runtime.backends.onnx_bytes import refuse_external_data
from runtime.backends.onnxruntime import OnnxRuntimeSession
from runtime.dataset import load_faces
from runtime.drift import decode_probes
from runtime.errors import EdgeError
from runtime.image import decode_image, to_tensor
from runtime.manifest import manifest_path, probes_path, read_manifest
from runtime.media.video import upscale_video
from runtime.session import open_session
from test_video import write_video

EXAMPLES = 300
SOAK_EXAMPLES = round(5000 * float(os.environ.get("AMINET_SOAK_SHARE", "1")))
LONGEST_S = 20  # of processor time for one example
MOST_MIB = 1500  # more than before, of all examples together
FACES = tiny_artifact.faces(2)


def encoded(kind):
    stream = io.BytesIO()
    Image.fromarray(FACES[0]).save(stream, kind)
    return stream.getvalue()


def tar_of_faces():
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in ("a.png", "folder/b.png"):
            member = tarfile.TarInfo(name)
            member.size = len(encoded("PNG"))
            archive.addfile(member, io.BytesIO(encoded("PNG")))
    return stream.getvalue()


def mutations():
    """Changes of bytes at places between 0 and 1: flipped, cut, removed, repeated, or new."""
    place = st.floats(0, 1, exclude_max=True)
    return st.lists(
        st.tuples(
            st.sampled_from(["set", "flip", "cut", "remove", "repeat", "insert", "number"]),
            place,
            st.binary(min_size=1, max_size=8),
        ),
        min_size=1,
        max_size=5,
    )


def mutate(data, changes):
    data = bytearray(data)
    for kind, place, new in changes:
        at = int(place * len(data))
        if kind == "set":
            data[at : at + len(new)] = new
        elif kind == "flip" and data:
            data[at] ^= new[0] or 1
        elif kind == "cut":
            del data[at:]
        elif kind == "remove":
            del data[at : at + 8 * len(new)]
        elif kind == "repeat":
            data[at:at] = data[at : at + 64 * len(new)]
        elif kind == "insert":
            data[at:at] = new
        elif kind == "number":  # a length that is as large as can be
            data[at : at + 4] = b"\xff\xff\xff\x7f"
    return bytes(data)


def picture(kind):
    return encoded(kind), lambda data, folder: decode_image(data, "face")


def read_tar(data, folder):
    path = folder / "faces.tar"
    path.write_bytes(data)
    return load_faces([path], side=16)


def read_video(data, folder):
    path = folder / "clip.mp4"
    path.write_bytes(data)
    return upscale_video(path, folder / "out.mp4", lambda frame: frame)


def run_model(data, folder):
    """As it is opened when the manifest fits: only a builder of artifacts could do that."""
    refuse_external_data(data, "model")
    with OnnxRuntimeSession(data, "model") as session:
        return session.run(to_tensor(FACES))


def open_with(name):
    """A session with one of an artifact's files changed."""

    def open_changed(data, folder):
        path = folder / name
        sound = path.read_bytes()
        path.write_bytes(data)
        try:
            with open_session(folder / "fp32.onnx") as session:
                return session.upscale(FACES[0])
        finally:
            path.write_bytes(sound)

    return open_changed


@pytest.fixture
def targets(sound_folder, tmp_path):
    """What is mutated: the sound bytes, and who reads them."""
    shutil.copytree(sound_folder, tmp_path / "artifact")
    artifact = tmp_path / "artifact" / "fp32.onnx"
    shutil.copy(artifact, tmp_path / "fp32.onnx")
    shutil.copy(manifest_path(artifact), tmp_path)
    shutil.copy(probes_path(artifact), tmp_path)
    clip = write_video(tmp_path / "seed.mp4", [np.repeat(np.repeat(f, 4, 0), 4, 1) for f in FACES])
    manifest = manifest_path(artifact).read_bytes()
    probes = probes_path(artifact).read_bytes()
    return {
        "png": picture("PNG"),
        "jpeg": picture("JPEG"),
        "webp": picture("WEBP"),
        "tar": (tar_of_faces(), read_tar),
        "video": (clip.read_bytes(), read_video),
        "manifest": (manifest, lambda data, folder: read_changed_manifest(data, artifact)),
        "probes": (probes, lambda data, folder: decode_probes(data, "probes")),
        "model": (artifact.read_bytes(), run_model),
        "artifact": (artifact.read_bytes(), open_with("fp32.onnx")),
        "artifact's manifest": (manifest, open_with("fp32.onnx.json")),
    }


def read_changed_manifest(data, artifact):
    manifest_path(artifact).write_bytes(data)
    return read_manifest(artifact)


def attempt(target, changes, folder):
    data, read = target
    said = "an answer"
    started = time.process_time()
    try:
        read(mutate(data, changes), folder)
    except EdgeError as error:
        said = str(error)
    assert said
    assert "\n" not in said
    assert time.process_time() - started < LONGEST_S


def fuzz(targets, folder, examples, derandomize):
    @settings(
        max_examples=examples,
        derandomize=derandomize,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(sorted(targets)), mutations())
    def run(name, changes):
        attempt(targets[name], changes, folder)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run()
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mib < MOST_MIB


def test_mutated_inputs_are_answered_in_one_line(targets, tmp_path):
    fuzz(targets, tmp_path, EXAMPLES, derandomize=True)


@pytest.mark.soak
def test_many_mutated_inputs_are_answered_in_one_line(targets, tmp_path):
    fuzz(targets, tmp_path, SOAK_EXAMPLES, derandomize=False)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=5,
)


@settings(max_examples=100, derandomize=True, deadline=None, database=None)
@given(st.data())
def test_manifests_with_any_value_in_any_field_are_answered(sound_folder, data):
    sound = sound_folder / "fp32.onnx"
    content = json.loads(manifest_path(sound).read_text())
    content[data.draw(st.sampled_from(sorted(content)))] = data.draw(JSON)
    copy, said = sound_folder / "changed.onnx", "an answer"
    try:
        manifest_path(copy).write_text(json.dumps(content))
        read_manifest(copy)
    except EdgeError as error:
        said = str(error)
    finally:
        manifest_path(copy).unlink(missing_ok=True)
    assert "\n" not in said
