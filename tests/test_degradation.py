"""Degradations: each does what it is named for, and a seed gives the same bits everywhere."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from aminet.training.degradation import (
    CLEAN,
    DARK,
    KINDS,
    STILL,
    WILD,
    Camera,
    Chance,
    Geometry,
    Light,
    blur_kernel,
    convolve,
    photograph,
    reframe,
    relight,
    turn,
)
from aminet.training.loader import DegradedFaces, degraded_batches
from aminet.training.wild_validation import WildCell, fixed_size

GREY = np.full((128, 128, 3), 120, np.uint8)
ROWS, COLUMNS = np.mgrid[:128, :128]
FACE = np.stack([ROWS * 2, COLUMNS * 2, 255 - ROWS - COLUMNS // 2], -1).astype(np.uint8)
FACE[40:60, 30:50] = (250, 40, 30)
PLAIN = Camera(frame=(32, 32), filters=("bicubic",))


def always(value: float) -> Chance:
    return Chance(1.0, value, value)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("degradation", [WILD, *KINDS.values()])
def test_a_seed_gives_the_same_bits(degradation) -> None:
    first, second = (degradation.pair(FACE, 64, np.random.default_rng(5)) for _ in range(2))
    assert [side.tobytes() for side in first] == [side.tobytes() for side in second]
    assert [side.shape for side in first] == [(64, 64, 3), (128, 128, 3)]


def batches_of(workers: int, first_step: int, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Step 3 is the second epoch's first."""
    faces = DegradedFaces(np.stack([FACE, GREY] * 3), WILD, 32, batch=2, seed=1)
    made = islice(degraded_batches(faces, first_step=first_step, workers=workers), count)
    return [(lr.numpy(), hr.numpy()) for lr, hr in made]


def test_any_number_of_workers_and_a_resumed_run_give_the_same_batches() -> None:
    """The worker's parent is a process of its own: torch's handler of SIGCHLD stays there."""
    alone = batches_of(0, 2, 3)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        helped = pool.submit(batches_of, 1, 2, 3).result()
    (resumed,) = batches_of(0, 4, 1)
    for a, b in [*zip(alone, helped, strict=True), (alone[2], resumed)]:
        assert all((x == y).all() for x, y in zip(a, b, strict=True))
    assert alone[0][0].shape == (2, 3, 32, 32)
    assert 0 <= float(alone[0][0].min()) <= float(alone[0][0].max()) <= 1


def test_clean_is_pillows_bicubic_there_and_back() -> None:
    lr, hr = fixed_size(CLEAN, 16).pair(FACE, 64, rng())
    small = Image.fromarray(FACE).resize((16, 16), Image.Resampling.BICUBIC)
    assert (lr == np.asarray(small.resize((64, 64), Image.Resampling.BICUBIC))).all()
    assert (hr == FACE).all()


def test_frames_have_every_size_of_their_range() -> None:
    camera, generator = Camera(frame=(10, 64)), rng()
    sides = [len(photograph(GREY, camera, generator)) for _ in range(300)]
    assert min(sides) == 10
    assert max(sides) >= 62
    assert np.median(sides) == pytest.approx((10 * 64) ** 0.5, rel=0.15)  # log-uniform


def test_noise_comes_after_the_darkening() -> None:
    """A face two stops under is a quarter as bright, its noise as loud as ever."""
    noisy = replace(DARK, cameras=((1.0, replace(PLAIN, noise=always(4.0))),))
    lr, hr = noisy.pair(GREY, 32, rng())
    assert (hr == 30).all()
    assert float(lr.std()) == pytest.approx(4.0, rel=0.1)


@pytest.mark.parametrize(
    ("camera", "noisy"),
    [
        (PLAIN, False),
        (replace(PLAIN, noise=always(5.0)), True),
        (replace(PLAIN, photons=always(8.0)), True),
        (replace(PLAIN, noise=always(5.0), photons=always(8.0), grey_noise=1.0), True),
        (replace(PLAIN, blur=always(1.0), motion=always(3.0)), False),
    ],
)
def test_only_noise_disturbs_an_even_surface(camera: Camera, noisy: bool) -> None:
    seen = photograph(GREY, camera, rng())
    assert (seen.std() > 2) == noisy
    of_one_colour = bool((seen == seen[..., :1]).all())
    assert of_one_colour == (not noisy or camera.grey_noise == 1.0)


