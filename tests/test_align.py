"""Faces of photos come out framed as the training faces, and nothing is made up or written over."""

import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from runtime import align
from runtime.errors import EXIT_ERROR, EXIT_MISSING, EXIT_USAGE
from runtime.image import psnr, read_image
from runtime.media.alignment import LANDMARKS, Frame
from runtime.media.detector import Detector

data = pytest.importorskip("skimage.data")

BICUBIC = Image.Resampling.BICUBIC
GRAY = (90, 110, 120)


def astronaut(side, turned=0):
    """NASA's portrait of Eileen Collins; the frame around her face is a quarter of it across."""
    return Image.fromarray(data.astronaut()).resize((side, side), BICUBIC).rotate(turned, BICUBIC)


def portrait(side=460):
    """Her head and shoulders."""
    return astronaut(side).crop((side * 0.2, 0, side * 0.75, side * 0.55))


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    portrait().save(folder / "a.jpg", quality=95)
    return folder


def run(*arguments):
    return align.main([str(argument) for argument in arguments])


def test_faces_are_framed_as_the_training_faces(photos, tmp_path, capsys):
    two = Image.new("RGB", (600, 300), GRAY)
    two.paste(portrait(440), (0, 20))
    two.paste(portrait(480), (300, 20))
    (photos / "people").mkdir()
    two.save(photos / "people" / "two.png")
    assert run(photos, "--out", tmp_path / "faces", "--json") == 0
    printed = capsys.readouterr()
    faces = json.loads(printed.out)["faces"]
    names = ["a.png", "people/two.png", "people/two-2.png"]
    assert [face["output"] for face in faces] == [f"{tmp_path}/faces/{name}" for name in names]
    assert json.loads(printed.out)["images"] == 2
    assert faces[1]["side_px"] == pytest.approx(faces[2]["side_px"] * 480 / 440, rel=0.04)
    detector = Detector()
    for face in faces:
        pixels = read_image(face["output"])
        assert pixels.shape == (128, 128, 3)
        (again,) = detector.find(pixels)
        assert np.abs(again.landmarks - LANDMARKS).max() < 6
        frame = Frame.around(again.landmarks)
        assert abs(frame.turned_deg) < 3
        assert frame.side == pytest.approx(128, rel=0.06)
    largest = align.align([photos / "people"], tmp_path / "one", align.AlignOptions(largest=True))
    assert [face.side_px for face in largest.faces] == [faces[1]["side_px"]]


def test_a_turned_face_is_turned_back(tmp_path):
    for name, angle in (("upright", 0), ("turned", 25)):
        astronaut(460, -angle).save(tmp_path / f"{name}.png")
    found = align.align(
        [tmp_path / f"{name}.png" for name in ("upright", "turned")], tmp_path / "o"
    )
    assert found.left_out == found.errors == ()
    upright, turned = found.faces
    assert turned.turned_deg - upright.turned_deg == pytest.approx(25, abs=2)
    assert turned.side_px == pytest.approx(upright.side_px, rel=0.02)
    difference = psnr(*(read_image(face.output) for face in found.faces))
    assert difference > 22  # turned by five degrees, or off by three px: 19


def test_a_huge_face_is_looked_at_as_a_smaller_one_is():
    detector, photo = Detector(), portrait()
    (found,) = detector.find(np.array(photo))
    frame = align._look_again(np.array(photo), Frame.around(found.landmarks), detector)
    huge = np.array(photo.resize((photo.width * 5, photo.height * 5), BICUBIC))
    again = align._look_again(huge, Frame.around(found.landmarks * 5), detector).scaled(1 / 5)
    assert again.side == pytest.approx(frame.side, rel=0.02)
    assert again.turned_deg == pytest.approx(frame.turned_deg, abs=1)
    assert np.abs(again.to_photo(LANDMARKS) - frame.to_photo(LANDMARKS)).max() < 2


def test_small_and_cut_off_faces_are_left_out_unless_asked_for(tmp_path, capsys):
    portrait(200).save(tmp_path / "small.png")
    whole = portrait()
    frame = Frame.around(Detector().find(np.array(whole))[0].landmarks)
    top = frame.bounds[1]
    whole.crop((0, top + 0.1 * frame.side, *whole.size)).save(tmp_path / "cut.png")
    Image.new("RGB", (300, 200), GRAY).save(tmp_path / "nobody.png")
    images = [tmp_path / f"{name}.png" for name in ("small", "cut", "nobody")]
    assert run(*images, "--out", tmp_path / "faces") == EXIT_ERROR
    said = capsys.readouterr().out
    assert said == (
        f"{tmp_path}/faces: 0 faces of 3 images; left out: 1 too small (--min-side),"
        " 1 cut off by the edge (--edges), 1 without a face\n"
    )
    assert not (tmp_path / "faces").exists()
    assert run(*images, "--out", tmp_path / "faces", "--min-side", 40, "--edges") == 0
    names = sorted(path.name for path in (tmp_path / "faces").iterdir())
    assert names == ["cut.png", "small.png"]


def test_tars_are_read_and_cannot_write_elsewhere(photos, tmp_path):
    tar = tmp_path / "photos.tar"
    with tarfile.open(tar, "w") as archive:
        archive.add(photos / "a.jpg", "../../b.jpg")
        archive.add(photos / "a.jpg", "people/c.jpg")
    found = align.align([tar], tmp_path / "o")
    assert found.errors == ()
    assert [face.output for face in found.faces] == [
        str(tmp_path / "o" / name) for name in ("b.png", "people/c.png")
    ]


def test_nothing_is_written_over(photos, tmp_path, capsys):
    out = tmp_path / "faces"
    assert run(photos, photos / "a.jpg", "--out", out) == EXIT_ERROR  # twice the same name
    assert "is another image's face already" in capsys.readouterr().err
    before = (out / "a.png").read_bytes()
    (out / "a.png").write_bytes(b"mine")
    assert run(photos / "a.jpg", "--out", out) == EXIT_ERROR
    assert "is there already; give another --out, or --overwrite" in capsys.readouterr().err
    assert (out / "a.png").read_bytes() == b"mine"
    assert run(photos / "a.jpg", "--out", out, "--overwrite") == 0
    assert (out / "a.png").read_bytes() == before


@pytest.mark.parametrize("out", [".", "people", "new/er"])
def test_the_input_is_no_place_for_results(photos, capsys, out):
    assert run(photos, "--out", photos / out) == EXIT_ERROR
    assert "give a folder of its own" in capsys.readouterr().err
    assert not (photos / "a.png").exists()


def test_broken_images_are_named_and_the_others_written(photos, tmp_path, capsys):
    (photos / "b.jpg").write_bytes(b"no image")
    assert run(photos, "--out", tmp_path / "faces") == EXIT_ERROR
    said = capsys.readouterr()
    assert f"error: {photos}/b.jpg: is not an image that is read" in said.err
    assert said.out == f"{tmp_path}/faces: 1 face of 1 image\n"


def test_bad_input_gets_one_line(tmp_path, capsys):
    assert run(tmp_path / "none", "--out", tmp_path / "faces") == EXIT_ERROR
    assert f"error: {tmp_path}/none: not found" in capsys.readouterr().err
    with pytest.raises(SystemExit) as usage:
        run(tmp_path, "--out", tmp_path / "faces", "--min-side", "nan")
    assert usage.value.code == EXIT_USAGE


def test_without_the_detector_its_extra_is_named(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("runtime.media.centerface.find_file", lambda: None)
    assert run(photos, "--out", tmp_path / "faces") == EXIT_MISSING
    assert "python -m runtime.media.fetch" in capsys.readouterr().err
