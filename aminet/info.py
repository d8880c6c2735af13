"""Size, cost and quality of the models: `python -m aminet.info`."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache

from aminet.config import ABLATION, ABLATIONS, MODELS, ModelConfig, find_config
from runtime.errors import needs, run_command


@dataclass(frozen=True)
class Cost:
    """Parameters, and multiply-adds (convolutions, matrix products) of one upscaled face."""

    params: int
    macs: int


@dataclass(frozen=True)
class ModelInfo:
    """One model; what follows its cost is None until it is trained.

    psnr_y is in dB, on celeba-val: shrunk to 16 px, or the mean over degraded faces; lpips, of
    sharp models, on the same faces. The weights took `minutes` in all their stages, the last of
    them on `device`.
    """

    model: str
    params: int
    macs: int
    weights: str | None = None
    sha256: str | None = None
    psnr_y: float | None = None
    minutes: float | None = None
    lpips: float | None = None
    device: str | None = None


@cache
def measure_cost(config: ModelConfig) -> Cost:
    """Count with torch's own counter, on tensors without data."""
    with needs("train"):
        import torch

        from aminet.model import AMINet

    with torch.device("meta"):
        network = AMINet(config)
    params = sum(parameter.numel() for parameter in network.parameters())
    return Cost(params, count_macs(config)[""])


def count_macs(config: ModelConfig) -> dict[str, int]:
    """Multiply-adds of each part, by its name as torch has it; "" is the whole network."""
    with needs("train"):
        import torch
        from torch.utils.flop_counter import FlopCounterMode

        from aminet.model import AMINet

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
    with needs("train"):
        from aminet.checkpoint import load_checkpoint, weights_path

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
        psnr_y=_on_celeba_val(checkpoint.metrics, "psnr_y"),
        lpips=_on_celeba_val(checkpoint.metrics, "lpips"),
        minutes=round(sum(s["minutes"] for s in checkpoint.training.get("stages", [])), 1),
        device=checkpoint.training.get("device_used"),
    )


def _on_celeba_val(metrics: Mapping[str, float], name: str) -> float | None:
    """As measured at the release, else by the run."""
    return metrics.get(f"celeba-val/{name}", metrics.get(f"validation/{name}"))


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m aminet.info", description=__doc__)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--model", help=f"one of {', '.join(MODELS)}; default: all of them")
    which.add_argument(
        "--ablation", nargs="?", const="", metavar="NAME", help="of Tables I to V; all without NAME"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _run(given: argparse.Namespace) -> int:
    one = given.model or (given.ablation and f"{ABLATION}{given.ablation}")
    ablations = [f"{ABLATION}{name}" for name in ABLATIONS]
    names = [one] if one else (list(MODELS) if given.ablation is None else ablations)
    models = [info(name) for name in names]
    if given.json:
        print(json.dumps(asdict(models[0]) if one else {"models": [asdict(m) for m in models]}))
    else:
        print(table(models))
    return 0


def table(models: Sequence[ModelInfo]) -> str:
    """A line a model: size, cost, quality, minutes of training, weights."""
    width = max(len(model.model) for model in models)
    lines = [
        f"{'model':{width}} {'parameters':>10} {'MACs':>8} {'PSNR-Y':>9} {'LPIPS':>6}"
        f" {'minutes':>8}  weights"
    ]
    for model in models:
        quality = "-" if model.psnr_y is None else f"{model.psnr_y:.2f} dB"
        lpips = "-" if model.lpips is None else f"{model.lpips:.3f}"
        minutes = "-" if model.minutes is None else f"{model.minutes:.0f}"
        weights = f"sha256 {model.sha256[:12]}" if model.sha256 else "none yet"
        size, macs = f"{model.params / 1e6:.2f} M", f"{model.macs / 1e9:.2f} G"
        lines.append(
            f"{model.model:{width}} {size:>10} {macs:>8} {quality:>9} {lpips:>6} {minutes:>8}"
            f"  {weights}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
