"""Two gloo processes train as one."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from aminet.checkpoint import load_checkpoint
from aminet.train import train
from aminet.training.distributed import World, join_world
from runtime.errors import EXIT_USAGE, EdgeError
from tiny_training import TINY, tiny_options, write_disks

TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes wrote."""
    out = tmp_path_factory.mktemp("together")
    (out / "faces").mkdir()
    write_disks(out / "faces", 8)
    for run in ("steps", "minutes"):
        start_two(out / "faces", out / run)
    return out


def start_two(faces: Path, out: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, str(TESTS / "together.py"), str(faces), str(out)],
        env=os.environ | {"PYTHONPATH": f"{TESTS.parent}:{TESTS}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.soak  # gloo aborted once in a while as a process left
def test_two_processes_give_the_result_of_one(trained: Path, tmp_path: Path) -> None:
    options = replace(tiny_options(trained / "faces", tmp_path / "alone"), amp=False)
    alone = load_checkpoint(train(options, replace(TINY, norm="layer")).checkpoint)
    together = load_checkpoint(trained / "steps" / "best.safetensors")
    for key, value in alone.state.items():
        # Adam turns the rounding of a gradient near 0 into a part of its step of 1e-3.
        torch.testing.assert_close(together.state[key], value, atol=1e-4, rtol=1e-3)


@pytest.mark.soak
def test_the_leaders_clock_decides_for_all(trained: Path) -> None:
    leader, other = ((trained / f"minutes-{who}").read_text() for who in ("leader", "other"))
    assert int(leader) == int(other) > 0


def test_each_process_has_its_share_of_the_batch() -> None:
    batch = torch.arange(6)
    shares = [World(rank, 3).share(batch) for rank in range(3)]
    assert sorted(torch.cat(shares).tolist()) == batch.tolist()
    assert {len(share) for share in shares} == {2}


def test_a_batch_that_does_not_divide_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with (
        pytest.raises(EdgeError, match=r"does not divide among 3 .*--batch 33") as refused,
        join_world(32, "cpu"),
    ):
        pass
    assert refused.value.status == EXIT_USAGE
