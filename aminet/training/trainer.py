"""One training step, and the weights, averages and optimizers that it moves."""

import copy
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aminet.checkpoint import (
    Checkpoint,
    build_model,
    load_checkpoint,
    require_config,
    save_checkpoint,
    weights_path,
)
from aminet.config import ModelConfig, find_config
from aminet.model import AMINet
from aminet.training.compiled import Forward, compile_checked
from aminet.training.criterion import Criterion
from aminet.training.data import contrast_half
from aminet.training.discriminator import Adversary
from aminet.training.distributed import ALONE, World
from aminet.training.growth import rest
from aminet.training.lineage import Stage, advance, begin
from aminet.training.optimizer import ENDS, build_optimizers, set_rate
from aminet.training.options import TrainOptions
from aminet.training.qat import QuantizationAware
from aminet.training.rounding import CPU
from aminet.training.state import pack, restore_moments, unpack
from runtime.activation_ranges import FILE as RANGES
from runtime.activation_ranges import RangeFile, read_range_file
from runtime.errors import EXIT_USAGE, EdgeError

CONTRAST = 1.6  # of every other face in quantization-aware training; quantize.activations has it
GRADIENT_NORM = 1.0  # gradients are clipped to this length
FINAL_RATE = 0.01  # of the learning rate, at the end of the cosine
STATE, BEST = "state.safetensors", "best.safetensors"  # files of a run
PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}
MAX_SKIPPED = 20  # updates in succession without a finite gradient: the run is lost
LOSS_SCALE = 2.0**16  # of fp16, whose small gradients vanish; halved when one overflows
GROW_EVERY = 2000  # steps after which the scale doubles


class DivergedError(EdgeError):
    """No finite gradient for MAX_SKIPPED steps."""


@dataclass
class Progress:
    """How far a run is; saved with the weights, so that a resumed one goes on."""

    step: int = 0
    seconds: float = 0.0
    best_psnr_y: float = -math.inf
    loss_scale: float = LOSS_SCALE


