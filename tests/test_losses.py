"""Losses: pixels, distillation, VGG's feature maps, the discriminator."""

import math
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from aminet.checkpoint import load_checkpoint, save_checkpoint
from aminet.model import AMINet
from aminet.train import TrainOptions, train
from aminet.training import logbook, run
from aminet.training.criterion import Teacher
from aminet.training.discriminator import Adversary, Discriminator
from aminet.training.losses import (
    discriminator_loss,
    generator_loss,
    imitation_loss,
    pixel_loss,
)
from aminet.training.lpips import LPIPS
from aminet.training.options import Augmentation, GanOptions, parse
from aminet.training.perceptual import PLANS, VGG, PerceptualLoss, unit_distance
from aminet.training.trainer import Trainer
from aminet.training.views import TaughtViews
from aminet.training.wild_validation import WildCell, WildValidation
from runtime.dataset import load_faces
from runtime.errors import EXIT_MISSING, EdgeError
from tiny_training import TINY, tiny_options, write_disks


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_disks(tmp_path_factory.mktemp("faces"), 8)


@pytest.fixture
def options(faces: Path, tmp_path: Path) -> TrainOptions:
    return tiny_options(faces, tmp_path / "run")


def tiny_vgg(convolutions: int = 13) -> VGG:
    """VGG's plan with two channels everywhere."""
    generator = torch.Generator().manual_seed(0)
    widths = [3] + [2] * convolutions
    return VGG(
        [
            (torch.randn(out, width, 3, 3, generator=generator), torch.zeros(out))
            for width, out in pairwise(widths)
        ]
    )


def test_the_psnr_loss_falls_as_the_mean_psnr_rises() -> None:
    hr = torch.zeros(2, 3, 2, 2)
    sr = torch.stack([torch.full((3, 2, 2), 0.1), torch.full((3, 2, 2), 0.01)])  # 20 and 40 dB
    decibels = pixel_loss("psnr", sr, hr) * -10 / math.log(10)
    assert float(decibels) == pytest.approx(30, abs=0.05)


def test_a_perfect_face_does_not_break_the_psnr_loss() -> None:
    sr = torch.zeros(2, 3, 2, 2, requires_grad=True)
    loss = pixel_loss("psnr", sr, torch.zeros(2, 3, 2, 2))
    loss.backward()
    assert loss.isfinite()
    assert sr.grad is not None
    assert sr.grad.isfinite().all()


def test_a_teachers_share_of_the_pixel_loss() -> None:
    sr, hr, taught = (torch.full((1, 3, 2, 2), value) for value in (0.0, 1.0, 0.5))
    assert imitation_loss("l1", sr, hr, taught, share=0.0) == 1.0
    assert imitation_loss("l1", sr, hr, taught, share=0.5) == 0.75
    assert imitation_loss("l2", sr, hr, taught, share=1.0) == 0.25
    together = imitation_loss("psnr", sr, hr, taught, share=0.5)  # 1 and 0.25 in equal parts
    assert float(together) == pytest.approx(math.log(0.625), abs=1e-4)


def test_the_teacher_sees_every_other_face_flipped(options: TrainOptions) -> None:
    first = train(replace(options, steps=1), TINY).checkpoint
    teacher = Teacher(replace(options, teacher=Path(first)), torch.device("cpu"))
    torch.nn.init.normal_(teacher.network.exit.conv.weight, std=0.02)
    lr = torch.rand(3, 3, 16, 16)
    taught, mirrored = teacher(lr), teacher(lr.flip(-1)).flip(-1)
    with torch.no_grad():
        plain = teacher.network(lr)
    assert torch.allclose(taught[1], plain[1], atol=1e-6)
    assert torch.allclose(mirrored[::2], plain[::2], atol=1e-6)
    assert not torch.allclose(taught[::2], plain[::2], atol=1e-4)


