"""Calibration sets: what is read of them, which are refused, and how contrast is augmented."""

import shutil

import numpy as np
import pytest

import tiny_artifact
from calib_data.generate import PROBE_STRIP, draw_faces, read_statistics, unstrip
from quantize import calibration
from quantize.activations import augment_contrast
from quantize.calibration import read_calibration
from quantize.int8 import main
from quantize.resemblance import misfits
from runtime.errors import EXIT_ERROR, EdgeError
from runtime.image import luma, read_image, write_image


def test_every_fourth_face_is_held_out(calib):
    faces = read_calibration([calib])
    assert (len(faces.faces), len(faces.held_out), faces.skipped) == (18, 6, ())


def test_a_pattern_and_larger_faces_will_do(calib):
    write_image(calib / "24.png", np.kron(tiny_artifact.faces(1)[0], np.ones((8, 8, 1), "u1")))
    assert len(read_calibration([str(calib / "*.png")]).faces) == 19


def test_a_broken_image_is_skipped_and_named(source, calib, capsys):
    (calib / "07.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    assert main(["--calib", str(calib), "--target", "cpu"]) == 0
    assert f"note: skipped: {calib / '07.png'}: is damaged" in capsys.readouterr().err


def break_many(folder):
    for number in range(5):
        (folder / f"{number:02}.png").write_bytes(b"broken")


def keep_few(folder):
    for path in sorted(folder.iterdir())[10:]:
        path.unlink()


def make_alike(folder):
    for path in folder.iterdir():
        write_image(path, tiny_artifact.faces(1)[0])


def make_flat(folder):
    for number, path in enumerate(folder.iterdir()):
        write_image(path, np.full((16, 16, 3), 10 * number, np.uint8))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (break_many, "5 of 24 images cannot be used, such as"),
        (keep_few, "holds 10 images, expected at least 16"),
        (make_alike, "shows the same or nothing in all images"),
        (make_flat, "shows the same or nothing in all images"),
        (lambda folder: [path.unlink() for path in folder.iterdir()], "holds no "),
        (shutil.rmtree, "not found"),
    ],
)
def test_sets_that_cannot_calibrate(calib, spoil, reason):
    spoil(calib)
    with pytest.raises(EdgeError) as caught:
        read_calibration([calib])
    error = caught.value
    assert error.status == EXIT_ERROR
    assert str(error).startswith(str(calib))
    assert reason in str(error)


def test_no_more_faces_are_read_than_are_used(calib, monkeypatch):
    monkeypatch.setattr(calibration, "MOST_FACES", 16)
    faces = read_calibration([calib])
    assert len(faces.faces) + len(faces.held_out) == 16


def test_augmented_faces_keep_their_mean_color():
    face = np.zeros((1, 16, 16, 3), np.uint8) + 100
    face[:, :8] += 20
    assert sorted(np.unique(augment_contrast(face))) == [94, 126]


def test_halves_of_two_faces_are_among_the_augmented_ones():
    faces = np.full((2, 16, 16, 3), [[[[100]]], [[[120]]]], np.uint8)
    _, _, stacked, _, beside, _ = augment_contrast(faces)
    assert {*stacked[:8].flat, *beside[:, :8].flat} == {94}
    assert {*stacked[8:].flat, *beside[:, 8:].flat} == {126}


def test_of_a_folder_with_several_sides_the_one_that_fits_is_read(tmp_path):
    for number, face in enumerate(tiny_artifact.faces(24)):
        write_image(tmp_path / f"{number:02}.png", face)
        write_image(tmp_path / "64px" / f"{number:02}.png", np.kron(face, np.ones((4, 4, 1), "u1")))
    of_16, of_64 = read_calibration([tmp_path]), read_calibration([tmp_path], 64)
    assert (of_16.faces.shape, of_64.faces.shape) == ((18, 16, 16, 3), (18, 64, 64, 3))
    assert np.array_equal(of_16.faces, tiny_artifact.faces(24)[np.arange(24) % 4 != 3])


# Whether a set fits the model.

FACES = draw_faces(read_statistics(), seed=4, count=48)
GRAY = np.repeat(np.rint(luma(FACES))[..., None], 3, axis=-1).astype(np.uint8)
NOISE = np.random.default_rng(0).integers(0, 256, FACES.shape).astype(np.uint8)


@pytest.fixture(scope="module")
def probe_faces():
    return unstrip(read_image(PROBE_STRIP))


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        ((FACES * 0.25).astype(np.uint8), "too dark"),
        (np.clip(FACES * 1.7, 0, 255).astype(np.uint8), "too bright"),
        ((110 + (FACES - 110.0) / 4).astype(np.uint8), "too little contrast"),
        (GRAY, "gray"),
        (255 - FACES, "inverted"),
        (FACES[:, ::-1], "upside down"),
        (np.rot90(FACES, axes=(1, 2)), "turned by 90 degrees"),
        (FACES[..., ::-1], "channels look swapped (read as BGR, expected RGB)"),
        (np.repeat(FACES[:1], 48, axis=0) * 0 + 90, "too little contrast"),
        (NOISE, "noise, no images"),
        (np.roll(FACES, 8, axis=2), "not aligned faces"),
    ],
)
def test_a_set_that_does_not_fit_is_named(images, reason, probe_faces):
    assert reason in "; ".join(misfits(images, probe_faces))


@pytest.mark.parametrize("images", [FACES, FACES[:16], FACES[:, :, ::-1], FACES[16:32] * 0.8])
def test_faces_mirrored_or_few_or_in_dimmer_light_fit(images, probe_faces):
    assert misfits(images.astype(np.uint8), probe_faces) == ()


def test_what_is_not_aligned_itself_asks_for_no_alignment():
    """A model of any images: their direction and channels say nothing."""
    assert misfits(tiny_artifact.faces(24, seed=2), tiny_artifact.faces(12)) == ()


def test_a_set_that_does_not_fit_is_refused_unless_forced(source, calib, capsys):
    for path in calib.iterdir():
        write_image(path, (read_image(path) * 0.25).astype(np.uint8))
    arguments = ["--calib", str(calib), "--target", "cpu", "--max-drop-db", "5"]
    assert main(arguments) == EXIT_ERROR
    assert "does not fit the model: too dark (mean luma 43, expected" in capsys.readouterr().err
    assert not source.with_name("int8.onnx").exists()
    assert main([*arguments, "--force"]) == 0
    assert "note: the calibration set does not fit the model" in capsys.readouterr().err
