"""Training pairs: shrunk as Pillow shrinks, framed in many ways, the same again for a seed."""

import math

import numpy as np
import pytest
import torch

import runtime.image
from aminet.training.data import batches, make_pair, reframe, relight, shrink
from aminet.training.options import Augmentation
from runtime.errors import EdgeError

STILL = Augmentation(flip=False, share=0.0)


def smooth_faces(count: int) -> torch.Tensor:
    """Random smooth uint8 images (count, 3, 128, 128): no face needed."""
    noise = torch.rand(count, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    big = torch.nn.functional.interpolate(noise, (128, 128), mode="bicubic").clamp(0, 1)
    return (big * 255).to(torch.uint8)


def test_shrink_equals_pillow_within_one_level() -> None:
    faces = smooth_faces(16)
    ours = shrink(faces).permute(0, 2, 3, 1).numpy()
    pillows = np.stack([runtime.image.shrink(f) for f in faces.permute(0, 2, 3, 1).numpy()])
    difference = np.abs(ours - pillows.astype(float))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


def test_pair_without_augmentation_is_the_face_itself() -> None:
    faces = smooth_faces(4)
    lr, hr = make_pair(faces, torch.tensor([2, 0]), STILL, torch.Generator())
    torch.testing.assert_close(hr * 255, faces[[2, 0]].float())
    assert lr.shape == (2, 3, 16, 16)
    assert 0 <= lr.min() <= lr.max() <= 1


def test_flip_mirrors_some_faces() -> None:
    faces = smooth_faces(1).repeat(64, 1, 1, 1)
    augmentation = Augmentation(flip=True, share=0.0)
    _, hr = make_pair(faces, torch.arange(64), augmentation, torch.Generator().manual_seed(0))
    plain, mirrored = faces[0].float() / 255, faces[0].flip(-1).float() / 255
    as_is = sum(torch.equal(face, plain) for face in hr)
    flipped = sum(torch.equal(face, mirrored) for face in hr)
    assert as_is + flipped == 64
    assert 16 < flipped < 48


def square(first: int, last: int) -> torch.Tensor:
    """One black face with a white square, uint8 (1, 3, 128, 128)."""
    face = torch.zeros(1, 3, 128, 128, dtype=torch.uint8)
    face[:, :, first:last, first:last] = 255
    return face


def reframed(face: torch.Tensor, augmentation: Augmentation) -> torch.Tensor:
    """The face in forty framings, float (40, 128, 128)."""
    generator = torch.Generator().manual_seed(0)
    views = [reframe(face, augmentation, generator) for _ in range(40)]
    return torch.cat(views)[:, 0].float() / 255


def test_shift_moves_by_at_most_what_was_asked() -> None:
    views = reframed(square(60, 68), Augmentation(zoom=1.0, shift=6.0))
    centers = (views.sum(2) * torch.arange(128.0)).sum(1) / views.sum((1, 2))
    moved = (centers - 63.5).abs()
    assert 4 < moved.max() <= 6.01


def test_zoom_changes_the_size_both_ways() -> None:
    views = reframed(square(44, 84), Augmentation(zoom=1.2, shift=0.0))
    sides = views.sum((1, 2)).sqrt() / 40
    assert 1 / 1.22 < sides.min() < 0.9
    assert 1.1 < sides.max() < 1.22


def test_what_lies_beyond_the_image_repeats_its_edge() -> None:
    white = torch.full((1, 3, 128, 128), 255, dtype=torch.uint8)
    assert reframed(white, Augmentation(zoom=1.3, shift=10.0)).min() == 1.0


def test_share_of_the_faces_is_reframed() -> None:
    faces = smooth_faces(200)
    augmentation = Augmentation(flip=False, zoom=1.2, share=0.5)
    _, hr = make_pair(faces, torch.arange(200), augmentation, torch.Generator().manual_seed(0))
    moved = (hr * 255 != faces).flatten(1).any(1).float().mean()
    assert 0.35 < moved < 0.65


def test_batches_cover_each_epoch_and_go_on_where_they_stopped() -> None:
    stream = batches(10, 3, seed=5)
    seen = [next(stream) for _ in range(7)]
    assert len(set(torch.cat(seen[:3]).tolist())) == 9
    resumed = batches(10, 3, seed=5, first_step=4)
    for expected, got in zip(seen[4:], resumed, strict=False):
        assert torch.equal(expected, got)


def test_batches_of_another_seed_differ() -> None:
    assert not torch.equal(next(batches(100, 50, seed=0)), next(batches(100, 50, seed=1)))


def test_relighting_is_off_unless_asked_for() -> None:
    faces = smooth_faces(4)
    _, hr = make_pair(faces, torch.arange(4), STILL, torch.Generator())
    torch.testing.assert_close(hr * 255, faces.float())


def test_exposure_changes_all_channels_of_a_face_alike() -> None:
    gray = torch.full((64, 3, 128, 128), 100, dtype=torch.uint8)
    augmentation = Augmentation(flip=False, share=0.0, exposure=0.5)
    lit = relight(gray, augmentation, torch.Generator().manual_seed(0)).float()
    assert (lit.amax((1, 2, 3)) == lit.amin((1, 2, 3))).all()
    assert 70 <= lit.min() < 80
    assert 132 < lit.max() <= 142


def test_colour_changes_each_channel_by_its_own() -> None:
    gray = torch.full((64, 3, 128, 128), 100, dtype=torch.uint8)
    augmentation = Augmentation(flip=False, share=0.0, colour=0.1)
    lit = relight(gray, augmentation, torch.Generator().manual_seed(0))[:, :, 0, 0]
    assert (lit[:, 0] != lit[:, 1]).float().mean() > 0.8
    assert 90 <= lit.min() < 93
    assert 107 < lit.max() <= 110


def test_input_is_shrunk_from_the_relit_face() -> None:
    augmentation = Augmentation(flip=False, share=0.0, exposure=1.0)
    lr, hr = make_pair(smooth_faces(8), torch.arange(8), augmentation, torch.Generator())
    assert torch.allclose(lr.mean((1, 2, 3)), hr.mean((1, 2, 3)), atol=0.01)


@pytest.mark.parametrize(
    "change",
    [
        {"exposure": -0.1},
        {"colour": 1.0},
        {"zoom": 0.5},
        {"zoom": math.nan},
        {"zoom": math.inf},
        {"shift": math.nan},
        {"shift": 128.0},
    ],
)
def test_augmentation_out_of_range_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(EdgeError, match="out of range"):
        Augmentation(**change)
