"""Training options: frozen dataclasses, from which the command line is made. Needs no torch.

Each field has its default, its range and its help in one place.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from aminet.config import LR_SIDE, NATURAL, SR_SIDE, find_config
from runtime.errors import EXIT_USAGE, EdgeError

GAN_RATE = 1e-4  # of AMIGAN's generator, which Adam trains
GAN_MODEL = "amigan"  # what --gan trains unless --model is given
QAT_DEFAULTS: dict[str, Any] = {
    "amp": False,
    "batch": 8,
    "optimizer": "adam",
    "rate": 1e-4,
    "warmup": 20,
    "loss": "l2",
    "distill": 1.0,
    "val_every_s": 120.0,
}

Range = tuple[float, float, str]  # least, most, and both in words
POSITIVE = (math.ulp(0), math.inf, "more than 0")
NOT_NEGATIVE = (0.0, math.inf, "0 or more")
SHARE = (0.0, 1.0, "0 to 1")
PATCH = (32, SR_SIDE, f"32 to {SR_SIDE}")


def option(default: Any = MISSING, help: str = "", within: Range | None = None, **how: Any) -> Any:
    """A dataclass field that is an option of the command line, too.

    `how` is for argparse; `flag` names the option where the field's name does not.
    """
    return field(default=default, metadata={"help": help, "within": within, "how": how})


@dataclass(frozen=True)
class Augmentation:
    """Random flips, zoom and shift of 16-px training; exposure and colour only if asked for."""

    zoom: float = option(1.15, "largest zoom in and out; 1: none")
    shift: float = option(6.0, "largest shift each way, pixels of the 128x128 face")
    share: float = option(0.5, "share of the faces that are zoomed and shifted")
    exposure: float = option(0.0, "largest change of exposure each way, stops")
    colour: float = option(0.0, "largest gain of one colour channel, each way")
    flip: bool = True

    def __post_init__(self) -> None:
        framed = 1 <= self.zoom < math.inf and 0 <= self.shift < SR_SIDE and 0 <= self.share <= 1
        lit = 0 <= self.exposure <= 2 and 0 <= self.colour < 1
        if not framed or not lit:
            raise EdgeError(f"train: augmentation out of range: {self}", EXIT_USAGE)


@dataclass(frozen=True)
class GanOptions:
    """AMIGAN's losses (section III-D). The paper's own figures for these are not known."""

    perceptual: float = option(0.01, "weight of the VGG loss beside the pixel loss", NOT_NEGATIVE)
    adversarial: float = option(0.01, "weight of the adversarial loss", NOT_NEGATIVE)
    rate: float = option(
        4e-4, "of the discriminator's Adam", POSITIVE, flag="--discriminator-rate", metavar="RATE"
    )
    vgg: Path | None = option(
        None, "VGG16 or VGG19 as torchvision names its weights", type=Path, metavar="F"
    )
    vgg_levels: tuple[int, ...] = option(
        (1, 2, 3, 4, 5),
        "feature maps of VGG that are compared; default: all five",
        nargs="+",
        type=int,
        choices=range(1, 6),
    )
    vgg_unit: bool = option(
        False,
        "each pixel's features scaled to length 1 before, as LPIPS does: a dark face's count, too",
    )
    patch: int = option(
        SR_SIDE, "px of what VGG and the discriminator see of each face: a random patch", PATCH
    )
    channels: int = option(
        64,
        "of the discriminator's first convolution",
        POSITIVE,
        flag="--discriminator-channels",
        metavar="CHANNELS",
    )


@dataclass(frozen=True)
class TrainOptions:
    """One training run. Either minutes or steps says how long."""

    data: tuple[str, ...] = option(help="128x128 faces", nargs="+", metavar="TAR_OR_DIR")
    out: Path = option(help="folder of the run", type=Path, metavar="DIR")
    model: str = option("aminet-edge", "or ablation/NAME; amigan with --gan")
    val: tuple[str, ...] = option(
        (), "faces that choose the best weights", nargs="*", metavar="TAR_OR_DIR"
    )
    minutes: float | None = option(
        None, "train so long; the cosine follows the clock", POSITIVE, type=float
    )
    steps: int | None = option(None, "train so many steps; reproducible", POSITIVE, type=int)
    resume: bool = option(False, "go on from the run in --out, if there is one")
    overwrite: bool = option(False, "delete the run in --out, and train anew")
    batch: int = option(32, "faces a step, over all processes", POSITIVE)
    optimizer: str = option("muon", "adam with --gan", choices=("muon", "adam"))
    rate: float = option(1e-3, f"learning rate; {GAN_RATE} with --gan", POSITIVE)
    warmup: int = option(200, "steps until the full rate", NOT_NEGATIVE)
    betas: tuple[float, float] = (0.9, 0.99)  # of Adam; section IV-B
    weight_decay: float = option(
        0.0,
        "of Muon's kernels: without it they grow, and the same rate turns them less and less",
        NOT_NEGATIVE,
    )
    ema: float = option(0.999, "decay of the averaged weights a step", SHARE)
    loss: str = option("l1", "pixel loss", choices=("l1", "l2", "psnr"))
    augmentation: Augmentation = field(default_factory=Augmentation)
    init: Path | None = option(None, "start from these weights", type=Path, metavar="F")
    fresh: tuple[str, ...] = option(
        (), "with --init: parts that start anew, e.g. entry exit", nargs="+", metavar="PART"
    )
    head_start: int = option(
        0,
        "steps in which only entry and exit are trained: new ones would spoil the body of --init",
        NOT_NEGATIVE,
        metavar="STEPS",
    )
    rest: int = option(
        0,
        "shallowest levels whose blocks are the identity and cost nothing: for the first stages of"
        " a deep network",
        NOT_NEGATIVE,
        metavar="LEVELS",
    )
    freeze_norms: bool = option(False, "with --init: batch norms keep its statistics")
    teacher: Path | None = option(
        None, "a checkpoint to imitate (distillation)", type=Path, metavar="F"
    )
    distill: float = option(0.5, "the teacher's share of the pixel loss", SHARE)
    views: int = option(
        0,
        "augmented views of each face that the teacher sees, once, before the first step; kept on"
        " the device, 100 kB each. 0: it sees each batch",
        NOT_NEGATIVE,
    )
    qat: bool = option(
        False, "quantization-aware training from the weights of --init, or the committed ones"
    )
    ranges: Path | None = option(
        None,
        "with --qat: what quantize.ranges wrote; default artifacts/MODEL/ranges.json",
        type=Path,
        metavar="F",
    )
    gan: GanOptions | None = None
    val_every_s: float = option(
        240.0,
        "between two validations and checkpoints",
        NOT_NEGATIVE,
        flag="--val-every",
        metavar="SECONDS",
    )
    workers: int = option(1, "processes that degrade the faces of the next batches", NOT_NEGATIVE)
    seed: int = option(0, "of weights, batches and degradations")
    device: str = option("auto", "cpu, cuda, cuda:1")
    amp: bool = option(True, "float32 instead of autocast", flag="--no-amp")
    precision: str = option("bf16", "of autocast", choices=("bf16", "fp16"))
    compile: bool = option(False, "torch.compile; needs a C++ compiler")
    tensorboard: bool = option(False, "the log as TensorBoard's events, too, in OUT/tensorboard")

    def __post_init__(self) -> None:
        if (self.minutes is None) == (self.steps is None):
            raise _usage("give either --minutes or --steps")
        check_ranges(self)
        if self.gan is not None:
            check_ranges(self.gan)
        if self.resume and self.overwrite:
            raise _usage("give either --resume or --overwrite")
        if self.weight_decay and self.optimizer != "muon":
            raise _usage("--weight-decay needs --optimizer muon")
        if self.freeze_norms and (self.init is None or self.fresh):
            raise _usage("--freeze-norms needs --init, and no --fresh part without statistics")
        if self.views and (self.teacher is None or find_config(self.model).lr_side != LR_SIDE):
            raise _usage("--views needs --teacher and a model of 16-px input")
        if self.ranges is not None and not self.qat:
            raise _usage("--ranges needs --qat")
        if self.qat:
            self._check_qat()

    def _check_qat(self) -> None:
        """Refuse what would undo quantization-aware training, or do nothing in it."""
        if self.amp:
            raise _usage("--qat needs --no-amp: bf16 and fp16 are coarser than what it trains")
        unfit = {
            "--gan": self.gan is not None,
            "--fresh": bool(self.fresh),
            "--freeze-norms": self.freeze_norms,  # they are folded
            "--head-start": self.head_start > 0,
            "--rest": self.rest > 0,
            "--views": self.views > 0,
            "--compile": self.compile,
        }
        if found := [flag for flag, given in unfit.items() if given]:
            raise _usage(f"{found[0]} does not go with --qat")


def check_ranges(options: Any) -> None:
    """Refuse a number out of its field's range, by the name of its option."""
    for one in _options_of(type(options)):
        value, within = getattr(options, one.name), one.metadata["within"]
        if value is None or within is None:
            continue
        least, most, expected = within
        if not least <= value <= most:  # which "nan" is not, either
            raise _usage(f"{_flag(one)} {value:g}, expected {expected}")


