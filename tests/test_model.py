"""The network as a whole: shapes, its start, and every ablation."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from aminet.config import ABLATIONS, MODELS, ModelConfig
from aminet.model import AMINet

TINY = ModelConfig(channels=(8, 16), heads=(1, 2), refine_convs=(1, 1), hourglass=(1, 0), side=16)


@pytest.mark.parametrize("side", [16, 32, 64, 128])
def test_any_body_side_gives_128(side: int) -> None:
    network = AMINet(dataclasses.replace(TINY, side=side)).eval()
    assert network(torch.rand(2, 3, 16, 16)).shape == (2, 3, 128, 128)


@pytest.mark.parametrize("lr_side", [32, 64])
@pytest.mark.parametrize("side", [16, 64, 128])
def test_any_input_side_gives_128(lr_side: int, side: int) -> None:
    network = AMINet(dataclasses.replace(TINY, lr_side=lr_side, side=side)).eval()
    network.exit.conv.bias.data.zero_()
    if network.exit.skip is not None:
        network.exit.skip.bias.data.zero_()
    lr = torch.rand(2, 3, lr_side, lr_side)
    expected = F.interpolate(lr, (128, 128), mode="bicubic", align_corners=False)
    torch.testing.assert_close(network(lr), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("norm", ["layer", "batch", "none"])
def test_a_new_network_is_the_bicubic_upscaling(norm: str) -> None:
    """Training starts from the baseline, not from noise: only the exit's bias is left."""
    network = AMINet(dataclasses.replace(TINY, norm=norm)).eval()
    lr = torch.rand(2, 3, 16, 16)
    network.exit.conv.bias.data.zero_()
    expected = F.interpolate(lr, scale_factor=8, mode="bicubic", align_corners=False)
    torch.testing.assert_close(network(lr), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_ablation_runs_and_learns(name: str) -> None:
    """Forward and backward with the ablation's fields on a narrow network."""
    narrow = dataclasses.replace(
        ABLATIONS[name],
        channels=(8, 16),
        heads=(1, 2),
        refine_convs=(1, 0),
        hourglass=(1, 0),
        side=16,
    )
    network = AMINet(narrow)
    nn.init.normal_(network.exit.conv.weight)
    network(torch.rand(1, 3, 16, 16)).mean().backward()
    unused = [key for key, value in network.named_parameters() if value.grad is None]
    assert unused == []


@pytest.mark.parametrize("name", MODELS)
def test_models_take_any_batch(name: str) -> None:
    side = MODELS[name].lr_side
    with torch.device("meta"):
        assert AMINet(MODELS[name])(torch.empty(5, 3, side, side)).shape == (5, 3, 128, 128)


def test_levels_double_the_channels_and_halve_the_side() -> None:
    network = AMINet(TINY)
    x, skip = network.encoders[0](torch.rand(1, 8, 16, 16))
    assert skip.shape == (1, 8, 16, 16)
    assert x.shape == (1, 16, 8, 8)
    assert network.decoders[0](x, skip).shape == (1, 8, 16, 16)
