"""An artifact's files are written together, the manifest last, or not at all."""

import pytest

import tiny_artifact
from runtime.artifact import read_artifact, write_artifact
from runtime.atomic import sha256_bytes
from runtime.drift import encode_probes
from runtime.errors import EdgeError
from runtime.manifest import manifest_path, read_manifest

MODEL = tiny_artifact.build()


def parts_of(artifact):
    """The content, the manifest and the probes of a folder's artifact."""
    read = read_artifact(artifact)
    return read.model, read.manifest, read.probes


def test_what_is_written_is_read(artifact, tmp_path):
    model, manifest, probes = parts_of(artifact)
    path = tmp_path / "new" / "fp32.onnx"
    write_artifact(path, model, manifest, probes=probes, parts={"fp32.bin": b"more"})
    assert parts_of(path) == (model, manifest, probes)
    assert sorted(each.name for each in path.parent.iterdir()) == [
        "fp32.bin",
        "fp32.onnx",
        "fp32.onnx.json",
        "probes.npz",
    ]


def test_a_write_that_fails_leaves_all_as_it_was(artifact):
    model, manifest, probes = parts_of(artifact)
    artifact.with_name("part.bin").mkdir()  # cannot be written
    before = {path.name: path.read_bytes() for path in artifact.parent.iterdir() if path.is_file()}
    with pytest.raises(EdgeError, match=r"part\.bin: is a folder"):
        write_artifact(artifact, model, manifest, probes=probes, parts={"part.bin": b"more"})
    after = {path.name: path.read_bytes() for path in artifact.parent.iterdir() if path.is_file()}
    assert after == before


def test_the_manifest_is_the_last_to_be_renamed(artifact, monkeypatch):
    model, manifest, probes = parts_of(artifact)
    renamed = []
    monkeypatch.setattr("os.replace", lambda source, target: renamed.append(target.name))
    write_artifact(artifact, model, manifest, probes=probes, parts={"part.bin": b"more"})
    assert renamed[-1] == manifest_path(artifact).name
    assert len(renamed) == 4


def test_a_manifest_of_other_files_is_a_bug(artifact):
    model, manifest, _ = parts_of(artifact)
    with pytest.raises(ValueError, match="is of another file"):
        write_artifact(artifact, model + b"\0", manifest)
    with pytest.raises(ValueError, match="is of other probes"):
        write_artifact(
            artifact, model, manifest, probes=encode_probes(tiny_artifact.make_probes(seed=4))
        )
    assert read_manifest(artifact).sha256 == sha256_bytes(MODEL)