def test_a_teacher_is_asked_once_for_all_views(options: TrainOptions) -> None:
    asked = []

    def teacher(lr: torch.Tensor) -> torch.Tensor:
        asked.append(len(lr))
        return 1 - lr.mean((1, 2, 3), keepdim=True).expand(-1, 3, 128, 128)

    faces = (torch.arange(5, dtype=torch.uint8) * 50).view(5, 1, 1, 1).expand(5, 3, 128, 128)
    made = TaughtViews.make(faces.contiguous(), 2, Augmentation(), teacher, seed=3)
    batches = list(islice(made.batches(2, seed=3), 8))  # two a view, twice around
    assert asked == [5, 5]
    for lr, hr, taught in batches:
        assert torch.allclose(lr.mean((1, 2, 3)), hr.mean((1, 2, 3)), atol=1e-3)
        assert torch.allclose(taught.mean((1, 2, 3)), 1 - hr.mean((1, 2, 3)), atol=3e-3)
    assert {round(float(hr[0].mean() * 255)) for _, hr, _ in batches} <= {0, 50, 100, 150, 200}
    again = next(iter(made.batches(2, seed=3, first_step=5)))
    assert all(torch.equal(a, b) for a, b in zip(again, batches[5], strict=True))


def test_views_of_a_teacher_train_the_student(options: TrainOptions) -> None:
    teacher = Path(train(replace(options, steps=1), TINY).checkpoint)
    pupil = replace(
        options, out=options.out.with_name("pupil"), teacher=teacher, views=2, steps=3, seed=1
    )
    assert train(pupil, TINY).steps == 3


def test_a_student_approaches_its_teacher(options: TrainOptions) -> None:
    teacher = train(replace(options, steps=1), TINY).checkpoint
    with torch.no_grad():
        state = dict(load_checkpoint(teacher).state)
    pupil = replace(
        options,
        out=options.out.with_name("pupil"),
        teacher=Path(teacher),
        distill=1.0,
        seed=1,
        steps=12,
        warmup=0,
    )
    trainer = Trainer(pupil, TINY)
    lr, hr = torch.rand(4, 3, 16, 16), torch.rand(4, 3, 128, 128)
    trainer.criterion.teacher.network.exit.conv.bias.data += 0.2
    losses = [float(trainer.step(lr, hr)) for _ in range(12)]
    assert losses[-1] < losses[0] - 0.005
    assert torch.equal(
        load_checkpoint(teacher).state["entry.conv.weight"], state["entry.conv.weight"]
    )


def test_teacher_is_named_in_the_recipe(options: TrainOptions) -> None:
    teacher = train(replace(options, steps=1), TINY).checkpoint
    pupil = replace(options, steps=1, out=options.out.with_name("pupil"), teacher=Path(teacher))
    training = load_checkpoint(train(pupil, TINY).checkpoint).training
    assert (training["teacher"], training["distill"]) == ("best.safetensors", 0.5)


def test_hinge_losses_are_at_rest_where_the_discriminator_is_sure() -> None:
    sure, lost = torch.tensor([2.0]), torch.tensor([-2.0])
    assert discriminator_loss(real=sure, fake=lost) == 0
    assert discriminator_loss(real=lost, fake=sure) == 6
    assert generator_loss(sure) < generator_loss(lost)


@torch.no_grad()
def test_discriminators_convolutions_have_spectral_norm_one() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(4)
    for _ in range(60):  # each forward pass is one power iteration
        opinions = discriminator(torch.rand(1, 3, 128, 128))
    assert opinions.shape == (1, 1, 14, 14)
    for module in discriminator.layers:
        if hasattr(module, "weight"):
            norm = float(torch.linalg.matrix_norm(module.weight.flatten(1), 2))
            assert norm == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(("convolutions", "name"), [(13, "VGG16"), (16, "VGG19")])