def test_poisson_noise_grows_with_the_light() -> None:
    camera = replace(PLAIN, frame=(64, 64), photons=always(10.0))
    dark, bright = (photograph(GREY // 4 * k, camera, rng()).std() for k in (1, 4))
    assert bright == pytest.approx(2 * dark, rel=0.15)
    assert bright == pytest.approx(10 * (120 / 255) ** 0.5, rel=0.1)


@pytest.mark.parametrize(("sigma", "length"), [(0.8, 0.0), (0.0, 4.0), (0.5, 2.0)])
def test_blur_smooths_and_keeps_the_mean(sigma: float, length: float) -> None:
    kernel = blur_kernel(sigma, length, 0.0)
    assert kernel.sum() == pytest.approx(1, abs=1e-6)
    edge = np.zeros((32, 32, 3), np.uint8)
    edge[:, 16:] = 200
    blurred = convolve(edge, kernel)
    assert 0 < blurred[16, 15, 0] < 100 < blurred[16, 16, 0] < 200
    assert blurred[16, 0, 0] == 0


def test_motion_blurs_along_its_direction_alone() -> None:
    edge = np.zeros((32, 32, 3), np.uint8)
    edge[16:] = 200
    along, across = (convolve(edge, blur_kernel(0, 4, angle)) for angle in (0, np.pi / 2))
    assert along[15, 16, 0] < 10 < across[15, 16, 0]


def test_jpeg_loses_more_at_a_lower_quality() -> None:
    plain = photograph(FACE, PLAIN, rng()).astype(int)

    def error(quality: int) -> float:
        seen = photograph(FACE, replace(PLAIN, jpeg=always(quality)), rng())
        return float(((seen - plain) ** 2).mean())

    assert 0 < error(95) < error(60) < error(30)


@pytest.mark.parametrize(
    ("light", "check"),
    [
        (Light(stops=always(-1.0)), lambda hr: abs(int(hr[0, 0, 2]) - 128) <= 1),
        (Light(gamma=always(0.3)), lambda hr: hr.mean() < FACE.mean()),
        (Light(grey=1.0), lambda hr: (hr == hr[..., :1]).all()),
        (Light(occlusion=always(0.3)), lambda hr: 0.02 < (hr != FACE).any(-1).mean() < 0.25),
    ],
)
def test_light_changes_the_clean_face_too(
    light: Light, check: Callable[[np.ndarray], bool]
) -> None:
    kept = FACE.copy()
    assert check(relight(FACE, light, rng()))
    assert (kept == FACE).all()


@pytest.mark.parametrize(
    ("moved", "expected"),
    [
        (lambda hr: turn(hr, 0.0), FACE),
        (lambda hr: turn(hr, 90.0), np.rot90(FACE)),
        (lambda hr: turn(hr, 0.0, shift=(3, 0)), np.roll(FACE, 3, axis=1)),
        (lambda hr: reframe(hr, Geometry(flip=1.0, moved=0.0), rng()), FACE[:, ::-1]),
        (lambda hr: reframe(hr, STILL, rng()), FACE),
    ],
)
def test_geometry_moves_the_face(
    moved: Callable[[np.ndarray], np.ndarray], expected: np.ndarray
) -> None:
    difference = np.abs(moved(FACE).astype(int) - expected)[8:-8, 8:-8]
    assert difference.max() <= 1


def test_input_and_clean_face_share_their_geometry() -> None:
    """Without a camera's faults lr is the small hr, wherever the face went."""
    still = replace(WILD, light=Light(), cameras=((1.0, PLAIN),))
    for seed in range(8):
        lr, hr = still.pair(FACE, 32, np.random.default_rng(seed))
        small = Image.fromarray(hr).resize((32, 32), Image.Resampling.BICUBIC)
        assert (lr == np.asarray(small)).all()


def test_cells_of_the_validation_are_fixed_and_differ_by_kind() -> None:
    cells = [WildCell.make(kind, 24, [FACE]) for kind in ("camera", "camera", "dark")]
    assert (cells[0].frames[0] == cells[1].frames[0]).all()
    assert cells[2].hr[0].mean() < cells[0].hr[0].mean() / 3
    assert cells[0].bicubic[0] == cells[0].psnr_y([_upscaled(cells[0].frames[0])])[0]


def _upscaled(frame: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(frame).resize((128, 128), Image.Resampling.BICUBIC))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Chance(1.2, 0, 1),
        lambda: Chance(0.5, 2, 1),
        lambda: Camera(frame=(0, 64)),
        lambda: Camera(frame=(64, 10)),
        lambda: Camera(filters=("nearest",)),
    ],
)
def test_ranges_that_make_no_sense_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"range|frame|filters"):
        make()
