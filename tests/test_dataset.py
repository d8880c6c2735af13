"""Tars, folders and images are read as they lie; what cannot be read is named."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

import tiny_artifact
from runtime.dataset import iter_faces, list_images, load_faces
from runtime.errors import EdgeError


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


FACES = tiny_artifact.faces(3)
FILES = {
    "README.md": b"faces",
    "b.png": png(FACES[1]),
    "a.png": png(FACES[0]),
    "._a.png": b"a Mac's",
    "sub/c.PNG": png(FACES[2]),
}


@pytest.fixture
def folder(tmp_path):
    for name, data in FILES.items():
        path = tmp_path / "faces" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "faces"


@pytest.fixture
def tar(tmp_path):
    return write_tar(tmp_path / "faces.tar", FILES)


def write_tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def test_a_folder_is_read_sorted_with_what_is_below(folder):
    names = ["a.png", "b.png", "sub/c.PNG"]
    assert list_images(folder) == [folder / name for name in names]
    faces = list(iter_faces([folder]))
    assert [face.name for face in faces] == [str(folder / name) for name in names]
    assert np.array_equal([face.pixels for face in faces], FACES)


def test_a_tar_is_read_in_its_own_order(tar):
    faces = list(iter_faces([tar]))
    assert [face.name for face in faces] == [
        f"{tar}/{name}" for name in FILES if "png" in name.lower() and "._" not in name
    ]
    assert np.array_equal([face.pixels for face in faces], FACES[[1, 0, 2]])


def test_sources_follow_each_other(folder, tar):
    faces = load_faces([tar, folder, folder / "a.png"], side=16)
    assert np.array_equal(faces, FACES[[1, 0, 2, 0, 1, 2, 0]])
    assert faces.flags.writeable


def test_a_limit_stops_reading(tmp_path, tar):
    assert len(load_faces([tar, tmp_path / "nothing"], side=16, limit=3)) == 3


def test_a_face_of_another_size_is_named(folder):
    with pytest.raises(EdgeError, match=r"a\.png: is 16x16, expected a face of 128x128"):
        load_faces([folder])


def test_a_corrupt_face_in_a_tar_is_named(tmp_path):
    tar = write_tar(tmp_path / "faces.tar", {"a.png": FILES["a.png"], "b.png": FILES["b.png"][:60]})
    with pytest.raises(EdgeError, match=r"faces\.tar/b\.png: is damaged or truncated"):
        load_faces([tar], side=16)


def test_a_truncated_tar_is_named(tmp_path, tar):
    for length in (0, 700, 2000):
        (tmp_path / "cut.tar").write_bytes(tar.read_bytes()[:length])
        with pytest.raises(EdgeError, match=r"cut\.tar.*: (is|holds)"):
            load_faces([tmp_path / "cut.tar"], side=16)


def test_links_in_a_tar_are_passed_over(tmp_path):
    with tarfile.open(tmp_path / "links.tar", "w") as archive:
        member = tarfile.TarInfo("passwd.png")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(EdgeError, match=r"links\.tar: holds no image"):
        load_faces([tmp_path / "links.tar"])


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("nothing", "nothing: not found"),
        ("nothing.tar", r"nothing\.tar: not found"),
        ("text.tar", r"text\.tar: is not a whole, plain tar"),
        ("empty", "empty: holds no image"),
    ],
)
def test_sources_without_faces_are_named(tmp_path, source, problem):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.tar").write_text("a tar, says its name" * 100)
    with pytest.raises(EdgeError, match=problem):
        load_faces([tmp_path / source])
