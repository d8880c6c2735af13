"""A model may read larger faces than the paper's: its manifest says which, everything follows."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import tiny_artifact
from runtime import check
from runtime.errors import EdgeError
from runtime.image import fit_face, shrink, to_pixels, to_tensor
from runtime.manifest import (
    SCHEMA_VERSION,
    manifest_path,
    probes_path,
    read_manifest,
    write_manifest,
)
from runtime.session import open_session

SIDE = 64


@pytest.fixture(scope="module")
def folder_64(tmp_path_factory):
    """A folder with a tiny fp32.onnx that reads 64x64."""
    folder = tmp_path_factory.mktemp("side-64")
    model = tiny_artifact.build(tiny_artifact.FP32_64, tiny_artifact.weights_64())
    probes = tiny_artifact.make_probes(model)
    tiny_artifact.write_probes(folder / "probes.npz", probes)
    measured_on = (tiny_artifact.measured(model, probes),)
    tiny_artifact.write_artifact(folder, model=model, measured_on=measured_on, lr_side=SIDE)
    return folder


@pytest.fixture
def artifact_64(tmp_path, folder_64):
    return shutil.copytree(folder_64, tmp_path / "artifacts" / "tiny") / "fp32.onnx"


def test_a_session_reads_what_its_manifest_says(artifact_64):
    lr = to_tensor(tiny_artifact.faces(3, side=SIDE))
    for path in (artifact_64, artifact_64.parent):
        with open_session(path) as session:
            assert session.lr_side == SIDE
            assert session.run(lr).shape == (3, 3, 128, 128)
            assert session.choice.trials[0].face_ms > 0
            with pytest.raises(EdgeError, match=r"expected float32 \(N, 3, 64, 64\)"):
                session.run(np.zeros((1, 3, 16, 16), np.float32))


@pytest.mark.parametrize("side", [12, 16, 64, 77, 128])
def test_faces_of_12_to_128_px_are_resampled_to_64(artifact_64, side):
    face = tiny_artifact.faces(1, side=side)[0]
    with open_session(artifact_64) as session:
        expected = to_pixels(session.run(to_tensor(shrink(face, SIDE)[None])))[0]
        assert np.array_equal(session.upscale(face), expected)


def test_smaller_and_larger_faces_are_refused():
    for side, expected in ((11, "at least 12x12"), (129, "12 to 128 px")):
        with pytest.raises(EdgeError, match=expected):
            fit_face(np.zeros((side, side, 3), np.uint8), "face", side=SIDE)
    large = np.zeros((200, 200, 3), np.uint8)
    assert fit_face(large, "face", side=SIDE, reduce=True).shape == (64, 64, 3)


def test_a_manifest_of_another_side_is_named(artifact_64):
    write_manifest(artifact_64, replace(read_manifest(artifact_64), lr_side=16))
    with pytest.raises(EdgeError, match="reads faces of 64x64, and its manifest says 16x16"):
        open_session(artifact_64)


def test_probes_of_another_side_are_named(artifact_64):
    probes = probes_path(artifact_64)
    tiny_artifact.write_probes(probes, tiny_artifact.make_probes())
    fitting = replace(read_manifest(artifact_64), probes_sha256=tiny_artifact.sha256_file(probes))
    write_manifest(artifact_64, fitting)
    with pytest.raises(EdgeError, match="has faces of 16 px, expected 64 px"):
        open_session(artifact_64)


def test_check_measures_it_on_real_faces_too(artifact_64, hr_faces):
    report = check.check(str(artifact_64), data=[str(hr_faces)])
    assert report.passed
    assert report.data.drift_db == 0


def test_a_manifest_of_the_first_schema_reads_as_16(artifact):
    """As it lies in artifacts that were made before lr_side was known."""
    path = manifest_path(artifact)
    content = json.loads(path.read_text())
    for name in ("lr_side", "network", "digest"):  # of later schemas
        content.pop(name, None)
    content["schema_version"] = 1
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    content["digest"] = tiny_artifact.sha256_bytes(canonical.encode())
    path.write_text(json.dumps(content))
    manifest = read_manifest(artifact)
    assert (manifest.lr_side, manifest.schema_version) == (16, SCHEMA_VERSION)
    with open_session(artifact) as session:
        assert session.lr_side == 16
    path.write_text(json.dumps({**content, "lr_side": 64}))
    with pytest.raises(EdgeError, match="lr_side unknown"):
        read_manifest(artifact)


TAKEN = {
    "gray": np.full((16, 16), 90, np.uint8),
    "gray with a channel": np.full((16, 16, 1), 90, np.uint8),
    "RGB": np.full((16, 16, 3), 90, np.uint8),
    "RGBA": np.dstack([np.full((16, 16, 3), 90, np.uint8), np.full((16, 16), 255, np.uint8)]),
    "gray with alpha": np.dstack([np.full((16, 16), v, np.uint8) for v in (90, 255)]),
    "float64": np.full((16, 16, 3), 90 / 255),
    "float32 gray": np.full((16, 16), 90 / 255, np.float32),
}


@pytest.mark.parametrize("kind", TAKEN)
def test_arrays_of_any_kind_of_image_are_upscaled(artifact, kind):
    image = TAKEN[kind]
    with open_session(artifact) as session:
        expected = session.upscale(Image.new("RGB", (16, 16), (90, 90, 90)))
        sr = session.upscale(image)
    assert (sr.dtype, sr.shape) == (image.dtype, (128, 128, 3))
    levels = sr if sr.dtype == np.uint8 else np.rint(sr * 255)
    assert np.array_equal(levels, np.asarray(expected))


REFUSED = {
    "floats over 1": (np.full((16, 16, 3), 90.0), "has values from 90 to 90"),
    "not a number": (np.full((16, 16, 3), np.nan), "has values from nan to nan"),
    "16 bits": (np.zeros((16, 16, 3), np.uint16), "array of uint16"),
    "a mask": (np.zeros((16, 16), bool), "array of bool"),
    "five channels": (np.zeros((16, 16, 5), np.uint8), r"array \(16, 16, 5\)"),
    "a batch": (np.zeros((2, 16, 16, 3), np.uint8), r"array \(2, 16, 16, 3\)"),
    "empty": (np.zeros((0, 0, 3), np.uint8), r"array \(0, 0, 3\)"),
    "a list": ([[1, 2], [3, 4]], "builtins.list"),
    "a path": ("face.png", "builtins.str"),
    "nothing": (None, "NoneType"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_anything_else_is_refused_with_what_is_expected(artifact, kind):
    image, message = REFUSED[kind]
    with open_session(artifact) as session, pytest.raises(EdgeError, match=message) as caught:
        session.upscale(image)
    assert "(H, W)" in str(caught.value)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda lr: lr * 255, "lr has values from"),
        (lambda lr: lr - 1, "lr has values from"),
        (lambda lr: lr * np.float32("nan"), "lr has values from nan"),
        (lambda lr: lr[:0], r"lr is an empty batch \(0, 3, 16, 16\)"),
        (lambda lr: lr[0], r"lr is float32 \(3, 16, 16\)"),
        (lambda lr: lr.tolist(), "lr is a builtins.list"),
        (lambda lr: (lr * 255).astype(np.uint8), "lr is uint8"),
        (lambda lr: None, "lr is a builtins.NoneType"),
    ],
)
def test_wrong_batches_are_refused_with_what_is_expected(artifact, spoil, message):
    lr = to_tensor(tiny_artifact.faces(1))
    with open_session(artifact) as session:
        session.run(lr)
        with pytest.raises(EdgeError, match=message) as caught:
            session.run(spoil(lr))
    assert "float32 (N, 3, 16, 16) in [0, 1]" in str(caught.value)
