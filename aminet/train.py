"""python -m aminet.train: train a model on tars and folders of 128x128 faces."""

import argparse
import dataclasses
import json
import math
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from aminet.checkpoint import (
    build_model,
    find_config,
    load_checkpoint,
    require_config,
    save_checkpoint,
)
from aminet.config import ModelConfig
from aminet.data import Augmentation, batches, load, make_pair
from aminet.model import AMINet
from aminet.optimizer import build_optimizers
from aminet.validation import Validation
from runtime.errors import EXIT_USAGE, EdgeError, run_command

GRADIENT_NORM = 1.0  # gradients are clipped to this length
FINAL_RATE = 0.01  # of the learning rate, at the end of the cosine


@dataclass(frozen=True)
class TrainOptions:
    """One training run. Either minutes or steps says how long."""

    data: tuple[str, ...]
    out: Path
    model: str = "aminet-edge"
    val: tuple[str, ...] = ()
    minutes: float | None = None
    steps: int | None = None
    batch: int = 32
    optimizer: str = "muon"
    rate: float = 1e-3  # Adam's; the paper's 2e-4 is for far longer runs
    warmup: int = 200  # steps
    betas: tuple[float, float] = (0.9, 0.99)  # section IV-B
    ema: float = 0.999  # decay of the averaged weights a step
    loss: str = "l1"
    augmentation: Augmentation = field(default_factory=Augmentation)
    init: Path | None = None  # weights to start from
    resume: bool = False
    val_every_s: float = 240.0
    seed: int = 0
    device: str = "auto"
    amp: bool = True  # bf16 autocast
    compile: bool = False

    def __post_init__(self) -> None:
        if (self.minutes is None) == (self.steps is None):
            raise EdgeError("train: give either --minutes or --steps", EXIT_USAGE)
        if (self.minutes or self.steps or 0) <= 0 or self.batch <= 0 or self.rate <= 0:
            raise EdgeError("train: minutes, steps, batch and rate must be positive", EXIT_USAGE)


@dataclass(frozen=True)
class TrainResult:
    """What a run has reached; `checkpoint` is the best by validation, or the last without one."""

    checkpoint: str
    best_psnr_y: float | None  # dB on the validation faces
    steps: int
    seconds: float
    images_per_s: float


@dataclass
class Progress:
    """How far a run is; saved with the weights, so that a resumed one goes on."""

    step: int = 0
    seconds: float = 0.0
    best_psnr_y: float = -math.inf


