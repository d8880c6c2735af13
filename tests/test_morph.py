"""Weights go over to a network of another shape, and do there what they did."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from aminet.blocks import BicubicUpscaling
from aminet.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from aminet.config import MODELS, ModelConfig
from aminet.model import AMINet
from aminet.training.morph import main
from aminet.training.net2net import difference, morph
from runtime.errors import EdgeError
from tiny_networks import BATCHED

OLD = replace(BATCHED, hourglass=(1, 0))
LR = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def trained(config: ModelConfig = OLD) -> Checkpoint:
    """A network that is no longer as it was made: every weight and statistic has moved."""
    torch.manual_seed(0)
    network = AMINet(config).train()
    torch.nn.init.normal_(network.exit.conv.weight, std=0.1)
    for _ in range(3):
        network(torch.rand(8, 3, 16, 16))
    return Checkpoint(config, "old", network.state_dict(), "0" * 64, path=Path("old.safetensors"))


def outputs(network: AMINet) -> torch.Tensor:
    with torch.inference_mode():
        return network.eval()(LR)


@pytest.mark.parametrize("refine_convs", [(2, 1), (4, 1), (1, 3), (3, 2)])
def test_a_deeper_network_does_the_same(refine_convs: tuple[int, int]) -> None:
    old, config = trained(), replace(OLD, refine_convs=refine_convs)
    new = morph(old, config, LR)
    assert new.config == config
    torch.testing.assert_close(outputs(new), outputs(morph(old, OLD, LR)), atol=1e-5, rtol=0)


def test_a_larger_input_is_seen_as_its_blocks_means() -> None:
    """The same detail as before, on a face that is blocks of its pixels."""
    old = trained()
    new = morph(old, replace(OLD, lr_side=64), LR).eval()
    blocks = LR.repeat_interleave(4, -1).repeat_interleave(4, -2)
    with torch.inference_mode():
        before = outputs(morph(old, OLD, LR)) - BicubicUpscaling(8)(LR)
        after = new(blocks) - BicubicUpscaling(2)(blocks)
        after -= torch.nn.functional.pixel_shuffle(new.exit.skip(torch.zeros(1, 48, 16, 16)), 8)
    torch.testing.assert_close(after, before, atol=1e-5, rtol=0)


def test_new_convolutions_learn() -> None:
    new = morph(trained(), replace(OLD, refine_convs=(2, 1)), LR).train()
    new(LR).square().mean().backward()
    grown = new.get_submodule("encoders.0.block.local.frm.refine.2.0.0")
    assert isinstance(grown, torch.nn.Conv2d)
    assert grown.weight.grad is not None
    assert float(grown.weight.grad.abs().max()) > 0


def test_without_its_blocks_the_bottleneck_is_left_out() -> None:
    old = trained()
    new = morph(old, replace(OLD, bottleneck=0), LR)
    expected = morph(old, OLD, LR)
    expected.bottleneck = torch.nn.Sequential()
    torch.testing.assert_close(outputs(new), outputs(expected))


def test_a_level_without_blocks_keeps_its_strongest_directions() -> None:
    """All 16 of them: the same; half: the nearest map of that rank."""
    old, bare = trained(), replace(OLD, bottleneck=0)
    whole = outputs(morph(old, bare, LR))
    state = dict(old.state)
    rank_8 = torch.linalg.svd(state["decoders.0.up.weight"][:, :, 0, 0])
    state["decoders.0.up.weight"] = (rank_8[0][:, :8] @ torch.diag(rank_8[1][:8]) @ rank_8[2][:8])[
        :, :, None, None
    ]
    of_rank_8 = replace(old, state=state)
    narrow = replace(bare, channels=(8, 8), heads=(1, 1))
    assert (outputs(morph(old, narrow, LR)) - whole).abs().max() > 1e-4
    torch.testing.assert_close(
        outputs(morph(of_rank_8, narrow, LR)),
        outputs(morph(of_rank_8, bare, LR)),
        atol=1e-5,
        rtol=0,
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"side": 32}, "side 16 .expected 32"),
        ({"refine_convs": (0, 1)}, "FRM cannot go from 1 to 0"),
        ({"bottleneck": 3}, "only ever gets smaller"),
        ({"bottleneck": 0, "channels": (8, 32)}, "only ever gets smaller"),
        ({"channels": (8, 8)}, "channels"),
    ],
)
def test_what_cannot_be_reached_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(EdgeError, match=message):
        morph(trained(), ModelConfig.from_dict(OLD.to_dict() | changes), LR)


@pytest.mark.parametrize("changes", [{"norm": "layer"}, {"activation": "gelu"}])
def test_what_would_not_be_an_identity_is_refused(changes: dict[str, object]) -> None:
    old = ModelConfig.from_dict(OLD.to_dict() | changes)
    with pytest.raises(EdgeError, match="only batch norm and ReLU"):
        morph(trained(old), replace(old, refine_convs=(2, 1)), LR)


def test_the_command_writes_a_checkpoint_that_says_what_was_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(MODELS, "deeper", replace(OLD, refine_convs=(2, 1)))
    old, stages = trained(), [{"steps": 5, "batch": 2, "minutes": 1.0}]
    save_checkpoint(
        tmp_path / "old.safetensors", old.state, OLD, name="old", training={"stages": stages}
    )
    (tmp_path / "faces").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "faces" / "face.png")
    out = tmp_path / "new.safetensors"
    paths = ["--checkpoint", str(tmp_path / "old.safetensors"), "--data", str(tmp_path / "faces")]
    assert main([*paths, "--model", "deeper", "--out", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"checkpoint": str(out), "morph": "refine_convs 1, 1 -> 2, 1"}
    new = load_checkpoint(out)
    assert (new.model, new.config.refine_convs) == ("deeper", (2, 1))
    assert new.training["stages"] == [
        *stages,
        {"morph": "refine_convs 1, 1 -> 2, 1", "steps": 0, "minutes": 0.0, "batch": 0},
    ]


def test_the_difference_names_every_field() -> None:
    assert (
        difference(OLD, replace(OLD, bottleneck=0, side=32)) == "bottleneck 2 -> 0; side 16 -> 32"
    )
