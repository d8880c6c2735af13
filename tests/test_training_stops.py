"""Whatever ends a training early leaves a checkpoint that works, and one line of advice."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from aminet.checkpoint import load_model
from aminet.train import TrainOptions, train
from aminet.training.trainer import Trainer
from runtime.errors import EdgeError
from tiny_training import TINY, tiny_options, write_disks

Break = Callable[[Trainer], None]


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> TrainOptions:
    """A run of six steps that is to go on to twelve."""
    faces = write_disks(tmp_path_factory.mktemp("faces"), 8)
    options = tiny_options(faces, tmp_path_factory.mktemp("begun"))
    train(options, TINY)
    return replace(options, steps=12, resume=True)


@pytest.fixture
def options(begun: TrainOptions, tmp_path: Path) -> TrainOptions:
    """The begun run, in a folder of the test's own."""
    return replace(begun, out=Path(shutil.copytree(begun.out, tmp_path / "run")))


def press_ctrl_c(trainer: Trainer) -> None:
    raise KeyboardInterrupt


def terminate(trainer: Trainer) -> None:
    """What Python does with the signal; a real one, in a process that has seen every library of the
    suite, may find the stack for signal handlers gone, which one of them replaced."""
    handler = signal.getsignal(signal.SIGTERM)
    assert callable(handler)
    handler(signal.SIGTERM, None)


def ask_for_a_petabyte(trainer: Trainer) -> None:
    torch.empty(1 << 50, dtype=torch.uint8)


def explode(trainer: Trainer) -> None:
    trainer.network.exit.conv.bias.data.fill_(float("nan"))


def fill_the_disk(trainer: Trainer) -> None:
    log = trainer.options.out / "log.jsonl"
    log.unlink()
    log.symlink_to("/dev/full")


ENDS: dict[str, tuple[Break, str]] = {
    "Ctrl-C": (press_ctrl_c, r"train: stopped at step 8; go on with --resume"),
    "out of memory": (
        ask_for_a_petabyte,
        r"train: out of memory at step 8, with a batch of 4; go on with --resume --batch 2",
    ),
    "SIGTERM": (terminate, "stopped at step 8; go on with --resume"),
    "NaN": (explode, r"no finite loss or gradient in the 20 steps .* --resume --rate 0\.0005"),
    "a full disk": (
        fill_the_disk,
        r"log\.jsonl: the disk is full; make room and run it again, with --resume",
    ),
}


@pytest.mark.parametrize(("end", "advice"), ENDS.values(), ids=ENDS)
def test_training_that_ends_early_can_be_taken_up(
    options: TrainOptions, end: Break, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer.step

    def until_it_ends(self: Trainer, lr: torch.Tensor, hr: torch.Tensor) -> torch.Tensor:
        if self.progress.step == 8:
            end(self)
        return step(self, lr, hr)

    monkeypatch.setattr(Trainer, "step", until_it_ends)
    monkeypatch.setattr("aminet.training.run.LOG_EVERY", 10)  # steps: a full disk is seen then
    with pytest.raises(EdgeError) as stopped:
        train(replace(options, steps=30), TINY)
    assert re.search(advice, str(stopped.value))
    assert "\n" not in str(stopped.value)
    monkeypatch.undo()

    network, _ = load_model(checkpoint=options.out / "best.safetensors")
    assert network(torch.rand(1, 3, 16, 16)).isfinite().all()
    if (options.out / "log.jsonl").is_symlink():
        (options.out / "log.jsonl").unlink()
    assert train(options, TINY).steps == 12


def test_a_first_run_that_ends_early_leaves_weights_too(
    options: TrainOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "step", lambda self, lr, hr: press_ctrl_c(self))
    with pytest.raises(EdgeError, match="stopped at step 0"):
        train(replace(options, out=tmp_path / "new"), TINY)
    load_model(checkpoint=tmp_path / "new" / "best.safetensors")


def test_a_damaged_face_is_named_before_anything_is_touched(
    options: TrainOptions, tmp_path: Path
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(options.data[0], folder)
    image = folder / "3.png"
    image.write_bytes(image.read_bytes()[:200])
    before = (options.out / "state.safetensors").read_bytes()
    with pytest.raises(EdgeError, match=r"3\.png: is damaged or truncated .*; get it again"):
        train(replace(options, data=(str(folder),)), TINY)
    assert (options.out / "state.safetensors").read_bytes() == before


def test_one_step_without_a_finite_loss_changes_nothing(options: TrainOptions) -> None:
    trainer = Trainer(options, TINY)
    weights = {k: v.clone() for k, v in trainer.network.named_parameters()}
    trainer.step(torch.full((4, 3, 16, 16), float("nan")), torch.rand(4, 3, 128, 128))
    for key, value in trainer.network.named_parameters():
        assert torch.equal(value, weights[key])
    assert all(value.isfinite().all() for value in trainer.network.state_dict().values())
    assert trainer.progress.step == 7


KILLED_LOADER = """
import multiprocessing, pathlib, sys
from dataclasses import replace
from aminet.train import train
from aminet.training.trainer import Trainer
from runtime.errors import EdgeError
from tiny_training import TINY, tiny_options

step = Trainer.step

def until_it_ends(self, lr, hr):
    if self.progress.step == 5:
        for process in multiprocessing.active_children():
            process.kill()
    return step(self, lr, hr)

faces, out = map(pathlib.Path, sys.argv[1:])
options = replace(tiny_options(faces, out), val=())
Trainer.step = until_it_ends
try:
    train(replace(options, steps=40), replace(TINY, lr_side=64))
except EdgeError as error:
    print(error)
Trainer.step = step
print(train(replace(options, steps=14, resume=True), replace(TINY, lr_side=64)).steps)
"""


def test_a_killed_loader_costs_no_step(tmp_path: Path) -> None:
    """Which is what the kernel does when memory runs out.

    In a process of its own: see `terminate` on signals in this one.
    """
    command = [sys.executable, "-c", KILLED_LOADER, str(write_disks(tmp_path, 8))]
    done = subprocess.run(
        [*command, str(tmp_path / "run")],
        cwd=Path(__file__).parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, Path(__file__).parents[:2]))},
        capture_output=True,
        text=True,
        timeout=120,
    )
    advice, steps = done.stdout.splitlines()
    assert re.fullmatch(
        r"train: the process that makes batches has ended \(.*Killed\); give it more memory, .* and"
        r" run it again, with --resume",
        advice,
    )
    assert (steps, done.returncode) == ("14", 0)
    load_model(checkpoint=tmp_path / "run" / "best.safetensors")