class Trainer:
    """Weights, their average, the optimizer, and the files of one run."""

    def __init__(self, options: TrainOptions, config: ModelConfig | None = None) -> None:
        self.options = options
        self.config = config or find_config(options.model)
        self.device = torch.device(_device(options.device))
        torch.manual_seed(options.seed)
        network = AMINet(self.config)
        if options.init is not None:
            start = load_checkpoint(options.init)
            require_config(start, self.config, options.model)
            network = build_model(start)
        self.network = network.train().to(self.device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = {k: v.detach().clone() for k, v in network.state_dict().items()}
        self.optimizers = build_optimizers(
            self.network, options.optimizer, options.rate, options.betas
        )
        self.progress = Progress()
        self.forward = torch.compile(self.network) if options.compile else self.network
        if options.resume and self.state_path.exists():
            self._restore()

    @property
    def state_path(self) -> Path:
        return self.options.out / "state.safetensors"

    @property
    def best_path(self) -> Path:
        return self.options.out / "best.safetensors"

    @property
    def done(self) -> float:
        """The share of the run that is behind, in [0, 1]."""
        options, progress = self.options, self.progress
        if options.steps is not None:
            return progress.step / options.steps
        assert options.minutes is not None
        return progress.seconds / (options.minutes * 60)

    def learning_rate(self) -> float:
        """Linear warm-up by step, then a cosine by steps or by the clock."""
        cosine = 0.5 * (1 + math.cos(math.pi * min(self.done, 1.0)))
        warm = min((self.progress.step + 1) / max(self.options.warmup, 1), 1.0)
        return self.options.rate * warm * (FINAL_RATE + (1 - FINAL_RATE) * cosine)

    def step(self, lr: Tensor, hr: Tensor) -> Tensor:
        """One update from lr (N, 3, 16, 16) and hr (N, 3, 128, 128); returns the loss."""
        rate = self.learning_rate()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        amp = (
            torch.autocast(self.device.type, torch.bfloat16) if self.options.amp else nullcontext()
        )
        with amp:
            sr = self.forward(lr.contiguous(memory_format=torch.channels_last))
        loss = (
            F.l1_loss(sr.float(), hr) if self.options.loss == "l1" else F.mse_loss(sr.float(), hr)
        )
        self.network.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_NORM)
        for optimizer in self.optimizers:
            optimizer.step()
        self._update_average()
        return loss.detach()

    @torch.no_grad()
    def _update_average(self) -> None:
        self.progress.step += 1
        decay = min(self.options.ema, (1 + self.progress.step) / (10 + self.progress.step))
        averages, currents = [], []
        for key, value in self.network.state_dict().items():
            if value.is_floating_point():
                averages.append(self.average[key])
                currents.append(value)
            else:
                self.average[key].copy_(value)
        torch._foreach_lerp_(averages, currents, 1 - decay)

    def averaged_network(self) -> AMINet:
        network = AMINet(self.config).to(self.device)
        network.load_state_dict(self.average)
        return network.eval()

    def save(self) -> None:
        """Everything that a resumed run needs, whole or not at all."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        for number, optimizer in enumerate(self.optimizers):
            for index, moments in optimizer.state_dict()["state"].items():
                prefix = f"optimizer.{number}.{index}"
                tensors |= {f"{prefix}.{k}": torch.as_tensor(v) for k, v in moments.items()}
        progress = asdict(self.progress)
        if not math.isfinite(self.progress.best_psnr_y):
            progress["best_psnr_y"] = None
        save_checkpoint(
            self.state_path, tensors, self.config, name=self.options.model, training=progress
        )

    def _restore(self) -> None:
        saved = load_checkpoint(self.state_path)
        require_config(saved, self.config, self.options.model)
        parts: dict[str, dict[str, Tensor]] = {"network": {}, "average": {}, "optimizer": {}}
        for key, value in saved.state.items():
            part, name = key.split(".", 1)
            parts[part][name] = value
        self.network.load_state_dict(parts["network"])
        self.average = {k: v.to(self.device) for k, v in parts["average"].items()}
        for number, optimizer in enumerate(self.optimizers):
            moments: dict[int, dict[str, Tensor]] = {}
            for key, value in parts["optimizer"].items():
                owner, index, name = key.split(".", 2)
                if int(owner) == number:
                    moments.setdefault(int(index), {})[name] = value
            optimizer.load_state_dict(
                {"state": moments, "param_groups": optimizer.state_dict()["param_groups"]}
            )
        progress: dict[str, Any] = dict(saved.training)
        if progress["best_psnr_y"] is None:
            progress["best_psnr_y"] = -math.inf
        self.progress = Progress(**progress)

    def save_best(self, psnr_y: float | None, training: dict[str, Any]) -> None:
        metrics = {} if psnr_y is None else {"validation/psnr_y": psnr_y}
        save_checkpoint(
            self.best_path,
            self.average,
            self.config,
            name=self.options.model,
            metrics=metrics,
            training=training,
        )


def _device(asked: str) -> str:
    if asked != "auto":
        return asked
    return "cuda" if torch.cuda.is_available() else "cpu"


def train(options: TrainOptions, config: ModelConfig | None = None) -> TrainResult:
    """Train until the minutes or steps are over; a later call with resume goes on from the files.

    Writes under options.out: best.safetensors (averaged weights), state.safetensors (for
    resume), log.jsonl. Raises EdgeError on data or checkpoints that do not fit.
    """
    trainer = Trainer(options, config)
    faces = load(options.data, trainer.device)
    if len(faces) < options.batch:
        raise EdgeError(f"train: {len(faces)} faces, expected at least a batch of {options.batch}")
    validation = Validation.load(options.val) if options.val else None
    options.out.mkdir(parents=True, exist_ok=True)
    started = trainer.progress.step
    clock = time.perf_counter()
    try:
        _loop(trainer, faces, validation)
    except KeyboardInterrupt:
        trainer.save()
        print(
            f"train: stopped at step {trainer.progress.step}; go on with --resume", file=sys.stderr
        )
        raise
    _validate(trainer, validation)
    trainer.save()
    seconds = time.perf_counter() - clock
    best = trainer.progress.best_psnr_y
    return TrainResult(
        checkpoint=str(trainer.best_path),
        best_psnr_y=best if math.isfinite(best) else None,
        steps=trainer.progress.step,
        seconds=trainer.progress.seconds,
        images_per_s=(trainer.progress.step - started) * options.batch / max(seconds, 1e-9),
    )


def _loop(trainer: Trainer, faces: Tensor, validation: Validation | None) -> None:
    options, progress = trainer.options, trainer.progress
    indices = batches(len(faces), options.batch, seed=options.seed, first_step=progress.step)
    bar = tqdm(total=100, unit="%", disable=None, bar_format="{l_bar}{bar}| {elapsed} {postfix}")
    last_save = time.perf_counter()
    while trainer.done < 1:
        begun = time.perf_counter()
        generator = torch.Generator().manual_seed(options.seed * 1_000_003 + progress.step)
        lr, hr = make_pair(faces, next(indices), options.augmentation, generator)
        loss = trainer.step(lr, hr)
        progress.seconds += time.perf_counter() - begun
        if progress.step % 50 == 0:
            speed = options.batch / (time.perf_counter() - begun)
            _log(trainer, loss=float(loss), images_per_s=round(speed, 1))
            bar.set_postfix_str(f"step {progress.step} loss {float(loss):.4f} {speed:.0f} faces/s")
            bar.update(100 * min(trainer.done, 1.0) - bar.n)
        if time.perf_counter() - last_save > options.val_every_s:
            begun = time.perf_counter()
            _validate(trainer, validation)
            trainer.save()
            last_save = time.perf_counter()
            progress.seconds += last_save - begun
    bar.close()


def _validate(trainer: Trainer, validation: Validation | None) -> None:
    """Keep the averaged weights if they are the best so far (without validation: the latest)."""
    psnr_y = None
    if validation is not None:
        psnr_y = validation.psnr_y(trainer.averaged_network())
        _log(trainer, psnr_y=round(psnr_y, 4), bicubic_psnr_y=round(validation.bicubic_psnr_y, 4))
        if psnr_y <= trainer.progress.best_psnr_y:
            return
        trainer.progress.best_psnr_y = psnr_y
    trainer.save_best(psnr_y, recipe(trainer))


def recipe(trainer: Trainer) -> dict[str, Any]:
    """What a model card says of the training: options, steps, minutes, device."""
    options = dataclasses.asdict(trainer.options)
    for path in ("out", "init", "resume"):
        options.pop(path)
    options["data"] = [Path(source).name for source in trainer.options.data]
    options["val"] = [Path(source).name for source in trainer.options.val]
    progress = trainer.progress
    return options | {
        "steps_done": progress.step,
        "minutes_done": round(progress.seconds / 60, 1),
        "device_used": str(trainer.device),
        "torch": torch.__version__,
    }


def _log(trainer: Trainer, **values: float) -> None:
    progress = trainer.progress
    line = {"step": progress.step, "seconds": round(progress.seconds, 1), **values}
    line["rate"] = trainer.learning_rate()
    with (trainer.options.out / "log.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


def parse(argv: Sequence[str] | None) -> tuple[TrainOptions, bool]:
    """Command line -> options, and whether JSON is asked for."""
    parser = argparse.ArgumentParser(prog="python -m aminet.train", description=__doc__)
    add = parser.add_argument
    add("--data", nargs="+", required=True, metavar="TAR_OR_DIR", help="128x128 training faces")
    add(
        "--val",
        nargs="*",
        default=[],
        metavar="TAR_OR_DIR",
        help="faces that choose the best weights",
    )
    add("--model", default="aminet-edge")
    add("--out", type=Path, required=True, metavar="DIR")
    add("--minutes", type=float, help="train so long; the cosine follows the clock")
    add("--steps", type=int, help="train so many steps; reproducible")
    add("--batch", type=int, default=TrainOptions.batch)
    add("--optimizer", choices=("muon", "adam"), default=TrainOptions.optimizer)
    add("--rate", type=float, default=TrainOptions.rate, help="Adam's learning rate")
    add("--warmup", type=int, default=TrainOptions.warmup, help="steps")
    add("--ema", type=float, default=TrainOptions.ema, help="decay of the averaged weights")
    add("--loss", choices=("l1", "l2"), default=TrainOptions.loss)
    add("--zoom", type=float, default=Augmentation.zoom, help="largest zoom; 1: none")
    add("--shift", type=float, default=Augmentation.shift, help="largest shift, pixels")
    add("--share", type=float, default=Augmentation.share, help="of faces zoomed and shifted")
    add("--init", type=Path, metavar="F", help="start from these weights")
    add("--resume", action="store_true", help="go on from DIR, if it holds a run")
    add("--val-every", type=float, default=TrainOptions.val_every_s, metavar="SECONDS")
    add("--seed", type=int, default=0)
    add("--device", default="auto")
    add("--no-amp", action="store_true", help="float32 instead of bf16 autocast")
    add("--compile", action="store_true", help="torch.compile; needs a C++ compiler")
    add("--json", action="store_true")
    given = parser.parse_args(argv)
    options = TrainOptions(
        data=tuple(given.data),
        val=tuple(given.val),
        out=given.out,
        model=given.model,
        minutes=given.minutes,
        steps=given.steps,
        batch=given.batch,
        optimizer=given.optimizer,
        rate=given.rate,
        warmup=given.warmup,
        ema=given.ema,
        loss=given.loss,
        augmentation=Augmentation(zoom=given.zoom, shift=given.shift, share=given.share),
        init=given.init,
        resume=given.resume,
        val_every_s=given.val_every,
        seed=given.seed,
        device=given.device,
        amp=not given.no_amp,
        compile=given.compile,
    )
    return options, given.json


def main(argv: Sequence[str] | None = None) -> int:
    options, as_json = parse(argv)
    result = train(options)
    if as_json:
        print(json.dumps(asdict(result)))
    else:
        quality = "" if result.best_psnr_y is None else f", {result.best_psnr_y:.2f} dB PSNR-Y"
        print(f"{result.checkpoint}: {result.steps} steps{quality}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
