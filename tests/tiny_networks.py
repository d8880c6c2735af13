"""Tiny AMINets with loud random weights, and their graphs, traced once a run."""

import functools
from dataclasses import replace

import torch
from onnx import ModelProto

from aminet.checkpoint import save_checkpoint
from aminet.config import ModelConfig
from aminet.model import AMINet
from export.exporter import trace

# The paper's blocks at 32 and 16.
LAYERED = ModelConfig(
    side=32, channels=(8, 16), heads=(1, 2), refine_convs=(1, 0), hourglass=(1, 0)
)
# What else a config can say, at 16 and 8: the body of aminet-edge, and some ablations.
BATCHED = ModelConfig(
    side=16,
    channels=(8, 16),
    heads=(1, 2),
    refine_convs=(1, 1),
    hourglass=(0, 0),
    branch_ratio=0.5,
    norm="batch",
    activation="relu",
    skaf_pools=("max",),
    edff=False,
)
# A larger input: blocks of its pixels are channels of the body, as in aminet-real.
BLOCKED = replace(BATCHED, lr_side=64)


@functools.cache
def network(config: ModelConfig) -> AMINet:
    """In eval mode; every part of it counts in the output."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = AMINet(config)
        for name, value in model.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2)
            elif value.is_floating_point():
                value.add_(torch.randn_like(value), alpha=0.1)
    return model.eval()


@functools.cache
def traced_once(config: ModelConfig) -> bytes:
    return trace(network(config)).SerializeToString()


def traced(config: ModelConfig) -> ModelProto:
    return ModelProto.FromString(traced_once(config))


def write_checkpoint(path, config, *, name="tiny", psnr_y=26.5):
    metrics = {} if psnr_y is None else {"celeba-val/psnr_y": psnr_y}
    save_checkpoint(path, network(config), config, name=name, metrics=metrics)
    return path
