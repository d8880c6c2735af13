"""A training run: batches, steps, validation and the files in its folder."""

import math
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aminet.config import LR_SIDE, NATURAL, ModelConfig
from aminet.training.data import load, shrunk_batches
from aminet.training.degradation import WILD
from aminet.training.distributed import World, join_world
from aminet.training.lineage import describe
from aminet.training.loader import DegradedFaces, LoaderError, degraded_batches
from aminet.training.logbook import EVENTS, Logbook, open_log, write_csv, write_curves
from aminet.training.lpips import LPIPS
from aminet.training.options import TrainOptions
from aminet.training.qat import QuantizationAware
from aminet.training.trainer import BEST, STATE, DivergedError, Trainer
from aminet.training.views import TaughtViews
from aminet.training.wild_validation import AnyValidation, load_validation
from runtime.dataset import load_faces
from runtime.errors import EXIT_INTERRUPTED, EXIT_USAGE, EdgeError
from runtime.image import write_image
from runtime.progress import Progress, silent

LOG_EVERY = 50  # steps
LOG, CSV, CURVES, SHEET = "log.jsonl", "log.csv", "curves.png", "sheet.png"
FILES = (STATE, BEST, LOG, CSV, CURVES, SHEET, EVENTS)  # of a run
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


def run(
    options: TrainOptions, config: ModelConfig | None = None, progress: Progress = silent
) -> TrainResult:
    """Train; see aminet.train.train."""
    check_folder(options)
    with join_world(options.batch, options.device) as world:
        trainer = Trainer(options, config, world)
        batches = _batches(trainer, progress if world.leads else silent)
        validation = _validation(trainer)
        if options.overwrite and world.leads:
            _delete_run(options.out)
        options.out.mkdir(parents=True, exist_ok=True)
        _tell_notices(trainer)
        if world.leads:
            _report(f"log: {options.out / LOG}")
        started, clock = trainer.progress.step, time.perf_counter()
        tensorboard = options.tensorboard and world.leads
        log = open_log(options.out / LOG, started, tensorboard=tensorboard)
        with log as logbook, _leaving_a_checkpoint(trainer):
            _validate_start(trainer, validation, logbook)
            _loop(trainer, batches, validation, logbook, progress if world.leads else silent)
            _checkpoint(trainer, validation, logbook)
        return _result(trainer, world, started, time.perf_counter() - clock)


def check_folder(options: TrainOptions) -> None:
    """Refuse an `out` that is a file, or that holds a run which would be replaced unasked."""
    out = options.out
    if out.exists() and not out.is_dir():
        raise EdgeError(f"train: --out {out}: is a file, expected a folder", EXIT_USAGE)
    if options.resume or options.overwrite:
        return
    if found := [name for name in FILES if (out / name).exists()]:
        raise EdgeError(
            f"train: --out {out}: holds a run ({', '.join(found)}); go on with --resume, or replace"
            " it with --overwrite",
            EXIT_USAGE,
        )


def _delete_run(out: Path) -> None:
    for name in FILES:
        if name != EVENTS:
            (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / EVENTS, ignore_errors=True)


def _report(line: str) -> None:
    sys.stderr.write(f"train: {line}\n")


def _tell_notices(trainer: Trainer) -> None:
    if trainer.world.leads:
        for notice in trainer.notices:
            _report(notice)
    trainer.notices.clear()


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


def _validation(trainer: Trainer) -> AnyValidation | None:
    """The faces of --val, in the leading process; with LPIPS for the sharp models."""
    options, lpips = trainer.options, None
    if not options.val or not trainer.world.leads:
        return None
    if options.gan is not None or options.model in NATURAL:
        try:
            lpips = LPIPS.load()
        except EdgeError as error:
            _report(f"LPIPS is not measured: {error}")
    return load_validation(options.val, trainer.config.lr_side, lpips)


def _validate_start(trainer: Trainer, validation: AnyValidation | None, logbook: Logbook) -> None:
    """Log what the weights of --init reach: AMIGAN trades its PSNR-Y for LPIPS."""
    starts = trainer.options.init is not None and trainer.progress.step == 0
    if validation is not None and trainer.adversary is not None and starts:
        psnr_y, beside = validation.evaluate(trainer.averaged_network())
        _log(trainer, logbook, psnr_y=round(psnr_y, 4), **beside)


def _batches(trainer: Trainer, show: Progress) -> Iterator[tuple[Tensor, ...]]:
    """Endless batches of lr and hr, from the trainer's step on; with --views what the teacher made
    of lr, too.

    A network of the paper's input sees bicubically shrunk faces, one of another degraded ones.
    """
    options, first_step = trainer.options, trainer.progress.step
    if trainer.config.lr_side != LR_SIDE:
        pixels = load_faces(options.data)
        _require_batch(len(pixels), options.batch)
        faces = DegradedFaces(
            pixels, WILD, trainer.config.lr_side, options.batch, seed=options.seed
        )
        return degraded_batches(
            faces, trainer.device, first_step=first_step, workers=options.workers
        )
    loaded = load(options.data, trainer.device)
    _require_batch(len(loaded), options.batch)
    if options.views:
        assert trainer.criterion.teacher is not None
        with trainer.autocast():
            views = TaughtViews.make(
                loaded,
                options.views,
                options.augmentation,
                trainer.criterion.teacher,
                seed=options.seed,
                progress=show,
            )
        return views.batches(options.batch, seed=options.seed, first_step=first_step)
    return shrunk_batches(
        loaded, options.batch, options.augmentation, seed=options.seed, first_step=first_step
    )