def _options_of(cls: type) -> Iterator["Field[Any]"]:
    return (one for one in fields(cls) if "how" in one.metadata)


def _flag(one: "Field[Any]") -> str:
    return one.metadata["how"].get("flag") or f"--{one.name.replace('_', '-')}"


def _usage(message: str) -> EdgeError:
    return EdgeError(f"train: {message}", EXIT_USAGE)


def parse(words: Sequence[str]) -> TrainOptions:
    """The options that a command line of aminet.train gives."""
    return make_options(build_parser().parse_args(words))


def build_parser(description: str | None = None) -> argparse.ArgumentParser:
    """The command line: an option for each field, left out of the namespace if not given."""
    parser = argparse.ArgumentParser(
        prog="python -m aminet.train",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add(parser.add_argument_group("training"), TrainOptions)
    _add(parser.add_argument_group("16-px models: augmentation"), Augmentation, "augmentation.")
    group = parser.add_argument_group("AMIGAN")
    group.add_argument(
        "--gan",
        action="store_true",
        help="its losses; amigan models always have them, but with --qat",
    )
    _add(group, GanOptions, "gan.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _add(group: "argparse._ArgumentGroup", cls: type, prefix: str = "") -> None:
    """The options of a dataclass; those that are not given stay out of the namespace."""
    for one in _options_of(cls):
        how = {key: value for key, value in one.metadata["how"].items() if key != "flag"}
        default, help_text = one.default, one.metadata["help"]
        if isinstance(default, bool):
            how |= {"action": "store_false" if default else "store_true"}
        elif "nargs" not in how:
            how.setdefault("type", type(default))
            if default is not None and default is not MISSING:
                help_text = f"default {default}; {help_text}"
            if "choices" not in how:
                how.setdefault("metavar", one.name.upper())
        group.add_argument(
            _flag(one),
            dest=prefix + one.name,
            default=argparse.SUPPRESS,
            required=default is MISSING,
            help=help_text,
            **how,
        )


def make_options(arguments: argparse.Namespace) -> TrainOptions:
    """Options from the arguments given; those that would do nothing are refused."""
    given = {key: value for key, value in vars(arguments).items() if key not in ("json", "gan")}
    augmentation, adversary = _taken(given, "augmentation."), _taken(given, "gan.")
    sharp = given.get("model") in NATURAL and not given.get("qat")  # which learns of its teacher
    if arguments.gan or sharp:
        defaults = {"model": GAN_MODEL, "optimizer": "adam", "rate": GAN_RATE}
        given = {**defaults, **given, "gan": GanOptions(**_as_tuples(adversary))}
    elif adversary:
        flags = [_flag(one) for one in _options_of(GanOptions)]
        raise _usage(f"{', '.join(flags[:-1])} and {flags[-1]} need --gan")
    if given.get("qat"):
        given = {**QAT_DEFAULTS, **given}
    elif "distill" in given and "teacher" not in given:
        raise _usage("--distill needs --teacher")
    lr_side = find_config(given.get("model", TrainOptions.model)).lr_side
    if augmentation and lr_side != LR_SIDE:
        flag = f"--{next(iter(augmentation))}"
        raise _usage(f"{flag} is for models of 16-px input; {lr_side}-px ones have degradations")
    if "workers" in given and lr_side == LR_SIDE:
        raise _usage(f"--workers is for models of another input than {LR_SIDE} px")
    return TrainOptions(augmentation=Augmentation(**augmentation), **_as_tuples(given))


def _as_tuples(given: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in given.items()}


def _taken(given: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The options of a group, without its prefix; they leave `given`."""
    names = [name for name in given if name.startswith(prefix)]
    return {name.removeprefix(prefix): given.pop(name) for name in names}
