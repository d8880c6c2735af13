"""Checkpoints carry their config, and one that does not fit is refused by what differs."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from aminet import checkpoint as checkpoints
from aminet.blocks import LGFI
from aminet.checkpoint import load_checkpoint, load_model, require_config, save_checkpoint
from aminet.config import LR_SIDE, MODELS, ModelConfig
from aminet.model import AMINet
from runtime.errors import EdgeError

CALIBRATION = Path(__file__).parent.parent / "calib_data"
TINY = ModelConfig(channels=(8, 16), heads=(1, 2), refine_convs=(1, 1), hourglass=(1, 0), side=16)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "tiny.safetensors"
    metrics = {"celeba-val/psnr_y": 27.0}
    save_checkpoint(path, AMINet(TINY), TINY, name="tiny", metrics=metrics, training={"steps": 3})
    return path


def test_checkpoint_gives_back_network_config_and_metrics(saved: Path) -> None:
    network, loaded = load_model(checkpoint=saved)
    assert loaded.config == TINY
    assert loaded.model == "tiny"
    assert loaded.metrics == {"celeba-val/psnr_y": 27.0}
    assert loaded.training == {"steps": 3}
    assert not loaded.random_weights
    assert not network.training
    torch.manual_seed(0)
    for ours, theirs in zip(AMINet(TINY).parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_half_precision_file_is_half_the_size_and_loads_as_float32(
    saved: Path, tmp_path: Path
) -> None:
    network, _ = load_model(checkpoint=saved)
    half = tmp_path / "half.safetensors"
    save_checkpoint(half, network, TINY, name="tiny", dtype=torch.float16)
    assert half.stat().st_size < 0.6 * saved.stat().st_size
    loaded, _ = load_model(checkpoint=half)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


def test_checkpoint_of_another_config_is_refused_by_field(saved: Path) -> None:
    other = dataclasses.replace(TINY, channels=(12, 16), norm="batch")
    with pytest.raises(EdgeError, match=r"channels \(8, 16\) \(expected \(12, 16\)\); norm layer"):
        require_config(load_checkpoint(saved), other, "other")
    with pytest.raises(EdgeError, match="not of model aminet-edge: channels"):
        load_model("aminet-edge", saved)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "not a whole safetensors file"),
        (b"this is text, not weights", "not a whole safetensors file"),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path: Path, content: bytes, named: str) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(EdgeError, match=named):
        load_checkpoint(path)


def test_truncated_checkpoint_is_named(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(EdgeError, match="not a whole safetensors file"):
        load_checkpoint(saved)


def test_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match="no such file"):
        load_checkpoint(tmp_path / "nowhere.safetensors")


def test_foreign_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(
        EdgeError, match=r"tensors without a config; convert it: python -m aminet\.convert"
    ):
        load_checkpoint(path)


def test_files_of_torch_save_and_of_resume_are_named(saved: Path, tmp_path: Path) -> None:
    old, state = tmp_path / "old.pth", tmp_path / "state.safetensors"
    torch.save({"weight": torch.zeros(2)}, old)
    with pytest.raises(
        EdgeError, match=r"a file of torch\.save; convert it: .* --out .*safetensors"
    ):
        load_checkpoint(old)
    parts = {
        f"{part}.{k}": v
        for part in ("network", "average")
        for k, v in AMINet(TINY).state_dict().items()
    }
    save_checkpoint(state, parts, TINY, name="tiny")
    with pytest.raises(
        EdgeError, match=r"--resume goes on from, not weights; .* best\.safetensors"
    ):
        load_model(checkpoint=state)


def test_weights_that_are_not_finite_are_named(tmp_path: Path) -> None:
    network, path = AMINet(TINY), tmp_path / "nan.safetensors"
    network.exit.conv.bias.data[1] = float("nan")
    save_checkpoint(path, network, TINY, name="tiny")
    with pytest.raises(EdgeError, match=r"not finite at exit\.conv\.bias \(1 of \d+ tensors\)"):
        load_model(checkpoint=path)


def test_weights_that_do_not_fit_their_own_config_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    wider = dataclasses.replace(TINY, channels=(8, 24))
    save_checkpoint(path, AMINet(TINY), wider, name="odd")
    with pytest.raises(EdgeError, match="do not fit its config"):
        load_model(checkpoint=path)


@pytest.mark.parametrize(
    "about", ["{", "[]", json.dumps({"model": "odd"}), json.dumps({"config": {"heads": [1]}})]
)
def test_damaged_description_is_named(tmp_path: Path, about: str) -> None:
    path = tmp_path / "odd.safetensors"
    save_file({"weight": torch.zeros(2)}, path, {checkpoints.KEY: about})
    with pytest.raises(EdgeError, match="damaged checkpoint"):
        load_checkpoint(path)


def test_same_weights_make_the_same_file(saved: Path, tmp_path: Path) -> None:
    network, loaded = load_model(checkpoint=saved)
    again = tmp_path / "again.safetensors"
    about = {"metrics": loaded.metrics, "training": loaded.training}
    for _ in range(5):
        save_checkpoint(again, network, TINY, name="tiny", **about)
        assert again.read_bytes() == saved.read_bytes()


def test_unknown_model_names_the_known_ones() -> None:
    with pytest.raises(EdgeError, match="aminet-edge"):
        load_model("aminet-xl")


def test_model_without_weights_names_the_training_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "WEIGHTS", tmp_path)
    with pytest.raises(EdgeError, match=r"python -m aminet\.train .*--model aminet"):
        load_model("aminet")


def test_random_weights_are_marked_and_repeat() -> None:
    first, loaded = load_model("aminet-edge", random_seed=1)
    second, again = load_model("aminet-edge", random_seed=1)
    _, other = load_model("aminet-edge", random_seed=2)
    assert loaded.random_weights
    assert loaded.sha256 == again.sha256 != other.sha256
    lr = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(first(lr), second(lr))


@pytest.mark.parametrize("model", MODELS)
def test_committed_weights_fit_their_config(model: str) -> None:
    if not checkpoints.weights_path(model).is_file():
        pytest.skip(f"{model} has no committed weights yet")
    _, loaded = load_model(model)
    assert loaded.config == MODELS[model]
    if loaded.config.lr_side == LR_SIDE:
        assert loaded.metrics["celeba-val/psnr_y"] > 25
    else:  # better than bicubic upscaling for every size and kind of degraded faces
        gains = [gain for name, gain in loaded.metrics.items() if "/gain/" in name]
        assert len(gains) >= 12
        assert min(gains) > 0


@pytest.mark.parametrize("model", MODELS)
def test_every_block_of_committed_weights_changes_the_face(model: str) -> None:
    """One that does not costs its milliseconds for nothing: leave it out of the config.

    Levels that rested during the first stages have begun to.
    """
    if not checkpoints.weights_path(model).is_file():
        pytest.skip(f"{model} has no committed weights yet")
    network, loaded = load_model(model)
    rested = any(stage.get("rest") for stage in loaded.training["stages"])
    faces = np.stack([np.asarray(Image.open(path)) for path in sorted(CALIBRATION.glob("*.png"))])
    lr = torch.from_numpy(faces[:16]).permute(0, 3, 1, 2).float() / 255
    side = network.config.lr_side
    lr = torch.nn.functional.interpolate(lr, (side, side), mode="bicubic").clamp(0, 1)
    with torch.inference_mode():
        whole = network(lr)
        for name, block in network.named_modules():
            if not isinstance(block, LGFI):
                continue
            left_out = block.register_forward_hook(lambda _block, inputs, _output: inputs[0])
            difference_db = -10 * float((network(lr) - whole).square().mean().log10())
            left_out.remove()
            assert difference_db < (70 if rested else 45), f"{name} does nothing"
