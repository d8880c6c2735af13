"""State dicts of other trainers become checkpoints; code in a file is never run."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from aminet.checkpoint import load_model
from aminet.config import MODELS
from aminet.convert import main, strip_prefixes
from aminet.train import train
from runtime.errors import EXIT_ERROR
from tiny_networks import BATCHED, network
from tiny_training import TINY, tiny_options, write_disks

STATE = network(BATCHED).state_dict()
OTHER = {key: torch.zeros_like(value) for key, value in STATE.items()}


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "tiny", BATCHED)


def converted(path: Path, *words: str) -> int:
    return main(
        [str(path), "--model", "tiny", "--out", str(path.with_name("out.safetensors")), *words]
    )


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (STATE, ""),
        ({f"module.{k}": v for k, v in STATE.items()}, ""),
        ({f"_orig_mod.{k}": v for k, v in STATE.items()}, ""),
        ({"state_dict": {f"module._orig_mod.{k}": v for k, v in STATE.items()}}, "state_dict"),
        ({"params": OTHER, "params_ema": STATE, "epoch": 3}, "params_ema"),
        ({"model": {k: v.half() for k, v in STATE.items()}, "ema": {}}, "model"),
    ],
)
def test_state_dicts_become_checkpoints(
    content: dict[str, object], key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(content, tmp_path / "theirs.pth")
    assert converted(tmp_path / "theirs.pth", "--json") == 0
    assert json.loads(capsys.readouterr().out)["weights_of"] == key
    found, checkpoint = load_model(checkpoint=tmp_path / "out.safetensors")
    assert checkpoint.model == "tiny"
    for name, value in found.state_dict().items():
        torch.testing.assert_close(value, STATE[name], atol=2e-3, rtol=2e-3)


def test_safetensors_without_a_config_and_a_runs_state_are_taken(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "theirs.safetensors")
    assert converted(tmp_path / "theirs.safetensors") == 0
    run = replace(tiny_options(write_disks(tmp_path, 4), tmp_path / "run"), steps=1)
    train(run, TINY)
    MODELS["tiny"] = TINY
    assert converted(tmp_path / "run" / "state.safetensors") == 0


class Code:
    """What a pickle could run."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("run_by_the_pickle"),)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"state_dict": Code()}, "not a plain state dict"),
        ([1, 2], "no dict of tensors"),
        ({"epoch": 3}, "holds no state dict"),
        ({k: v for k, v in STATE.items() if "exit" not in k}, r"do not fit its config at exit"),
        ({k: v * float("nan") for k, v in STATE.items()}, "not finite"),
    ],
)
def test_what_is_no_such_state_dict_is_one_line(
    content: object,
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, "theirs.pth")
    assert converted(Path("theirs.pth")) == EXIT_ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["theirs.pth"]


def test_inner_compile_prefixes_go_too() -> None:
    assert strip_prefixes("module.encoders.0._orig_mod.block.norm") == "encoders.0.block.norm"