class Trainer:
    """Weights, their average, the optimizers, and the checkpoints of one run."""

    def __init__(
        self,
        options: TrainOptions,
        config: ModelConfig | None = None,
        world: World = ALONE,
    ) -> None:
        self.options = options = _from_committed(options) if options.qat else options
        self.world = world
        self.config = config or find_config(options.model)
        self.device = _device(options.device, world)
        torch.manual_seed(options.seed)
        network, stages, note = _start(options, self.config)
        self.network: nn.Module = network.train().to(self.device)
        self.aware = network if isinstance(network, QuantizationAware) else None
        if options.freeze_norms:
            _freeze_norms(self.network)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.optimizers = build_optimizers(
            self.network, options.optimizer, options.rate, options.betas, options.weight_decay
        )
        self.criterion = Criterion(options, self.device)
        self.adversary = self.criterion.adversary
        self.progress = Progress()
        self.terms: dict[str, Tensor] = {}  # the loss's parts, of the last step
        self.skipped = 0  # updates in succession that were not finite
        self.forward: Forward = self.network  # compiled at the first step, if asked for
        self.notices = [note] if note else []  # for the user; the first step may add one
        self._checked = not options.compile
        if options.resume and self.state_path.exists():
            stages, self.notices = self._restore(), []
        self._stages = begin(stages, options, self.device.type)
        self._begun = replace(self.progress)

    @property
    def state_path(self) -> Path:
        return self.options.out / STATE

    @property
    def best_path(self) -> Path:
        return self.options.out / BEST

    @property
    def done(self) -> float:
        """The share of the run that is behind, in [0, 1]."""
        options, progress = self.options, self.progress
        if options.steps is not None:
            return progress.step / options.steps
        assert options.minutes is not None
        return progress.seconds / (options.minutes * 60)

    @property
    def stages(self) -> list[dict[str, Any]]:
        """The stages of training so far; the last one is this run."""
        progress, begun = self.progress, self._begun
        return advance(self._stages, progress.step - begun.step, progress.seconds - begun.seconds)

    def rate_share(self) -> float:
        """Of the learning rate: linear warm-up by step, then a cosine by steps or by the clock."""
        cosine = 0.5 * (1 + math.cos(math.pi * min(self.done, 1.0)))
        warm = min((self.progress.step + 1) / max(self.options.warmup, 1), 1.0)
        return warm * (FINAL_RATE + (1 - FINAL_RATE) * cosine)

    def learning_rate(self) -> float:
        return self.options.rate * self.rate_share()

    def step(self, lr: Tensor, hr: Tensor, taught: Tensor | None = None) -> Tensor:
        """One update from lr (N, 3, 16, 16) and hr (N, 3, 128, 128); returns the loss.

        `taught` is the teacher's image of lr, if it was made before (aminet.training.views).
        An update whose loss or gradient is not finite is left out; MAX_SKIPPED of them end the run.
        """
        if not self._checked:
            self._compile(lr, hr)
        share = self.rate_share()
        if self.aware is not None:
            self.aware.select(self.progress.step)
            lr, hr = (contrast_half(images, CONTRAST) for images in (lr, hr))
        with self.autocast():
            sr = self.forward(lr.contiguous(memory_format=torch.channels_last))
            self.terms = self.criterion(sr.float(), lr, hr, self.progress.step, taught)
        loss = torch.stack([term.float() for term in self.terms.values()]).sum()
        self.network.zero_grad(set_to_none=True)
        (loss * self._loss_scale).backward()
        if self.progress.step < self.options.head_start:
            self._hold_body()
        loss = loss.detach()
        self.terms = {name: term.detach() for name, term in self.terms.items()}
        if self._is_finite(loss):
            for optimizer in self.optimizers:
                set_rate(optimizer, self.options.rate * share)
                optimizer.step()
            if self.adversary is not None:
                self._step_adversary(self.adversary, sr.detach().float(), hr, share)
            self._update_average()
        else:
            self._skip()
        return loss

    def _compile(self, lr: Tensor, hr: Tensor) -> None:
        compiled = compile_checked(
            self.network, lr.contiguous(memory_format=torch.channels_last), hr, self.autocast
        )
        self.forward = compiled.forward
        self.notices += [compiled.notice] if compiled.notice else []
        self._checked = True

    def _hold_body(self) -> None:
        """Without a gradient the optimizers leave a weight as it is."""
        for name, parameter in self.network.named_parameters():
            if not name.startswith(ENDS):
                parameter.grad = None

    def autocast(self) -> AbstractContextManager[Any]:
        if not self.options.amp:
            return nullcontext()
        return torch.autocast(self.device.type, PRECISIONS[self.options.precision])

    @property
    def _loss_scale(self) -> float:
        scaled = self.options.amp and self.options.precision == "fp16"
        return self.progress.loss_scale if scaled else 1.0

    def _is_finite(self, loss: Tensor) -> bool:
        """Average the loss and the gradients over the processes, and clip the gradients.

        L1's gradient can be finite where the loss is not.
        """
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        self.world.average([loss, *gradients])
        if self._loss_scale != 1:
            torch._foreach_div_(gradients, self._loss_scale)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_NORM)
        return bool(norm.isfinite() & loss.isfinite())

    def _step_adversary(self, adversary: Adversary, sr: Tensor, hr: Tensor, share: float) -> None:
        self.terms["discriminator"] = adversary.backward(sr, hr, self.progress.step)
        parameters = list(adversary.discriminator.parameters())
        self.world.average([p.grad for p in parameters if p.grad is not None])
        if bool(torch.nn.utils.clip_grad_norm_(parameters, GRADIENT_NORM).isfinite()):
            adversary.step(share)

    def _skip(self) -> None:
        """Skip the update; restore the buffers that the forward pass changed."""
        self.progress.step += 1
        self.progress.loss_scale = max(self.progress.loss_scale / 2, 1.0)
        self.skipped += 1
        for key, buffer in self._kept_buffers().items():
            buffer.copy_(self.average[key])
        if self.skipped == MAX_SKIPPED:
            raise DivergedError(
                f"train: no finite loss or gradient in the {MAX_SKIPPED} steps up to step"
                f" {self.progress.step}; {self.state_path} is of before:"
                f" go on with --resume --rate {self.options.rate / 2:g}"
            )

    def _kept_buffers(self) -> dict[str, Tensor]:
        """Running statistics; not the fixed kernel of the bicubic upscaling."""
        return {k: v for k, v in self.network.named_buffers() if k in self.average}

    @torch.no_grad()
    def _update_average(self) -> None:
        self.progress.step += 1
        self.skipped = 0
        if self.progress.step % GROW_EVERY == 0:
            self.progress.loss_scale *= 2
        decay = min(self.options.ema, (1 + self.progress.step) / (10 + self.progress.step))
        self.world.average([b for b in self._kept_buffers().values() if b.is_floating_point()])
        averages, currents = [], []
        for key, value in self.network.state_dict().items():
            if value.is_floating_point():
                averages.append(self.average[key])
                currents.append(value)
            else:
                self.average[key].copy_(value)
        torch._foreach_lerp_(averages, currents, 1 - decay)

    def averaged_network(self) -> AMINet | QuantizationAware:
        """The network of the averaged weights; quantization-aware it computes on the CPU's grid."""
        network = copy.deepcopy(self.aware) or AMINet(self.config).to(self.device)
        network.load_state_dict(self.average)
        if isinstance(network, QuantizationAware):
            network.mode.grid = CPU
        else:
            rest(network, self.options.rest, fresh=False)
        return network.eval()

    def save(self) -> None:
        """Everything that a resumed run needs, whole or not at all."""
        parts = {"network": self.network.state_dict(), "average": self.average}
        if self.adversary is not None:
            parts["discriminator"] = self.adversary.discriminator.state_dict()
        tensors = pack(parts, self._all_optimizers())
        progress = asdict(self.progress) | {"stages": self.stages}
        if not math.isfinite(self.progress.best_psnr_y):
            progress["best_psnr_y"] = None
        save_checkpoint(
            self.state_path, tensors, self.config, name=self.options.model, training=progress
        )

    def _restore(self) -> Sequence[Stage]:
        """Take the run up where it was saved; its stages until then."""
        saved = load_checkpoint(self.state_path)
        require_config(saved, self.config, self.options.model)
        _require_alike(saved, self.options)
        parts = unpack(saved.state)
        self.network.load_state_dict(parts["network"])
        self.average = {k: v.to(self.device) for k, v in parts["average"].items()}
        if self.adversary is not None and "discriminator" in parts:
            self.adversary.discriminator.load_state_dict(parts["discriminator"])
        restore_moments(self._all_optimizers(), parts.get("optimizer", {}))
        progress: dict[str, Any] = dict(saved.training)
        stages = progress.pop("stages", [])
        if progress["best_psnr_y"] is None:
            progress["best_psnr_y"] = -math.inf
        self.progress = Progress(**progress)
        return list(stages)

    def _all_optimizers(self) -> list[torch.optim.Optimizer]:
        critics = [self.adversary.optimizer] if self.adversary is not None else []
        return [*self.optimizers, *critics]

    def save_best(self, metrics: Mapping[str, float], training: dict[str, Any]) -> None:
        """Write the averaged weights and, of quantization-aware training, the ranges."""
        state, ranges, network = self.average, None, self.averaged_network()
        if isinstance(network, QuantizationAware):
            state, ranges = network.plain_state(), network.ranges()
        save_checkpoint(
            self.best_path,
            state,
            self.config,
            name=self.options.model,
            metrics=metrics,
            training=training,
            ranges=ranges,
        )


