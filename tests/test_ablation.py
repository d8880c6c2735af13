"""What a network loses without each of its blocks."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from aminet.checkpoint import load_model, save_checkpoint
from aminet.info import count_macs, measure_cost
from aminet.model import AMINet
from aminet.training.validation import Validation
from benchmarks.studies import ablation as benchmark
from benchmarks.studies.ablation import ablate
from tiny_networks import BATCHED

TINY = replace(BATCHED, hourglass=(1, 0))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, and a second bottleneck block that adds nothing to what it is given."""
    torch.manual_seed(0)
    network = AMINet(TINY)
    torch.nn.init.normal_(network.exit.conv.weight, std=0.05)
    for branch in ("local", "global_"):
        norm = network.get_submodule(f"bottleneck.1.skaf.{branch}.1")
        assert isinstance(norm, torch.nn.BatchNorm2d)
        torch.nn.init.zeros_(norm.weight)
        torch.nn.init.zeros_(norm.bias)
    path = tmp_path_factory.mktemp("blocks") / "tiny.safetensors"
    save_checkpoint(path, network, TINY, name="tiny")
    return path


def test_each_block_is_left_out_and_put_back(checkpoint: Path, hr_faces: Path) -> None:
    result = ablate([hr_faces], checkpoint=checkpoint)
    network, _ = load_model(checkpoint=checkpoint)
    assert result.psnr_y == pytest.approx(Validation.load([hr_faces]).psnr_y(network), abs=1e-3)
    kinds = [row.kind for row in result.rows]
    assert [kinds.count(kind) for kind in ("LGFI", "SA", "RDFE", "FRM", "Hourglass")] == [
        4,
        4,
        4,
        4,
        2,
    ]
    lost = {row.block: row.lost_db for row in result.rows}
    assert lost["bottleneck.1"] == 0
    assert lost["bottleneck.1.local"] == 0
    assert abs(lost["encoders.0.block"]) > 0.001


def test_macs_are_those_of_the_whole() -> None:
    macs = count_macs(TINY)
    parts = ("upscale", "entry", "encoders.0", "bottleneck", "decoders.0", "exit")
    assert sum(macs[part] for part in parts) == measure_cost(TINY).macs
    assert all(macs[part] > 0 for part in parts)


def test_the_command_prints_one_json_object_and_writes_it(
    checkpoint: Path, hr_faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ablation.json"
    arguments = ["--data", str(hr_faces), "--checkpoint", str(checkpoint), "--out", str(out)]
    assert benchmark.main([*arguments, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(out.read_text())
    assert printed["model"] == "tiny"
    assert benchmark.main(arguments) == 0
    assert "bottleneck.1.local.frm" in capsys.readouterr().out
