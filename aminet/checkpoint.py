"""Checkpoints: safetensors files that carry their config. Never pickle."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from aminet.config import ModelConfig, find_config
from aminet.model import AMINet
from runtime.activation_ranges import ActivationRanges
from runtime.atomic import sha256_bytes, sha256_file, write_bytes
from runtime.errors import EXIT_USAGE, EdgeError

WEIGHTS = Path(__file__).parent / "weights"
RESUMED = "average."  # prefix of the averaged weights in the state of a run
KEY = "aminet"  # one metadata key: safetensors writes several in random order, another file each


@dataclass(frozen=True)
class Checkpoint:
    """A network's weights, the config they fit, and what is known of their quality."""

    config: ModelConfig
    model: str  # its name: aminet-edge
    state: Mapping[str, Tensor] = field(repr=False)  # float32
    sha256: str  # of the file; of the weights where they are random
    metrics: Mapping[str, float] = field(default_factory=dict)  # "celeba-val/psnr_y": 27.3
    training: Mapping[str, Any] = field(default_factory=dict)  # recipe, steps, minutes
    random_weights: bool = False
    path: Path | None = None
    ranges: ActivationRanges | None = None  # of quantization-aware training


def weights_path(model: str) -> Path:
    """Where a model's committed weights are, or would be."""
    return WEIGHTS / f"{model}.safetensors"


def save_checkpoint(
    path: str | Path,
    model: AMINet | Mapping[str, Tensor],
    config: ModelConfig,
    *,
    name: str,
    metrics: Mapping[str, float] | None = None,
    training: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
    ranges: ActivationRanges | None = None,
) -> None:
    """Write weights and config as one file, whole or not at all; the same again, the same bytes.

    `ranges`: those of its activations, trained with these very weights.
    """
    state = model.state_dict() if isinstance(model, AMINet) else model
    tensors = {
        key: value.detach()
        .to("cpu", dtype if value.is_floating_point() else value.dtype)
        .contiguous()
        for key, value in state.items()
    }
    about = {
        "model": name,
        "config": config.to_dict(),
        "metrics": dict(metrics or {}),
        "training": dict(training or {}),
    }
    if ranges is not None:
        about["quantization"] = asdict(ranges) | {"weights_sha256": _digest(tensors)}
    write_bytes(path, to_bytes(tensors, {KEY: json.dumps(about, sort_keys=True)}))


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint; whatever is wrong with the file raises EdgeError by its name."""
    path = Path(path)
    metadata, state = _read(path)
    if KEY not in metadata:
        raise EdgeError(f"{path}: tensors without a config; {_how_to_convert(path)}")
    try:
        about = json.loads(metadata[KEY])
        config = ModelConfig.from_dict(about["config"])
        return Checkpoint(
            config,
            about["model"],
            state,
            sha256_file(path),
            about["metrics"],
            about["training"],
            path=path,
            ranges=_ranges(path, about.get("quantization"), state),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EdgeError(
            f"{path}: damaged checkpoint ({error}); train it again or fetch it again"
        ) from error


def _ranges(
    path: Path, content: Mapping[str, Any] | None, state: Mapping[str, Tensor]
) -> ActivationRanges | None:
    """The ranges of quantization-aware training; EdgeError where the weights are not theirs."""
    if content is None:
        return None
    if content["weights_sha256"] != _digest(state):
        raise EdgeError(
            f"{path}: its activation ranges are of other weights; take the checkpoint that"
            " aminet.train --qat wrote"
        )
    return ActivationRanges.from_dict(content)


def _digest(state: Mapping[str, Tensor]) -> str:
    """Of all values in float32, in which a checkpoint is read."""
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode() + state[key].float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def refuse_trained_ranges(checkpoint: Checkpoint, done: str) -> None:
    """EdgeError (status 2) for a checkpoint of quantization-aware training.

    `done` is what would lose its ranges, or make weights that they do not fit.
    """
    if checkpoint.ranges is not None:
        raise EdgeError(
            f"{checkpoint.path}: is of quantization-aware training, whose activation ranges {done}"
            " would not keep; take the weights that it started from, and run --qat last",
            EXIT_USAGE,
        )


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    if not path.is_file():
        raise EdgeError(
            f"{path}: no such file, expected a checkpoint; train one: python -m aminet.train --help"
        )
    if is_torch_file(path):
        raise EdgeError(f"{path}: a file of torch.save; {_how_to_convert(path)}")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise EdgeError(
            f"{path}: not a whole safetensors file ({error}); fetch it again"
        ) from error
    return metadata, {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}


def is_torch_file(path: Path) -> bool:
    """Whether torch.save wrote it: a zip, or a pickle where it is old."""
    with path.open("rb") as file:
        return file.read(4).startswith((b"PK\x03\x04", b"\x80\x02"))


def _how_to_convert(path: Path) -> str:
    out = path.with_suffix(".converted.safetensors")
    return f"convert it: python -m aminet.convert {path} --model aminet-edge --out {out}"


def build_model(checkpoint: Checkpoint) -> AMINet:
    """The network with the checkpoint's weights, float32, in eval mode."""
    network = AMINet(checkpoint.config)
    expected, found = network.state_dict(), checkpoint.state
    if any(key.startswith(RESUMED) for key in found):
        raise EdgeError(
            f"{checkpoint.path}: the state that --resume goes on from, not weights; its weights are"
            " in best.safetensors beside it"
        )
    wrong = sorted(set(expected) ^ set(found))
    wrong += [key for key in expected if key in found and expected[key].shape != found[key].shape]
    if wrong:
        raise EdgeError(
            f"{checkpoint.path}: its weights do not fit its config at {wrong[0]} "
            f"({len(wrong)} tensors differ); train it again"
        )
    spoilt = [key for key, value in found.items() if not bool(value.isfinite().all())]
    if spoilt:
        raise EdgeError(
            f"{checkpoint.path}: its weights are not finite at {spoilt[0]} ({len(spoilt)} of"
            f" {len(found)} tensors): the training diverged; take an earlier checkpoint"
        )
    network.load_state_dict(dict(found))
    return network.eval()