def _from_committed(options: TrainOptions) -> TrainOptions:
    """Quantization-aware training with its defaults: the committed weights, which are the teacher
    too, and the ranges beside their fp32.onnx."""
    init = options.init or weights_path(options.model)
    ranges = options.ranges or Path("artifacts", options.model, RANGES)
    return replace(options, init=init, teacher=options.teacher or init, ranges=ranges)


def _start(
    options: TrainOptions, config: ModelConfig
) -> tuple[AMINet | QuantizationAware, Sequence[Stage], str | None]:
    """A fresh network, or the one of the weights to start from, without its parts in `fresh`.

    With it the stages of training that it has behind it, and what it leaves behind, for the user.
    """
    network = AMINet(config)
    if options.init is None:
        rest(network, options.rest, fresh=True)
        return network, [], None
    start = load_checkpoint(options.init)
    require_config(start, config, options.model)
    started, stages = build_model(start), list(start.training.get("stages", []))
    note = None
    if start.ranges is not None and not options.qat:
        note = (
            f"note: the activation ranges of {start.path} are left behind; run --qat again at"
            " the end"
        )
    if options.qat:
        assert options.ranges is not None
        return QuantizationAware(started, _ranges_of(start, options.ranges)), stages, None
    for part in options.fresh:
        try:
            started.get_submodule(part).load_state_dict(network.get_submodule(part).state_dict())
        except AttributeError as error:
            raise EdgeError(
                f"train: --fresh {part}: {options.model} has no such part", EXIT_USAGE
            ) from error
    rest(started, options.rest, fresh=False)
    return started, stages, note


def _ranges_of(start: Checkpoint, path: Path) -> RangeFile:
    """The file of ranges; EdgeError if it is of other weights."""
    found = read_range_file(path)
    if found.checkpoint_sha256 != start.sha256:
        raise EdgeError(
            f"{path}: ranges of other weights than {start.path} (sha256"
            f" {found.checkpoint_sha256[:12]}, expected {start.sha256[:12]}); make them again:"
            f" python -m export.onnx --checkpoint {start.path} --out F, then python -m"
            " quantize.ranges --artifact F"
        )
    return found


def _require_alike(saved: Checkpoint, options: TrainOptions) -> None:
    """Refuse to resume with another optimizer, whose state is not in the file, or with or without
    quantization, whose tensors are others."""
    stages = saved.training.get("stages") or [{}]
    used = stages[-1].get("optimizer", options.optimizer)
    aware = stages[-1].get("qat", False)
    if aware != options.qat:
        raise EdgeError(
            f"train: {saved.path}: was trained {'with' if aware else 'without'} --qat, cannot be"
            f" resumed {'without' if aware else 'with'} it; give --out another folder",
            EXIT_USAGE,
        )
    if used != options.optimizer:
        raise EdgeError(
            f"train: {saved.path}: was trained with --optimizer {used}, cannot be resumed with"
            f" {options.optimizer}; start a new run from its weights: --init {options.out / BEST}",
            EXIT_USAGE,
        )


def _freeze_norms(network: nn.Module) -> None:
    """Normalize as in use: what a face becomes no longer depends on the others of its batch."""
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.eval()


def _device(asked: str, world: World) -> torch.device:
    if asked == "auto":
        asked = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(asked, world.local_rank) if asked == "cuda" else torch.device(asked)
