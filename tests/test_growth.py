from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from aminet.checkpoint import build_model, load_checkpoint
from aminet.config import ModelConfig
from aminet.model import AMINet
from aminet.train import train
from aminet.training.growth import rest
from aminet.training.options import TrainOptions
from aminet.training.trainer import Trainer
from runtime.errors import EXIT_USAGE, EdgeError
from tests.tiny_training import TINY, tiny_options, write_disks

DEEP = ModelConfig(
    channels=(8, 16, 16), heads=(1, 1, 2), refine_convs=(1, 1, 0), hourglass=(1, 0, 0), side=64
)
LR = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def options(tmp_path: Path) -> TrainOptions:
    (tmp_path / "faces").mkdir()
    return tiny_options(write_disks(tmp_path / "faces"), tmp_path / "run")


@torch.no_grad()
def test_resting_levels_change_nothing_and_are_not_computed() -> None:
    torch.manual_seed(0)
    resting = AMINet(DEEP).eval()
    torch.nn.init.normal_(resting.exit.conv.weight)  # it starts at zero, which would hide all
    rest(resting, 2, fresh=True)
    whole = AMINet(DEEP).eval()
    whole.load_state_dict(resting.state_dict())
    torch.testing.assert_close(resting(LR), whole(LR), atol=1e-5, rtol=1e-5)
    for network, computed in ((resting, False), (whole, True)):
        network.encoders[0].block.skaf.select.bias.fill_(torch.nan)
        assert network(LR).isnan().any() == computed


def test_a_network_grows_from_its_bottleneck_up(options: TrainOptions) -> None:
    stages = []
    start = None
    for levels in (2, 1, 0):
        out = options.out.with_name(f"rest-{levels}")
        one = replace(options, out=out, rest=levels, init=start, seed=levels, steps=3, ema=0.5)
        before = build_model(load_checkpoint(start))(LR) if start else None
        if before is not None:  # the next stage starts from what the last one reached
            torch.testing.assert_close(Trainer(one, DEEP).network(LR), before, atol=1e-4, rtol=0)
        start = Path(train(one, DEEP).checkpoint)
        stages.append(load_checkpoint(start).state)
    moved = [
        {key.split(".select")[0] for key in old if not torch.equal(old[key], new[key])}
        for old, new in pairwise(stages)
    ]
    assert any(key.startswith("encoders.1.block.") for key in moved[0])
    assert not any(key.startswith("encoders.0.block.") for key in moved[0])
    assert any(key.startswith("encoders.0.block.") for key in moved[1])
    record = load_checkpoint(start).training["stages"]
    assert [stage.get("rest", 0) for stage in record] == [2, 1, 0]
    with pytest.raises(EdgeError, match=r"encoder's block of level 1 has been trained.*--rest 0"):
        Trainer(replace(options, out=options.out.with_name("again"), rest=2, init=start), DEEP)


@pytest.mark.parametrize(
    ("config", "levels", "named"),
    [
        (DEEP, 3, "--rest 3: expected 0 to 2"),
        (TINY, 1, "and no batch norm"),
        (replace(DEEP, edff=False), 1, "LGFI blocks with SKAF and EDFF"),
        (replace(DEEP, block="transformer"), 1, "LGFI blocks with SKAF and EDFF"),
    ],
)
def test_levels_that_cannot_rest_are_usage_errors(
    options: TrainOptions, config: ModelConfig, levels: int, named: str
) -> None:
    with pytest.raises(EdgeError, match=named) as raised:
        Trainer(replace(options, rest=levels), config)
    assert raised.value.status == EXIT_USAGE
