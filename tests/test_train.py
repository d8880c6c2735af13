"""Training on a tiny network: it learns, stops, goes on, and says what is wrong."""

import json
import math
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from aminet.blocks import SKAF
from aminet.checkpoint import load_checkpoint, load_model
from aminet.config import MODELS
from aminet.train import TrainOptions, train
from aminet.training import run as running
from aminet.training import trainer as training
from aminet.training.lineage import describe
from aminet.training.options import Augmentation, GanOptions, parse
from aminet.training.run import TrainResult
from aminet.training.trainer import Trainer
from aminet.training.validation import Validation
from runtime.errors import EXIT_INTERRUPTED, EXIT_MISSING, EXIT_USAGE, EdgeError
from tiny_training import TINY, tiny_options, write_disks


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_disks(tmp_path_factory.mktemp("faces"))


@pytest.fixture
def options(faces: Path, tmp_path: Path) -> TrainOptions:
    return tiny_options(faces, tmp_path / "run")


def losses_of(options: TrainOptions, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    losses: list[float] = []
    step = training.Trainer.step

    def recording(self: training.Trainer, lr: torch.Tensor, hr: torch.Tensor) -> torch.Tensor:
        loss = step(self, lr, hr)
        losses.append(float(loss))
        return loss

    monkeypatch.setattr(training.Trainer, "step", recording)
    train(options, TINY)
    monkeypatch.undo()
    return losses


def lines_of(options: TrainOptions) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (options.out / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module", params=["muon", "adam"])
def trained(
    request: pytest.FixtureRequest, faces: Path, tmp_path_factory: pytest.TempPathFactory
) -> TrainResult:
    """A run of 80 steps at a large rate."""
    options = tiny_options(faces, tmp_path_factory.mktemp(request.param) / "run")
    options = replace(options, steps=80, batch=8, warmup=5, rate=5e-3, ema=0.9)
    return train(replace(options, optimizer=request.param), TINY)


def test_training_beats_bicubic(trained: TrainResult, faces: Path) -> None:
    assert trained.steps == 80
    assert trained.best_psnr_y is not None
    assert trained.best_psnr_y > Validation.load([str(faces)]).bicubic_psnr_y + 0.08


def test_skafs_gates_stay_open(trained: TrainResult) -> None:
    """At the full learning rate they close within a hundred steps, and half the network idles."""
    network, _ = load_model(checkpoint=trained.checkpoint)
    gates: list[float] = []
    for module in network.modules():
        if isinstance(module, SKAF):
            module.select.register_forward_hook(
                lambda _module, _inputs, maps: gates.append(float(maps.sigmoid().mean()))
            )
    lr = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        network(lr)
    assert len(gates) == 5
    assert min(gates) > 0.4


def test_best_checkpoint_is_the_validated_one(options: TrainOptions) -> None:
    result = train(options, TINY)
    network, loaded = load_model(checkpoint=result.checkpoint)
    assert loaded.config == TINY
    assert loaded.metrics["validation/psnr_y"] == result.best_psnr_y
    assert [stage["steps"] for stage in loaded.training["stages"]] == [6]
    assert Validation.load(options.val).psnr_y(network) == pytest.approx(
        result.best_psnr_y, abs=1e-4
    )


def test_weights_know_all_stages_of_their_training(options: TrainOptions) -> None:
    """Resumed alike is one stage; with another loss, or from weights, it is the next."""

    def stages(**changes: Any) -> list[tuple[int, str]]:
        result = train(replace(options, **changes), TINY)
        trained = load_checkpoint(result.checkpoint).training["stages"]
        return [(stage["steps"], stage["loss"]) for stage in trained]

    options = replace(options, val=())  # each run's latest weights are its best
    assert stages(steps=2) == [(2, "l1")]
    assert stages(steps=3, resume=True) == [(3, "l1")]
    assert stages(steps=5, resume=True, loss="l2") == [(3, "l1"), (2, "l2")]
    first = options.out / "best.safetensors"
    second = options.out.with_name("second")
    assert stages(steps=1, init=first, out=second) == [(3, "l1"), (2, "l2"), (1, "l1")]


@pytest.mark.parametrize("optimizer", ["muon", "adam"])
def test_resumed_run_sees_the_same_losses(
    options: TrainOptions, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after step 3 and resumed: steps 4 to 6 are those of the run that was not."""
    options = replace(options, optimizer=optimizer, augmentation=Augmentation())
    whole = losses_of(options, monkeypatch)
    broken = replace(options, out=options.out.with_name("broken"))
    step = training.Trainer.step

    def dying(self: training.Trainer, lr: torch.Tensor, hr: torch.Tensor) -> torch.Tensor:
        if self.progress.step == 3:
            raise KeyboardInterrupt
        return step(self, lr, hr)

    monkeypatch.setattr(training.Trainer, "step", dying)
    with pytest.raises(EdgeError, match="stopped at step 3; go on with --resume") as stopped:
        train(broken, TINY)
    assert stopped.value.status == EXIT_INTERRUPTED
    monkeypatch.undo()
    resumed = losses_of(replace(broken, resume=True), monkeypatch)
    assert resumed == pytest.approx(whole[3:], rel=1e-5)


def test_finished_run_resumes_to_nothing(options: TrainOptions) -> None:
    train(options, TINY)
    assert train(replace(options, resume=True), TINY).steps == 6


def test_minutes_are_kept(options: TrainOptions) -> None:
    begun = time.perf_counter()
    result = train(replace(options, steps=None, minutes=0.03), TINY)
    assert result.seconds >= 1.8
    assert time.perf_counter() - begun < 20
    assert result.steps > 0


def test_learning_rate_warms_up_then_falls_to_near_nothing(options: TrainOptions) -> None:
    trainer = training.Trainer(replace(options, steps=100, warmup=10), TINY)
    rates = []
    for step in range(100):
        trainer.progress.step = step
        rates.append(trainer.learning_rate())
    assert rates[0] == pytest.approx(options.rate / 10)
    assert max(rates) == pytest.approx(options.rate, rel=0.05)
    assert rates[-1] < 0.02 * options.rate


def test_log_is_json_lines_with_losses_and_validation(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "LOG_EVERY", 5)
    train(options, TINY)
    lines = lines_of(options)
    assert any("loss" in line and line["images_per_s"] > 0 for line in lines)
    assert any(
        line.get("psnr_y", 0) > line.get("bicubic_psnr_y", 0) - 5
        for line in lines
        if "psnr_y" in line
    )


def test_tensorboard_shows_a_run_and_its_overwriting_starts_anew(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "LOG_EVERY", 5)
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for steps, overwrite in ((6, False), (2, True)):
        train(replace(options, steps=steps, overwrite=overwrite, tensorboard=True), TINY)
        events = accumulators.EventAccumulator(str(options.out / "tensorboard"))
        events.Reload()
        found = {
            (name, each.step): pytest.approx(each.value, rel=1e-6)
            for name in events.Tags()["scalars"]
            for each in events.Scalars(name)
        }
        assert found == {
            (name, line["step"]): value
            for line in lines_of(options)
            for name, value in line.items()
            if name not in ("step", "seconds")
        }


def test_without_tensorboard_its_extra_is_named_before_anything_is_touched(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(EdgeError, match=r"pip install 'aminet-edge\[tensorboard\]'") as refused:
        train(replace(options, tensorboard=True), TINY)
    assert refused.value.status == EXIT_MISSING
    assert not options.out.exists()


def test_start_from_other_weights(options: TrainOptions) -> None:
    first = train(options, TINY)
    second = replace(
        options, out=options.out.with_name("second"), init=Path(first.checkpoint), rate=1e-9
    )
    started = load_checkpoint(first.checkpoint).state["exit.conv.weight"]
    ended = load_checkpoint(train(second, TINY).checkpoint).state["exit.conv.weight"]
    torch.testing.assert_close(started, ended, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"minutes": 1.0}, "either --minutes or --steps"),
        ({"steps": None}, "either --minutes or --steps"),
        ({"steps": -1}, "--steps -1, expected more than 0"),
        ({"steps": None, "minutes": math.nan}, "--minutes nan, expected more than 0"),
        ({"batch": 0}, "--batch 0, expected more than 0"),
        ({"rate": math.nan}, "--rate nan, expected more than 0"),
        ({"warmup": -1}, "--warmup -1, expected 0 or more"),
        ({"weight_decay": -1.0}, "--weight-decay -1, expected 0 or more"),
        ({"ema": 1.5}, "--ema 1.5, expected 0 to 1"),
        ({"distill": -0.1}, "--distill -0.1, expected 0 to 1"),
        ({"val_every_s": -1.0}, "--val-every -1, expected 0 or more"),
        ({"gan": GanOptions(perceptual=-1.0)}, "--perceptual -1, expected 0 or more"),
        ({"gan": GanOptions(adversarial=-1.0)}, "--adversarial -1, expected 0 or more"),
        ({"gan": GanOptions(rate=0.0)}, "--discriminator-rate 0, expected more than 0"),
    ],
)
def test_impossible_options_are_usage_errors(
    options: TrainOptions, change: dict[str, object], named: str
) -> None:
    with pytest.raises(EdgeError, match=named) as caught:
        replace(options, **change)  # type: ignore[arg-type]
    assert caught.value.status == 2


def test_too_few_faces_are_counted(options: TrainOptions) -> None:
    with pytest.raises(EdgeError, match="16 faces, expected at least a batch of 32"):
        train(replace(options, batch=32), TINY)


def test_init_keeps_all_but_the_fresh_parts(options: TrainOptions) -> None:
    first = replace(options, out=options.out / "first")
    start = Path(train(first, TINY).checkpoint)
    trainer = Trainer(replace(options, init=start, fresh=("exit", "encoders.0.down")), TINY)
    kept = load_checkpoint(start).state
    now = trainer.network.state_dict()
    assert not now["exit.conv.weight"].any()  # it starts at zero
    changed = {key for key, value in now.items() if not torch.equal(value, kept[key])}
    assert changed <= {k for k in now if k.startswith(("exit.", "encoders.0.down."))}
    assert changed


def test_an_unknown_fresh_part_is_a_usage_error(options: TrainOptions) -> None:
    start = Path(train(options, TINY).checkpoint)
    with pytest.raises(EdgeError, match="--fresh nowhere") as raised:
        Trainer(replace(options, init=start, fresh=("nowhere",)), TINY)
    assert raised.value.status == EXIT_USAGE


def test_frozen_norms_keep_the_statistics_of_init(options: TrainOptions) -> None:
    """And a face's output no longer depends on the others of its batch, even after a resume."""
    start = Path(train(replace(options, out=options.out / "first"), TINY).checkpoint)
    frozen = replace(options, init=start, freeze_norms=True)
    before = load_checkpoint(start).state
    after = load_checkpoint(train(frozen, TINY).checkpoint).state
    running = [key for key in before if "running_" in key]
    assert running
    assert all(torch.equal(before[key], after[key]) for key in running)
    assert not torch.equal(before["exit.conv.weight"], after["exit.conv.weight"])
    trainer = Trainer(replace(frozen, resume=True, steps=9), TINY)
    faces = torch.rand(4, 3, 16, 16)
    with torch.no_grad():
        together, alone = trainer.network(faces)[:1], trainer.network(faces[:1])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("extra", [{}, {"init": Path("f"), "fresh": ("exit",)}])
def test_norms_without_statistics_are_not_frozen(
    options: TrainOptions, extra: dict[str, object]
) -> None:
    with pytest.raises(EdgeError, match="--freeze-norms needs --init") as raised:
        replace(options, freeze_norms=True, **extra)
    assert raised.value.status == EXIT_USAGE


def test_resuming_another_config_is_refused(options: TrainOptions) -> None:
    train(options, TINY)
    with pytest.raises(EdgeError, match="heads"):
        train(replace(options, resume=True), replace(TINY, heads=(2, 2)))


def test_edge_wide_convolutions_are_muons_and_the_rest_adams() -> None:
    from aminet.model import AMINet
    from aminet.training.optimizer import ConvMuon, build_optimizers

    network = AMINet(MODELS["aminet-edge"]).to(memory_format=torch.channels_last)
    adam, muon = build_optimizers(network, "muon", 1e-3, (0.9, 0.99))
    assert isinstance(muon, ConvMuon)
    adams = [p for group in adam.param_groups for p in group["params"]]
    ours = {id(p) for p in [*muon.kernels, *adams]}
    assert ours == {id(p) for p in network.parameters()}
    assert all(kernel.shape[1] >= 16 for kernel in muon.kernels)


def test_weight_decay_shrinks_wide_kernels_but_the_exits(options: TrainOptions) -> None:
    """By the rate times the decay a step, beside what the gradient does."""
    options = replace(options, steps=1, warmup=0, rate=1e-2)
    plain, decayed = (Trainer(replace(options, weight_decay=decay), TINY) for decay in (0.0, 20.0))
    pair = torch.rand(4, 3, 16, 16), torch.rand(4, 3, 128, 128)
    before = {key: value.clone() for key, value in plain.network.state_dict().items()}
    for trainer in (plain, decayed):
        trainer.step(*pair)
    wide = {k for k, v in before.items() if v.ndim == 4 and min(v.shape[:2]) >= 16}
    shrinking = {key for key in wide if not key.startswith("exit.")}
    assert shrinking
    assert shrinking < wide
    after = dict(decayed.network.named_parameters())
    for key, value in plain.network.named_parameters():
        lost = options.rate * 20.0 * before[key] if key in shrinking else 0.0
        torch.testing.assert_close(after[key], value - lost, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--rate 0", "--rate 0, expected more than 0"),
        ("--distill 0.5", "--distill needs --teacher"),
        ("--views 2", "--views needs --teacher"),
        ("--views 2 --teacher t --model aminet-real", "--views needs.*of 16-px input"),
        ("--perceptual 1", "--perceptual.*need --gan"),
        ("--discriminator-rate 1", "--discriminator-rate.*need --gan"),
        ("--weight-decay 1 --optimizer adam", "--weight-decay needs --optimizer muon"),
        ("--weight-decay 1 --gan", "--weight-decay needs --optimizer muon"),
        ("--model aminet-real --zoom 1.2", "--zoom is for models of 16-px input"),
        ("--workers 2", "--workers is for models of another input"),
        ("--resume --overwrite", "either --resume or --overwrite"),
        ("--zoom 0.5", "augmentation out of range"),
    ],
)
def test_options_that_would_do_nothing_are_refused(words: str, named: str) -> None:
    with pytest.raises(EdgeError, match=named) as raised:
        parse(["--data", "faces", "--out", "run", "--steps", "1", *words.split()])
    assert raised.value.status == EXIT_USAGE


def test_options_of_gan_and_teacher_keep_their_defaults() -> None:
    words = "--data faces --out run --steps 1 --model amigan --adversarial 0 --teacher t"
    options = parse([*words.split(), "--vgg-levels", "2", "3"])
    assert options.gan == GanOptions(adversarial=0.0, vgg_levels=(2, 3))
    assert options.distill == TrainOptions.distill


def test_command_trains_and_prints_json(faces: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "aminet.train",
        "--data",
        str(faces),
        "--out",
        str(tmp_path / "run"),
    ]
    command += ["--steps", "1", "--batch", "2", "--json", "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert result["steps"] == 1
    assert result["best_psnr_y"] is None
    assert Path(result["checkpoint"]).is_file()


def test_a_head_start_moves_entry_and_exit_alone(options: TrainOptions) -> None:
    """The body waits until fresh ends serve it."""
    start = Trainer(options, TINY)
    before = {key: value.clone() for key, value in start.network.named_parameters()}
    held = replace(options, head_start=2, steps=2)
    train(held, TINY)
    trainer = Trainer(replace(held, resume=True), TINY)
    after = trainer.network.named_parameters()
    moved = {name.split(".")[0] for name, value in after if (value != before[name]).any()}
    assert moved <= {"entry", "exit"}
    assert "exit" in moved


def test_a_network_of_another_input_learns_from_degraded_faces(options: TrainOptions) -> None:
    """Validation then has a gain for every size and kind; a resumed run goes on."""
    config = replace(TINY, lr_side=32)
    result = train(replace(options, workers=0), config)
    (line,) = [line for line in lines_of(options) if "psnr_y" in line]
    assert {"clean-16", "camera-24", "dark-48"} <= set(line)
    assert result.best_psnr_y == pytest.approx(line["psnr_y"], abs=1e-3)
    assert train(replace(options, steps=7, resume=True, workers=0), config).steps == 7


def test_a_run_is_not_replaced_unasked(options: TrainOptions) -> None:
    train(options, TINY)
    before = (options.out / "best.safetensors").read_bytes()
    with pytest.raises(EdgeError, match=r"holds a run .*--resume, .*--overwrite") as refused:
        train(replace(options, seed=1), TINY)
    assert refused.value.status == EXIT_USAGE
    assert (options.out / "best.safetensors").read_bytes() == before
    assert train(replace(options, steps=2, overwrite=True), TINY).steps == 2
    assert [line["step"] for line in lines_of(options)] == [2]


def test_an_out_that_is_a_file_is_named(options: TrainOptions) -> None:
    options.out.write_text("")
    with pytest.raises(EdgeError, match="is a file, expected a folder"):
        train(options, TINY)


def test_resume_with_another_optimizer_names_the_one_of_the_run(options: TrainOptions) -> None:
    train(options, TINY)
    with pytest.raises(
        EdgeError, match=r"was trained with --optimizer muon.*--init .*best"
    ) as other:
        train(replace(options, resume=True, optimizer="adam"), TINY)
    assert other.value.status == EXIT_USAGE


def test_progress_shows_step_loss_rate_speed_and_time_left(options: TrainOptions) -> None:
    """From the first step on; where the log is stands above it."""
    shown: list[str] = []
    train(options, TINY, shown.append)
    assert re.fullmatch(
        r"step 1, loss [\d.e-]+, rate \d\.\de-\d\d, \d+ faces/s, \d+:\d\d:\d\d left", shown[0]
    )
    assert sum(line.startswith("step") for line in shown) >= 6


def test_every_option_is_on_the_command_line_once_and_has_its_default() -> None:
    options = parse(["--data", "a", "b", "--out", "run", "--steps", "1"])
    assert options == TrainOptions(data=("a", "b"), out=Path("run"), steps=1)
    words = (
        "--data a --out o --minutes 2 --no-amp --val v --val-every 9 --fresh entry exit --zoom 1"
    )
    options = parse(words.split())
    assert (options.amp, options.val, options.val_every_s) == (False, ("v",), 9.0)
    assert (options.fresh, options.augmentation.zoom) == (("entry", "exit"), 1.0)


def test_ablations_are_trained_by_name(options: TrainOptions) -> None:
    assert Trainer(replace(options, model="ablation/without-sa")).config.self_attention is False


def test_the_record_of_training_has_the_degradations(options: TrainOptions) -> None:
    """As JSON, so that a resumed run finds its own recipe in the checkpoint."""
    recorded = describe(replace(options, model="aminet-real"))
    assert recorded["degradation"]["cameras"][0][0] == 0.22
    assert recorded == json.loads(json.dumps(recorded))
    assert "augmentation" not in recorded
    assert describe(options)["augmentation"]["share"] == options.augmentation.share