def test_vgg_has_five_features(convolutions: int, name: str) -> None:
    vgg = tiny_vgg(convolutions)
    features = vgg(torch.rand(1, 3, 32, 32))
    assert vgg.name == name
    assert [feature.shape[-1] for feature in features] == [32, 16, 8, 4, 2]
    assert sum(PLANS[convolutions]) == convolutions


def test_fewer_levels_of_vgg_take_fewer_convolutions() -> None:
    vgg, face = tiny_vgg(), torch.rand(1, 3, 32, 32)
    few = VGG([(c.weight, c.bias) for c in vgg.convolutions], levels=3)
    assert (few.name, len(few.convolutions)) == ("VGG16", 7)
    for a, b in zip(few(face), vgg(face)[:3], strict=True):
        torch.testing.assert_close(a, b)


def test_perceptual_loss_is_nothing_for_equal_faces_and_moves_only_the_generator() -> None:
    loss = PerceptualLoss(tiny_vgg())
    face = torch.rand(1, 3, 32, 32, requires_grad=True)
    assert loss(face, face.detach()) == 0
    loss(face, torch.rand(1, 3, 32, 32)).backward()
    assert face.grad is not None
    assert face.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in loss.parameters())


def test_unit_features_of_a_darker_face_count_as_much() -> None:
    """Four times fainter features have the same distance; that of L1 is a quarter."""
    a, b = torch.rand(1, 4, 8, 8), torch.rand(1, 4, 8, 8)
    assert unit_distance(a / 4, b / 4) == pytest.approx(float(unit_distance(a, b)), rel=1e-3)
    vgg = tiny_vgg()
    sr, hr = torch.rand(2, 1, 3, 32, 32)
    few = PerceptualLoss(vgg, [2, 3], unit=True)
    expected = [unit_distance(x, y) for x, y in zip(vgg(sr), vgg(hr), strict=True)][1:3]
    assert few(sr, hr) == pytest.approx(float(sum(expected)) / 2)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_users_vgg19_is_read_in_the_order_of_its_layers(tmp_path: Path, suffix: str) -> None:
    from safetensors.torch import save_file

    vgg = tiny_vgg(16)
    state = {}
    for index, convolution in enumerate(vgg.convolutions):
        state[f"features.{2 * index}.weight"] = convolution.weight.data
        state[f"features.{2 * index}.bias"] = convolution.bias.data
    state["classifier.0.weight"] = torch.zeros(2, 2)
    path = tmp_path / f"vgg19.{suffix}"
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    face = torch.rand(1, 3, 32, 32)
    for a, b in zip(vgg(face), VGG.load(path)(face), strict=True):
        torch.testing.assert_close(a, b)


def test_amigan_trains_and_resumes(options: TrainOptions) -> None:
    gan = replace(options, gan=GanOptions(perceptual=0, channels=4), optimizer="adam", rate=1e-4)
    train(replace(gan, steps=3), TINY)
    trainer = Trainer(replace(gan, resume=True), TINY)
    assert trainer.adversary is not None
    assert trainer.progress.step == 3
    moments = trainer.adversary.optimizer.state_dict()["state"][0]
    assert moments["step"] == 3
    assert train(replace(gan, resume=True), TINY).steps == 6


def test_losses_of_a_patch_see_the_same_patch_of_both_faces() -> None:
    gan = GanOptions(perceptual=0, channels=4, patch=48)
    adversary = Adversary(gan, torch.device("cpu"))
    faces = torch.arange(128.0).expand(4, 3, 128, 128)
    patches = [adversary._patches(faces, step) for step in (1, 1, 2)]
    assert patches[0].shape == (4, 3, 48, 48)
    assert torch.equal(patches[0], patches[1])
    assert not torch.equal(patches[0], patches[2])
    assert len(patches[0][:, 0, 0, 0].unique()) > 1  # each face has a place of its own
    sr = faces.clone().requires_grad_()
    adversary.generator_terms(sr, faces, 1)["adversarial"].backward()
    assert sr.grad is not None
    assert 0 < int((sr.grad != 0).sum()) <= 4 * 3 * 48 * 48


