"""python -m aminet.train: train a model on tars and folders of 128x128 faces.

Writes into --out: best.safetensors (the averaged weights that did best on --val, else the latest;
with --gan always the latest), state.safetensors (for --resume), log.jsonl, log.csv, curves.png and,
with --val, sheet.png. torchrun starts it on several processes.
"""

import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

from runtime.errors import EXIT_INTERRUPTED, EdgeError, needs, run_command

with needs("train", __name__):
    import torch
    from torch import Tensor
    from tqdm import tqdm

from aminet.config import LR_SIDE, ModelConfig
from aminet.training.data import load, shrunk_batches
from aminet.training.degradation import WILD
from aminet.training.distributed import World, join_world
from aminet.training.lineage import describe
from aminet.training.loader import DegradedFaces, degraded_batches
from aminet.training.logbook import append, write_csv, write_curves
from aminet.training.options import TrainOptions, parse
from aminet.training.trainer import DivergedError, Trainer
from aminet.training.validation import Validation
from aminet.training.wild_validation import WildValidation
from runtime.dataset import load_faces
from runtime.image import write_image

__all__ = ["TrainOptions", "TrainResult", "Trainer", "train"]

LOG_EVERY = 50  # steps
OUT_OF_MEMORY = ("out of memory", "allocate memory", "not enough memory")  # CUDA, CPU, Windows


@dataclass(frozen=True)
class TrainResult:
    """What a run has reached; `checkpoint` is the best by validation, or the last without one."""

    checkpoint: str
    best_psnr_y: float | None  # dB on the validation faces
    steps: int
    seconds: float
    images_per_s: float
    leads: bool = True  # False in all but one process of torchrun's


def train(options: TrainOptions, config: ModelConfig | None = None) -> TrainResult:
    """Train until the minutes or steps are over; a later call with resume goes on from the files.

    Raises EdgeError on data or checkpoints that do not fit. Ctrl-C, a loss that is no number, too
    little memory and a full disk raise it too, with what to do, and leave a usable checkpoint.
    """
    with join_world(options.batch, options.device) as world:
        trainer = Trainer(options, config, world)
        pairs = _pairs(trainer)
        validation = _validation(trainer) if options.val and world.leads else None
        options.out.mkdir(parents=True, exist_ok=True)
        started, clock = trainer.progress.step, time.perf_counter()
        with _leaving_a_checkpoint(trainer):
            _loop(trainer, pairs, validation)
            _checkpoint(trainer, validation)
        return _result(trainer, world, started, time.perf_counter() - clock)


def _result(trainer: Trainer, world: World, started: int, seconds: float) -> TrainResult:
    best, progress = trainer.progress.best_psnr_y, trainer.progress
    return TrainResult(
        checkpoint=str(trainer.best_path),
        best_psnr_y=best if math.isfinite(best) else None,
        steps=progress.step,
        seconds=progress.seconds,
        images_per_s=(progress.step - started) * trainer.options.batch / max(seconds, 1e-9),
        leads=world.leads,
    )


