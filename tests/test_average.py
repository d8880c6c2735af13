"""The mean of weights is kept only where it is better than each of them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from aminet.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from aminet.model import AMINet
from aminet.training.average import main
from aminet.training.lineage import mean_of
from aminet.training.weight_average import average, mean_weights
from runtime.errors import EXIT_USAGE, EdgeError
from tiny_networks import BATCHED, network
from tiny_training import TINY, write_disks


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_disks(tmp_path_factory.mktemp("faces"), 4)


def shifted(path: Path, by: float, *, stages: list[dict[str, object]]) -> Path:
    """A network that enlarges as bicubic does, and is too bright by so much."""
    torch.manual_seed(0)
    state = AMINet(TINY).state_dict()
    state["exit.conv.bias"] += by
    save_checkpoint(path, state, TINY, name="tiny", training={"stages": stages})
    return path


def stage(seed: int, steps: int) -> dict[str, object]:
    return {"seed": seed, "steps": steps, "minutes": 1.0, "batch": 4}


def test_errors_that_differ_cancel_each_other(
    tmp_path: Path, faces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    brighter = shifted(tmp_path / "a.safetensors", 0.1, stages=[stage(0, 9), stage(1, 2)])
    darker = shifted(tmp_path / "b.safetensors", -0.1, stages=[stage(0, 9), stage(2, 3)])
    out = tmp_path / "mean.safetensors"
    paths = [str(brighter), str(darker)]
    assert main([*paths, "--val", str(faces), "--out", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["checkpoint"] == str(out)
    assert list(said["of"]) == paths
    assert said["psnr_y"] > max(said["of"].values()) + 1
    mean = load_checkpoint(out)
    expected = shifted(tmp_path / "exact.safetensors", 0.0, stages=[])
    torch.testing.assert_close(dict(mean.state), dict(load_checkpoint(expected).state))
    assert mean.metrics == {"validation/psnr_y": said["psnr_y"]}
    of_two = {"mean": "of 2", "steps": 0, "minutes": 0.0, "batch": 0}
    assert mean.training["stages"] == [stage(0, 9), stage(1, 2), stage(2, 3), of_two]


def test_a_mean_that_is_worse_is_not_written(tmp_path: Path, faces: Path) -> None:
    good = shifted(tmp_path / "good.safetensors", 0.0, stages=[])
    bad = shifted(tmp_path / "bad.safetensors", 0.3, stages=[])
    out = tmp_path / "mean.safetensors"
    out.write_bytes(b"an older one")
    with pytest.raises(EdgeError, match=r"good.safetensors alone"):
        average([bad, good], [str(faces)], out)
    assert out.read_bytes() == b"an older one"


def test_weights_of_another_config_are_refused(tmp_path: Path) -> None:
    state = network(BATCHED).state_dict()
    first = Checkpoint(BATCHED, "tiny", state, "", path=tmp_path / "first")
    other = Checkpoint(replace(BATCHED, refine_convs=(2, 1)), "tiny", state, "", path=Path("other"))
    with pytest.raises(EdgeError, match=r"other: not of model in .*first: refine_convs"):
        mean_weights([first, other])


def test_one_checkpoint_has_no_mean(
    tmp_path: Path, faces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = shifted(tmp_path / "a.safetensors", 0.0, stages=[])
    command = [str(alone), "--val", str(faces), "--out", str(tmp_path / "mean")]
    assert main(command) == EXIT_USAGE
    assert "two checkpoints or more" in capsys.readouterr().err


def test_one_run_at_two_times_counts_once() -> None:
    """And a branch that went on from the mean of others brings theirs along."""
    early, late = [stage(0, 5), stage(1, 2)], [stage(0, 5), stage(1, 8)]
    assert mean_of([early, late])[:-1] == late
    assert mean_of([early, [stage(0, 5), stage(2, 3)], late])[:-1] == [*late, stage(2, 3)]
    assert mean_of([[stage(0, 7)], [stage(0, 5), stage(1, 2)]])[:-1] == [stage(0, 7), stage(1, 2)]
    again = mean_of([late, early])
    assert mean_of([again, early])[:-1] == again
