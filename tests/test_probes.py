"""Probes: twelve synthetic faces, stress images, and what FP32 makes of them."""

import numpy as np
import pytest
import torch

import tiny_networks
from export import probes
from runtime.drift import PROBE_FACES, read_probes, write_probes
from runtime.errors import EdgeError
from runtime.image import to_pixels, to_tensor, write_image


@pytest.fixture(scope="module")
def made():
    return probes.make_probes(tiny_networks.network(tiny_networks.LAYERED))


def test_faces_come_first_and_are_those_of_the_strip(made):
    lr = made[0].lr[:PROBE_FACES]
    assert made[0].faces == PROBE_FACES
    assert np.array_equal(np.concatenate(list(lr), axis=1), probes.read_image(probes.STRIPS[16]))
    assert len(np.unique(lr.reshape(PROBE_FACES, -1), axis=0)) == PROBE_FACES


@pytest.mark.parametrize(
    ("name", "color"), [("black", (0, 0, 0)), ("white", (255, 255, 255)), ("red", (255, 0, 0))]
)
def test_stress_images_are_flat_and_saturated(made, name, color):
    assert (made[0].lr[made[0].names.index(name)] == color).all()


def test_every_corner_of_the_color_cube_is_probed(made):
    flat = made[0].lr[PROBE_FACES:-1]
    assert len({tuple(picture[0, 0]) for picture in flat}) == 8
    assert np.isin(flat, (0, 255)).all()


def test_fields_of_the_checkerboard_alternate(made):
    board = made[0].lr[made[0].names.index("checkerboard")].astype(int)
    assert (abs(np.diff(board, axis=0)) == 255).all()
    assert (abs(np.diff(board, axis=1)) == 255).all()


def test_outputs_are_the_networks_rounded_to_pixels(made):
    with torch.inference_mode():
        lr = torch.from_numpy(to_tensor(made[0].lr))
        sr = tiny_networks.network(tiny_networks.LAYERED)(lr).numpy()
    assert np.allclose(made[1], sr, atol=1e-5)  # all at once or one by one
    assert np.array_equal(made[0].sr, to_pixels(made[1]))


def test_probes_are_read_as_they_were_written(made, tmp_path):
    write_probes(tmp_path / "probes.npz", made[0])
    read = read_probes(tmp_path / "probes.npz")
    assert read.names == made[0].names
    assert np.array_equal(read.lr, made[0].lr)
    assert np.array_equal(read.sr, made[0].sr)


def test_a_strip_of_another_size_is_named(tmp_path):
    write_image(tmp_path / "strip.png", np.zeros((16, 160, 3), np.uint8))
    with pytest.raises(EdgeError, match=r"strip.png.*expected \(16, 192, 3\).*calib_data.generate"):
        probes.probe_images(16, tmp_path / "strip.png")