def test_a_discriminator_learns_to_tell_faces_apart(options: TrainOptions) -> None:
    gan = GanOptions(perceptual=0, channels=8, rate=2e-3)
    trainer = Trainer(replace(options, gan=gan, rate=1e-6, warmup=0), TINY)
    hr = (torch.rand(4, 3, 128, 128) > 0.5).float()
    lr = torch.nn.functional.avg_pool2d(hr, 8)
    doubts = []
    for _ in range(6):
        trainer.step(lr, hr)
        doubts.append(float(trainer.terms["discriminator"]))
    assert doubts[-1] < doubts[0] - 0.1
    assert set(trainer.terms) == {"pixel", "adversarial", "discriminator"}


class HalfWay(LPIPS):
    """A distance of 0.5 for all faces."""

    def __init__(self) -> None:
        super().__init__([], [])

    @classmethod
    def load(cls) -> "HalfWay":
        return cls()

    def __call__(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        assert a.shape == b.shape
        return np.full(len(a), 0.5)


def test_amigan_validates_lpips_from_the_start(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start = options.out.with_name("start.safetensors")
    save_checkpoint(start, AMINet(TINY), TINY, name="aminet-edge")
    few = GanOptions(perceptual=0, channels=4, patch=32)
    gan = replace(options, out=options.out.with_name("gan"), init=start, gan=few, steps=1)
    train(gan, TINY)
    assert "LPIPS is not measured" in capsys.readouterr().err  # its network was not fetched
    monkeypatch.setattr(run, "LPIPS", HalfWay)
    train(replace(gan, overwrite=True), TINY)
    lines = [line for line in logbook.read(gan.out / "log.jsonl") if "psnr_y" in line]
    assert [(line["step"], line["lpips"]) for line in lines] == [(0, 0.5), (1, 0.5)]


def test_lpips_of_degraded_faces_has_a_mean_for_each_kind(faces: Path) -> None:
    config = replace(TINY, lr_side=64)
    hr = list(load_faces([faces], limit=2))
    cells = tuple(WildCell.make(kind, 16, hr) for kind in ("clean", "dark"))
    network = AMINet(config).eval()
    _, beside = WildValidation(cells, 64, HalfWay()).evaluate(network)
    of_lpips = {name: value for name, value in beside.items() if name.startswith("lpips")}
    assert of_lpips == {"lpips": 0.5, "lpips-clean": 0.5, "lpips-dark": 0.5}
    assert set(WildValidation(cells, 64).evaluate(network)[1]) == {"clean-16", "dark-16"}


def test_without_vgg_the_command_that_brings_it_is_named(options: TrainOptions) -> None:
    with pytest.raises(EdgeError, match=r"python -m benchmarks\.fetch.*--perceptual 0") as missing:
        Trainer(replace(options, gan=GanOptions()), TINY)
    assert missing.value.status == EXIT_MISSING


REQUIRED = ["--data", "x.tar", "--out", "run", "--steps", "1"]


@pytest.mark.parametrize(
    ("flags", "model", "optimizer", "rate", "adversarial"),
    [
        ([], "aminet-edge", "muon", 1e-3, False),
        (["--gan"], "amigan", "adam", 1e-4, True),
        (["--model", "amigan"], "amigan", "adam", 1e-4, True),
        (["--model", "amigan-edge"], "amigan-edge", "adam", 1e-4, True),
        (["--model", "amigan-real"], "amigan-real", "adam", 1e-4, True),
        (["--gan", "--model", "aminet-edge", "--rate", "3e-4"], "aminet-edge", "adam", 3e-4, True),
    ],
)
def test_amigan_has_its_own_defaults(
    flags: list[str], model: str, optimizer: str, rate: float, adversarial: bool
) -> None:
    options = parse([*REQUIRED, *flags])
    assert (options.model, options.optimizer, options.rate) == (model, optimizer, rate)
    assert (options.gan is not None) == adversarial
