"""What a training run is told: one frozen dataclass, and the command line that makes it."""

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aminet.training.data import Augmentation
from aminet.training.losses import GanOptions
from runtime.errors import EXIT_USAGE, EdgeError

GAN_RATE = 1e-4  # of AMIGAN's generator, which Adam trains

Range = tuple[float, float, str]  # the least, the most, and both in words
POSITIVE = (math.ulp(0), math.inf, "more than 0")
NOT_NEGATIVE = (0.0, math.inf, "0 or more")
SHARE = (0.0, 1.0, "0 to 1")


@dataclass(frozen=True)
class TrainOptions:
    """One training run. Either minutes or steps says how long."""

    data: tuple[str, ...]
    out: Path
    model: str = "aminet-edge"
    val: tuple[str, ...] = ()
    minutes: float | None = None
    steps: int | None = None
    batch: int = 32  # over all processes
    optimizer: str = "muon"
    rate: float = 1e-3  # Adam's; the paper's 2e-4 is for far longer runs
    warmup: int = 200  # steps
    betas: tuple[float, float] = (0.9, 0.99)  # section IV-B
    weight_decay: float = 0.0  # of Muon's kernels but the exit's, times the rate a step
    ema: float = 0.999  # decay of the averaged weights a step
    loss: str = "l1"
    augmentation: Augmentation = field(default_factory=Augmentation)
    init: Path | None = None  # weights to start from
    fresh: tuple[str, ...] = ()  # parts of the network that start anew all the same
    head_start: int = 0  # steps in which only entry and exit are trained
    freeze_norms: bool = False  # batch norms keep the statistics of `init`
    teacher: Path | None = None  # a checkpoint whose faces are imitated
    distill: float = 0.5  # the teacher's share of the pixel loss; the rest is the original's
    gan: GanOptions | None = None
    resume: bool = False
    val_every_s: float = 240.0
    workers: int = 1  # processes that make batches of degraded faces
    seed: int = 0
    device: str = "auto"
    amp: bool = True  # autocast to `precision`
    precision: str = "bf16"  # or fp16, with a loss scale
    compile: bool = False

    def __post_init__(self) -> None:
        if (self.minutes is None) == (self.steps is None):
            raise EdgeError("train: give either --minutes or --steps", EXIT_USAGE)
        for flag, value, (least, most, expected) in self._numbers():
            if value is not None and not least <= value <= most:  # which "nan" is not, either
                raise EdgeError(f"train: {flag} {value:g}, expected {expected}", EXIT_USAGE)
        if self.weight_decay and self.optimizer != "muon":
            raise EdgeError("train: --weight-decay needs --optimizer muon", EXIT_USAGE)
        if self.freeze_norms and (self.init is None or self.fresh):
            raise EdgeError(
                "train: --freeze-norms needs --init, and no --fresh part without statistics",
                EXIT_USAGE,
            )

    def _numbers(self) -> Iterator[tuple[str, float | None, Range]]:
        yield "--minutes", self.minutes, POSITIVE
        yield "--steps", self.steps, POSITIVE
        yield "--batch", self.batch, POSITIVE
        yield "--rate", self.rate, POSITIVE
        yield "--warmup", self.warmup, NOT_NEGATIVE
        yield "--weight-decay", self.weight_decay, NOT_NEGATIVE
        yield "--ema", self.ema, SHARE
        yield "--head-start", self.head_start, NOT_NEGATIVE
        yield "--workers", self.workers, NOT_NEGATIVE
        yield "--val-every", self.val_every_s, NOT_NEGATIVE
        yield "--distill", self.distill, SHARE
        if self.gan:
            yield "--perceptual", self.gan.perceptual, NOT_NEGATIVE
            yield "--adversarial", self.gan.adversarial, NOT_NEGATIVE
            yield "--discriminator-rate", self.gan.rate, POSITIVE


def parse(argv: Sequence[str] | None, description: str | None) -> tuple[TrainOptions, bool]:
    """Command line -> options, and whether JSON is asked for."""
    parser = argparse.ArgumentParser(prog="python -m aminet.train", description=description)
    _add_run(parser)
    _add_recipe(parser)
    _add_augmentation(parser)
    _add_gan(parser)
    given = parser.parse_args(argv)
    try:
        augmentation = Augmentation(
            zoom=given.zoom,
            shift=given.shift,
            share=given.share,
            exposure=given.exposure,
            colour=given.colour,
        )
    except ValueError as error:
        parser.error(str(error))
    gan = _gan_options(given)
    if given.distill is not None and given.teacher is None:
        raise EdgeError("train: --distill needs --teacher", EXIT_USAGE)
    default_rate = GAN_RATE if gan else TrainOptions.rate
    return TrainOptions(
        data=tuple(given.data),
        val=tuple(given.val),
        out=given.out,
        model=given.model or ("amigan" if gan else TrainOptions.model),
        minutes=given.minutes,
        steps=given.steps,
        batch=given.batch,
        optimizer=given.optimizer or ("adam" if gan else TrainOptions.optimizer),
        rate=default_rate if given.rate is None else given.rate,
        warmup=given.warmup,
        weight_decay=given.weight_decay,
        ema=given.ema,
        loss=given.loss,
        augmentation=augmentation,
        init=given.init,
        fresh=tuple(given.fresh),
        head_start=given.head_start,
        freeze_norms=given.freeze_norms,
        teacher=given.teacher,
        distill=TrainOptions.distill if given.distill is None else given.distill,
        gan=gan,
        resume=given.resume,
        val_every_s=given.val_every,
        workers=given.workers,
        seed=given.seed,
        device=given.device,
        amp=not given.no_amp,
        precision=given.precision,
        compile=given.compile,
    ), given.json