def _require_batch(faces: int, batch: int) -> None:
    if faces < batch:
        raise EdgeError(f"train: {faces} faces, expected at least a batch of {batch}")


def _loop(
    trainer: Trainer,
    batches: Iterator[tuple[Tensor, ...]],
    validation: AnyValidation | None,
    logbook: Logbook,
    show: Progress,
) -> None:
    options, progress, world = trainer.options, trainer.progress, trainer.world
    saved_at, begun_at = progress.seconds, trainer.done
    clock = time.perf_counter()
    while trainer.done < 1:
        begun = time.perf_counter()
        loss = trainer.step(*(world.share(part) for part in next(batches)))
        took = time.perf_counter() - begun
        progress.seconds = world.agree(progress.seconds + took)
        _tell_notices(trainer)
        share = (trainer.done - begun_at) / max(1 - begun_at, 1e-9)
        left = (time.perf_counter() - clock) * (1 - share) / max(share, 1e-9)
        show(_status(trainer, float(loss), options.batch / took, left))
        if progress.step % LOG_EVERY == 0 and world.leads:
            speed = round(options.batch / took, 1)
            _log(trainer, logbook, loss=float(loss), images_per_s=speed, **_parts(trainer))
        if progress.seconds - saved_at > options.val_every_s:
            begun = time.perf_counter()
            show(f"step {progress.step}, validating")
            _checkpoint(trainer, validation, logbook)
            took = time.perf_counter() - begun  # the leader's: the others did not validate
            saved_at = progress.seconds = world.agree(progress.seconds + took)


def _status(trainer: Trainer, loss: float, images_per_s: float, left_s: float) -> str:
    """`step 120, loss 0.0312, rate 9.2e-04, 41 faces/s, 1:12:00 left`."""
    minutes, seconds = divmod(round(max(left_s, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"step {trainer.progress.step}, loss {loss:.3g}, rate {trainer.learning_rate():.1e},"
        f" {images_per_s:.0f} faces/s, {hours}:{minutes:02}:{seconds:02} left"
    )


def _checkpoint(trainer: Trainer, validation: AnyValidation | None, logbook: Logbook) -> None:
    """Validate, keep the best, save all that --resume needs. Only the leading process does."""
    if not trainer.world.leads:
        return
    _validate(trainer, validation, logbook)
    trainer.save()
    write_csv(logbook.path, logbook.path.with_name(CSV))
    write_curves(logbook.path, logbook.path.with_name(CURVES))


def _validate(trainer: Trainer, validation: AnyValidation | None, logbook: Logbook) -> None:
    """Keep the averaged weights if they are the best so far (without validation: the latest).

    AMIGAN trades PSNR-Y for detail, and quantization-aware training a drift that moves by chance
    for fidelity: of both the latest weights are kept.
    """
    metrics: dict[str, float] = {}
    if validation is not None:
        network = trainer.averaged_network()
        psnr_y, beside = validation.evaluate(network)
        fp32_psnr_y, lpips = psnr_y, beside.get("lpips")
        if isinstance(network, QuantizationAware):  # logged is INT8's, weights have FP32's
            metrics["validation/int8_psnr_y"] = psnr_y
            with network.on(None):
                fp32_psnr_y, in_fp32 = validation.evaluate(network)
            beside, lpips = {**beside, "fp32_psnr_y": round(fp32_psnr_y, 4)}, in_fp32.get("lpips")
            if lpips is not None:
                beside["fp32_lpips"] = lpips
        metrics["validation/psnr_y"] = fp32_psnr_y
        bicubic = round(validation.bicubic_psnr_y, 4)
        _log(trainer, logbook, psnr_y=round(psnr_y, 4), bicubic_psnr_y=bicubic, **beside)
        write_image(trainer.options.out / SHEET, validation.sheet(network))
        chooses = trainer.adversary is None and trainer.aware is None
        if chooses and psnr_y <= trainer.progress.best_psnr_y:
            return
        trainer.progress.best_psnr_y = psnr_y
        if lpips is not None:
            metrics["validation/lpips"] = lpips
    trainer.save_best(metrics, recipe(trainer))


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM, by which Slurm and Kubernetes end a job, does what Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _named_as_the_loaders() -> Iterator[None]:
    """PyTorch's error of a killed worker, which comes from wherever the training is, as ours."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise LoaderError(error) from error


@contextmanager
def _leaving_a_checkpoint(trainer: Trainer) -> Iterator[None]:
    """Turn what ends a run early into one line with the fix; save the weights so far."""
    try:
        with _terminated_as_interrupted(), _named_as_the_loaders():
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
    except LoaderError as error:
        _rescue(trainer, save=True)
        raise EdgeError(f"{error}, with --resume", error.status) from error
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
        trainer.save_best({}, recipe(trainer))


def recipe(trainer: Trainer) -> dict[str, Any]:
    """The training record of a checkpoint: options, stages, device."""
    return describe(trainer.options) | {
        "stages": trainer.stages,
        "device_used": str(trainer.device),
        "torch": torch.__version__,
    }


def _parts(trainer: Trainer) -> dict[str, float]:
    """The terms of the loss, where there are several."""
    terms = trainer.terms if len(trainer.terms) > 1 else {}
    return {name: float(term) for name, term in terms.items()}


def _log(trainer: Trainer, logbook: Logbook, **values: float) -> None:
    progress = trainer.progress
    line = {"step": progress.step, "seconds": round(progress.seconds, 1), **values}
    line["rate"] = trainer.learning_rate()
    logbook.add(line)
