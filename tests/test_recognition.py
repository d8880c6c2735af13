"""Whether super-resolved faces are still recognized: cosine similarity and rank-1."""

import numpy as np
import pytest
from PIL import Image

import tiny_artifact
from benchmarks.metrics.recognition import evaluate, read_people
from benchmarks.metrics.upscalers import BICUBIC
from runtime.errors import EdgeError

EAST, NORTH = [1.0, 0.0], [0.0, 1.0]
NORTH_EAST = [0.8, 0.6]


def evaluated(probes, photos):
    """Evaluate (person, embedding) pairs."""
    (names, embeddings), (photo_names, photo_embeddings) = (
        zip(*people, strict=True) for people in (probes, photos)
    )
    return evaluate(BICUBIC, names, np.array(embeddings), photo_names, np.array(photo_embeddings))


def test_cosine_is_to_the_nearest_photo_of_the_person():
    row = evaluated([("ada", EAST)], [("ada", NORTH), ("ada", NORTH_EAST), ("bob", NORTH)])
    assert row.cosine == pytest.approx(0.8)
    assert row.rank_1 == 1
    assert (row.probes, row.photos, row.people) == (1, 3, 2)


def test_rank_1_counts_the_probes_whose_nearest_photo_is_theirs():
    photos = [("ada", EAST), ("bob", NORTH)]
    row = evaluated([("ada", NORTH_EAST), ("bob", NORTH_EAST)], photos)
    assert row.rank_1 == 0.5
    assert row.cosine == pytest.approx(0.7)


def test_a_person_without_a_photo_is_named():
    with pytest.raises(EdgeError, match="eve: no photo in the gallery"):
        evaluated([("eve", EAST)], [("ada", EAST)])


def test_people_are_named_by_folder_or_by_file(tmp_path):
    (tmp_path / "ada").mkdir()
    faces = tiny_artifact.faces(3, seed=0)
    Image.fromarray(faces[0]).save(tmp_path / "ada" / "1.png")
    Image.fromarray(faces[1]).save(tmp_path / "ada" / "2.png")
    Image.fromarray(faces[2]).save(tmp_path / "bob.png")
    people = read_people(tmp_path, probes=True)
    assert people.names == ("ada", "ada", "bob")
    assert people.pixels.shape == (3, 16, 16, 3)


@pytest.mark.parametrize(
    ("folder", "named"), [("nowhere", "not a folder"), ("empty", "holds no image")]
)
def test_folders_without_faces_are_named(tmp_path, folder, named):
    (tmp_path / "empty").mkdir()
    with pytest.raises(EdgeError, match=named):
        read_people(tmp_path / folder, probes=True)


def test_photos_of_another_size_are_named(face):
    with pytest.raises(EdgeError, match=r"face\.png: is 16x16, expected an aligned face of 128"):
        read_people(face.parent, probes=False)