def _pairs(trainer: Trainer) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches of lr and hr, from the trainer's step on.

    A network of the paper's input sees bicubically shrunk faces, one of another degraded ones.
    """
    options, first_step = trainer.options, trainer.progress.step
    if trainer.config.lr_side != LR_SIDE:
        pixels = load_faces(options.data)
        _require_batch(len(pixels), options.batch)
        faces = DegradedFaces(
            pixels, WILD, trainer.config.lr_side, options.batch, seed=options.seed
        )
        return degraded_batches(faces, first_step=first_step, workers=options.workers)
    loaded = load(options.data, trainer.device)
    _require_batch(len(loaded), options.batch)
    return shrunk_batches(
        loaded, options.batch, options.augmentation, seed=options.seed, first_step=first_step
    )


def _require_batch(faces: int, batch: int) -> None:
    if faces < batch:
        raise EdgeError(f"train: {faces} faces, expected at least a batch of {batch}")


def _validation(trainer: Trainer) -> Validation | WildValidation:
    sources, lr_side = trainer.options.val, trainer.config.lr_side
    if lr_side == LR_SIDE:
        return Validation.load(sources)
    return WildValidation.load(sources, lr_side)


def _loop(
    trainer: Trainer,
    pairs: Iterator[tuple[Tensor, Tensor]],
    validation: Validation | WildValidation | None,
) -> None:
    options, progress, world = trainer.options, trainer.progress, trainer.world
    quiet = None if world.leads else True  # None: quiet unless on a terminal
    bar = tqdm(total=100, unit="%", disable=quiet, bar_format="{l_bar}{bar}| {elapsed} {postfix}")
    saved_at = progress.seconds
    while trainer.done < 1:
        begun = time.perf_counter()
        lr, hr = (side.to(trainer.device) for side in next(pairs))
        loss = trainer.step(world.share(lr), world.share(hr))
        if trainer.notice and world.leads:
            tqdm.write(f"train: {trainer.notice}", file=sys.stderr)
            trainer.notice = None
        took = time.perf_counter() - begun
        progress.seconds = world.agree(progress.seconds + took)
        if progress.step % LOG_EVERY == 0 and world.leads:
            speed = options.batch / took
            _log(trainer, loss=float(loss), images_per_s=round(speed, 1), **_parts(trainer))
            bar.set_postfix_str(f"step {progress.step} loss {float(loss):.4f} {speed:.0f} faces/s")
            bar.update(100 * min(trainer.done, 1.0) - bar.n)
        if progress.seconds - saved_at > options.val_every_s:
            begun = time.perf_counter()
            _checkpoint(trainer, validation)
            took = time.perf_counter() - begun  # the leader's: the others did not validate
            saved_at = progress.seconds = world.agree(progress.seconds + took)
    bar.close()


def _checkpoint(trainer: Trainer, validation: Validation | WildValidation | None) -> None:
    """Validate, keep the best, save all that --resume needs. Only the leading process does."""
    if not trainer.world.leads:
        return
    _validate(trainer, validation)
    trainer.save()
    log = trainer.options.out / "log.jsonl"
    write_csv(log, log.with_suffix(".csv"))
    write_curves(log, log.with_name("curves.png"))


def _validate(trainer: Trainer, validation: Validation | WildValidation | None) -> None:
    """Keep the averaged weights if they are the best so far (without validation: the latest).

    AMIGAN trades PSNR-Y for detail: its latest weights are kept.
    """
    psnr_y = None
    if validation is not None:
        network = trainer.averaged_network()
        psnr_y, cells = validation.evaluate(network)
        _log(
            trainer,
            psnr_y=round(psnr_y, 4),
            bicubic_psnr_y=round(validation.bicubic_psnr_y, 4),
            **cells,
        )
        write_image(trainer.options.out / "sheet.png", validation.sheet(network))
        if psnr_y <= trainer.progress.best_psnr_y and trainer.adversary is None:
            return
        trainer.progress.best_psnr_y = psnr_y
    trainer.save_best(psnr_y, recipe(trainer))


@contextmanager
def _leaving_a_checkpoint(trainer: Trainer) -> Iterator[None]:
    """Turn what ends a run early into one line of advice; the weights so far are saved."""
    try:
        yield
    except KeyboardInterrupt:
        _rescue(trainer, save=True)
        raise EdgeError(
            f"train: stopped at step {trainer.progress.step}; go on with --resume",
            EXIT_INTERRUPTED,
        ) from None
    except DivergedError:  # the weights may be spoilt; those on the disk are not
        _rescue(trainer, save=not trainer.state_path.exists())
        raise
    except EdgeError as error:  # a file of the run cannot be written
        with suppress(EdgeError):
            _rescue(trainer, save=not trainer.state_path.exists())
        raise EdgeError(f"{error}, with --resume", error.status) from error
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not _is_out_of_memory(error):
            raise
        _rescue(trainer, save=True)
        half = max(trainer.options.batch // 2, 1)
        raise EdgeError(
            f"train: out of memory at step {trainer.progress.step}, with a batch of"
            f" {trainer.options.batch}; go on with --resume --batch {half}"
        ) from error


def _is_out_of_memory(error: RuntimeError) -> bool:
    return any(words in str(error).lower() for words in OUT_OF_MEMORY)


def _rescue(trainer: Trainer, *, save: bool) -> None:
    if not trainer.world.leads:
        return
    if save:
        trainer.save()
    if not trainer.best_path.exists():
        trainer.save_best(None, recipe(trainer))


def recipe(trainer: Trainer) -> dict[str, Any]:
    """What a model card says of the training: options, stages, device."""
    return describe(trainer.options) | {
        "stages": trainer.stages,
        "device_used": str(trainer.device),
        "torch": torch.__version__,
    }


def _parts(trainer: Trainer) -> dict[str, float]:
    """The loss's parts, where it has more than one."""
    terms = trainer.terms if len(trainer.terms) > 1 else {}
    return {name: float(term) for name, term in terms.items()}


def _log(trainer: Trainer, **values: float) -> None:
    progress = trainer.progress
    line = {"step": progress.step, "seconds": round(progress.seconds, 1), **values}
    line["rate"] = trainer.learning_rate()
    append(trainer.options.out / "log.jsonl", line)


def main(argv: Sequence[str] | None = None) -> int:
    options, as_json = parse(argv, __doc__)
    result = train(options)
    if not result.leads:
        return 0
    if as_json:
        print(json.dumps({k: v for k, v in asdict(result).items() if k != "leads"}))
    else:
        quality = "" if result.best_psnr_y is None else f", {result.best_psnr_y:.2f} dB PSNR-Y"
        print(f"{result.checkpoint}: {result.steps} steps{quality}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
