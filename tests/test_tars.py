"""Tars in and out of `python -m runtime.infer`: a tar becomes a tar, whole or again."""

import io
import json
import tarfile

import numpy as np
import pytest

import tiny_artifact
from runtime import infer
from runtime.image import decode_image, encode_image, write_image
from runtime.session import open_session


def run(*arguments):
    return infer.main([str(argument) for argument in arguments])


def write_tar(path, files):
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def png(pixels):
    return b"".join(encode_image(pixels, ".png"))


def content(path):
    with tarfile.open(path) as archive:
        return {m.name: decode_image(archive.extractfile(m).read(), m.name) for m in archive}


@pytest.fixture
def shard(tmp_path):
    files = {f"d/{i}.png": png(face) for i, face in enumerate(tiny_artifact.faces(3))}
    return write_tar(tmp_path / "faces.tar", {**files, "d/labels.json": b"{}"})


def test_a_tar_becomes_a_tar(shard, artifact, tmp_path, capsys):
    assert run(shard, "--artifact", artifact, "--out", tmp_path / "sr", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    made = tmp_path / "sr" / "faces_sr.tar"
    assert [result["output"] for result in report["results"]] == [
        f"{made}/d/{i}_sr.png" for i in range(3)
    ]
    assert report["ignored"] == {".json": 1}
    with open_session(artifact) as session:
        for i, face in enumerate(tiny_artifact.faces(3)):
            difference = content(made)[f"d/{i}_sr.png"].astype(int) - session.upscale(face)
            assert np.abs(difference).max() <= 1


def test_a_tar_that_is_done_is_not_made_again(shard, artifact, capsys):
    assert run(shard, "--artifact", artifact) == 0
    made = shard.with_name("faces_sr.tar")
    first = made.stat().st_mtime_ns
    assert run(shard, "--artifact", artifact) == 0
    assert "1 was done before" in capsys.readouterr().err
    assert made.stat().st_mtime_ns == first


def test_of_a_damaged_tar_the_good_members_are_made_and_again_in_the_next_run(
    tmp_path, artifact, capsys
):
    faces = tiny_artifact.faces(3)
    files = {"0.png": png(faces[0]), "1.png": b"broken", "2.png": png(faces[2])}
    source, made = write_tar(tmp_path / "faces.tar", files), tmp_path / "faces_sr.tar"
    for _ in range(2):
        assert run(source, "--artifact", artifact) == 1
        assert "faces.tar/1.png: is not an image" in capsys.readouterr().err
        assert sorted(content(made)) == ["0_sr.png", "2_sr.png"]
    data = write_tar(source, {**files, "1.png": png(faces[1])}).read_bytes()
    source.write_bytes(data[:1800])  # in the second member
    assert run(source, "--artifact", artifact) == 1
    assert "faces.tar: is not a whole, plain tar" in capsys.readouterr().err
    source.write_bytes(data)
    assert run(source, "--artifact", artifact) == 0
    assert len(content(made)) == 3


def test_a_tar_that_is_none_leaves_nothing(tmp_path, artifact, capsys):
    (tmp_path / "faces.tar").write_bytes(b"text" * 300)
    assert run(tmp_path / "faces.tar", tmp_path / "gone.tar", "--artifact", artifact) == 1
    said = capsys.readouterr().err
    assert "faces.tar: is not a whole, plain tar" in said
    assert "gone.tar: not found" in said
    assert not list(tmp_path.glob("*_sr*"))


def test_a_tar_of_the_user_is_not_replaced(shard, artifact, capsys):
    mine = write_tar(shard.with_name("faces_sr.tar"), {"a": b"b"})
    assert run(shard, "--artifact", artifact) == 1
    assert "faces_sr.tar: is already a file, and no result of this input" in capsys.readouterr().err
    with tarfile.open(mine) as archive:
        assert archive.getnames() == ["a"]


def test_all_results_into_one_tar(shard, artifact, tmp_path, capsys):
    write_image(tmp_path / "in" / "sub" / "b.png", tiny_artifact.faces(1)[0])
    out = tmp_path / "all.tar"
    assert run(tmp_path / "in", shard, "--artifact", artifact, "--out", out) == 0
    assert sorted(content(out)) == ["d/0_sr.png", "d/1_sr.png", "d/2_sr.png", "sub/b_sr.png"]
    out.write_bytes(b"mine")
    assert run(tmp_path / "in", "--artifact", artifact, "--out", out) == 1
    assert out.read_bytes() == b"mine"


def test_two_members_of_one_name_are_an_error(tmp_path, artifact, capsys):
    source = tmp_path / "x.tar"
    with tarfile.open(source, "w") as archive:
        for pixels in tiny_artifact.faces(2):
            member = tarfile.TarInfo("a.png")
            member.size = len(png(pixels))
            archive.addfile(member, io.BytesIO(png(pixels)))
    assert run(source, "--artifact", artifact) == 1
    assert "a_sr.png: is already the result of another input" in capsys.readouterr().err
    assert list(content(tmp_path / "x_sr.tar")) == ["a_sr.png"]