def load_model(
    model: str | None = None, checkpoint: str | Path | None = None, random_seed: int | None = None
) -> tuple[AMINet, Checkpoint]:
    """A network ready to run: a model's committed weights, a checkpoint, or random ones.

    With both a name and a checkpoint the checkpoint must be of that model's config.
    """
    if checkpoint is None and random_seed is not None:
        loaded = _random_checkpoint(model or "aminet-edge", random_seed)
    else:
        loaded = load_checkpoint(checkpoint or _committed(model or "aminet-edge"))
        if model is not None:
            require_config(loaded, find_config(model), model)
    return build_model(loaded), loaded


def _committed(model: str) -> Path:
    find_config(model)
    path = weights_path(model)
    if not path.is_file():
        raise EdgeError(
            f"{model}: no trained weights; train them: python -m aminet.train"
            f" --data FACES.tar --model {model} --minutes 60 --out runs/{model}"
        )
    return path


def _random_checkpoint(model: str, seed: int) -> Checkpoint:
    config = find_config(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = AMINet(config)
        torch.nn.init.normal_(network.exit.conv.weight, std=0.02)
    state = network.state_dict()
    digest = sha256_bytes(to_bytes({key: value.contiguous() for key, value in state.items()}))
    return Checkpoint(config, model, state, digest, random_weights=True)


def require_config(checkpoint: Checkpoint, config: ModelConfig, model: str) -> None:
    """Refuse a checkpoint of another config, by the name of what differs."""
    found, expected = asdict(checkpoint.config), asdict(config)
    differing = [
        f"{key} {found[key]} (expected {expected[key]})"
        for key in expected
        if found[key] != expected[key]
    ]
    if differing:
        raise EdgeError(f"{checkpoint.path}: not of model {model}: {'; '.join(differing)}")