def _add_run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", nargs="+", required=True, metavar="TAR_OR_DIR", help="128x128 training faces")
    add(
        "--val",
        nargs="*",
        default=[],
        metavar="TAR_OR_DIR",
        help="faces that choose the best weights",
    )
    add("--model", help=f"default {TrainOptions.model}; with --gan amigan")
    add("--out", type=Path, required=True, metavar="DIR")
    add("--minutes", type=float, help="train so long; the cosine follows the clock")
    add("--steps", type=int, help="train so many steps; reproducible")
    add("--init", type=Path, metavar="F", help="start from these weights")
    add(
        "--fresh",
        nargs="+",
        default=[],
        metavar="PART",
        help="with --init: parts that start anew all the same, e.g. bottleneck decoders exit",
    )
    add(
        "--head-start",
        type=int,
        default=TrainOptions.head_start,
        metavar="STEPS",
        help="train only entry and exit at first: fresh ones would spoil the body behind --init",
    )
    add(
        "--freeze-norms",
        action="store_true",
        help="with --init: batch norms keep its statistics, not each batch's",
    )
    add("--resume", action="store_true", help="go on from DIR, if it holds a run")
    add("--val-every", type=float, default=TrainOptions.val_every_s, metavar="SECONDS")
    add(
        "--workers",
        type=int,
        default=TrainOptions.workers,
        help="processes that degrade the faces of the next batches; 0: none but training's own",
    )
    add("--seed", type=int, default=0)
    add("--device", default="auto")
    add("--no-amp", action="store_true", help="float32 instead of autocast")
    add("--precision", choices=("bf16", "fp16"), default=TrainOptions.precision, help="of autocast")
    add("--compile", action="store_true", help="torch.compile; needs a C++ compiler")
    add("--json", action="store_true")


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--batch", type=int, default=TrainOptions.batch, help="faces, over all processes")
    add("--optimizer", choices=("muon", "adam"), help="default muon; with --gan adam")
    add(
        "--rate",
        type=float,
        help=f"Adam's learning rate, default {TrainOptions.rate}; with --gan {GAN_RATE}",
    )
    add("--warmup", type=int, default=TrainOptions.warmup, help="steps")
    add(
        "--weight-decay",
        type=float,
        default=TrainOptions.weight_decay,
        metavar="SHARE",
        help="of Muon's kernels: without it they grow, and the same rate turns them less and less",
    )
    add("--ema", type=float, default=TrainOptions.ema, help="decay of the averaged weights")
    add("--loss", choices=("l1", "l2", "psnr"), default=TrainOptions.loss)
    add("--teacher", type=Path, metavar="F", help="a checkpoint to imitate (distillation)")
    add(
        "--distill",
        type=float,
        help=f"the teacher's share of the pixel loss, default {TrainOptions.distill}",
    )


def _add_augmentation(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--zoom", type=float, default=Augmentation.zoom, help="largest zoom; 1: none")
    add("--shift", type=float, default=Augmentation.shift, help="largest shift, pixels")
    add("--share", type=float, default=Augmentation.share, help="of faces zoomed and shifted")
    add("--exposure", type=float, default=Augmentation.exposure, help="largest change, stops")
    add("--colour", type=float, default=Augmentation.colour, help="largest gain of one channel")


def _add_gan(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--gan", action="store_true", help="AMIGAN's losses; amigan always has them")
    default = GanOptions()
    add(
        "--perceptual",
        type=float,
        help=f"weight of the VGG loss, default {default.perceptual}; 0: none",
    )
    add("--adversarial", type=float, help=f"its weight, default {default.adversarial}")
    add("--discriminator-rate", type=float, metavar="RATE", help=f"default {default.rate}")
    add("--vgg", type=Path, metavar="F", help="VGG16 or VGG19 as torchvision names its weights")


def _gan_options(given: argparse.Namespace) -> GanOptions | None:
    """AMIGAN's losses if they are asked for; their options without them would do nothing."""
    asked = {
        "perceptual": given.perceptual,
        "adversarial": given.adversarial,
        "rate": given.discriminator_rate,
        "vgg": given.vgg,
    }
    changed = {name: value for name, value in asked.items() if value is not None}
    if given.gan or given.model == "amigan":
        return GanOptions(**changed)
    if changed:
        raise EdgeError(
            "train: --perceptual, --adversarial, --discriminator-rate and --vgg need --gan",
            EXIT_USAGE,
        )
    return None
