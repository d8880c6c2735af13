"""python -m aminet.info: what each model costs, and how good its weights are."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache

from runtime.errors import needs, run_command

with needs("train", __name__):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

from aminet.checkpoint import find_config, load_checkpoint, weights_path
from aminet.config import MODELS, ModelConfig
from aminet.model import AMINet


@dataclass(frozen=True)
class Cost:
    """Parameters, and multiply-adds (convolutions, matrix products) of one enlarged face."""

    params: int
    macs: int


@dataclass(frozen=True)
class ModelInfo:
    """One model; what follows its cost is None until it is trained.

    psnr_y is in dB, on celeba-val; the weights took `minutes` in all their stages.
    """

    model: str
    params: int
    macs: int
    weights: str | None = None
    sha256: str | None = None
    psnr_y: float | None = None
    minutes: float | None = None


@cache
def measure_cost(config: ModelConfig) -> Cost:
    """Count with torch's own counter, on tensors without data."""
    with torch.device("meta"):
        network = AMINet(config)
    params = sum(parameter.numel() for parameter in network.parameters())
    return Cost(params, count_macs(config)[""])


def count_macs(config: ModelConfig) -> dict[str, int]:
    """Multiply-adds of each part, by its name as torch has it; "" is the whole network."""
    with torch.device("meta"):
        network = AMINet(config).eval()
        lr = torch.empty(1, 3, config.lr_side, config.lr_side)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(lr)
    flops = {part: sum(counts.values()) for part, counts in counter.get_flop_counts().items()}
    names = [name for name, _ in network.named_modules()]
    return {name: flops.get(f"AMINet.{name}".rstrip("."), 0) // 2 for name in names}


def info(model: str) -> ModelInfo:
    """Cost and weights of a named model; an unknown name raises EdgeError."""
    cost = measure_cost(find_config(model))
    path = weights_path(model)
    if not path.is_file():
        return ModelInfo(model, cost.params, cost.macs)
    checkpoint = load_checkpoint(path)
    return ModelInfo(
        model,
        cost.params,
        cost.macs,
        weights=str(path),
        sha256=checkpoint.sha256,
        psnr_y=checkpoint.metrics.get("celeba-val/psnr_y"),
        minutes=round(sum(s["minutes"] for s in checkpoint.training.get("stages", [])), 1),
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m aminet.info", description=__doc__)
    parser.add_argument("--model", help=f"one of {', '.join(MODELS)}; default: all")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(argv)
    models = [info(name) for name in ([given.model] if given.model else MODELS)]
    if given.json:
        one = asdict(models[0]) if given.model else {"models": [asdict(model) for model in models]}
        print(json.dumps(one))
        return 0
    print(f"{'model':12} {'parameters':>10} {'MACs':>8} {'PSNR-Y':>9} {'minutes':>8}  weights")
    for model in models:
        quality = "-" if model.psnr_y is None else f"{model.psnr_y:.2f} dB"
        minutes = "-" if model.minutes is None else f"{model.minutes:.0f}"
        weights = f"sha256 {model.sha256[:12]}" if model.sha256 else "none yet"
        size, macs = f"{model.params / 1e6:.2f} M", f"{model.macs / 1e9:.2f} G"
        print(f"{model.model:12} {size:>10} {macs:>8} {quality:>9} {minutes:>8}  {weights}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
