"""Released weights are rounded, measured and described; worse ones do not replace better ones."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from aminet import checkpoint as checkpoints
from aminet.checkpoint import load_checkpoint, save_checkpoint
from aminet.config import MODELS, NATURAL, ModelConfig
from aminet.model import AMINet
from aminet.training.logbook import append
from aminet.training.lpips import LPIPS
from benchmarks import model_card, results, wild
from benchmarks.metrics.quality import QualityRow, quality_table
from benchmarks.release import release, write_curve
from runtime.activation_ranges import ActivationRanges
from runtime.errors import EdgeError

TINY = ModelConfig(channels=(8, 16), heads=(1, 2), refine_convs=(1, 1), hourglass=(1, 0), side=16)
QAT_STAGE = {"steps": 3, "minutes": 1, "batch": 8, "gan": None, "qat": True}


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of a model `tiny`, released into a folder of its own."""
    monkeypatch.setattr(checkpoints, "WEIGHTS", tmp_path / "weights")
    monkeypatch.setitem(MODELS, "tiny", TINY)
    path = tmp_path / "best.safetensors"
    stages = [
        {"steps": 7, "minutes": 0.25, "batch": 4, "rate": 1e-3, "loss": "l1", "data": ["a.tar"]},
        {"steps": 2, "minutes": 0.05, "batch": 8, "rate": 5e-4, "loss": "l2", "data": ["b.tar"]},
    ]
    training = {"stages": stages, "device_used": "cpu", "torch": "2"}
    save_checkpoint(path, AMINet(TINY), TINY, name="tiny", training=training)
    return path


def test_release_writes_fp16_weights_with_their_quality(trained: Path, hr_faces: Path) -> None:
    result = release(trained, [hr_faces])
    released = load_checkpoint(result.weights)
    assert Path(result.weights).stat().st_size < 0.6 * trained.stat().st_size
    assert released.sha256 == result.sha256
    assert released.metrics["hr/psnr_y"] == pytest.approx(result.rows[-1].psnr_y, abs=1e-3)
    assert set(released.metrics) == {"hr/psnr_y", "hr/ssim_y"}


def test_the_paper_s_networks_trained_on_a_cpu_are_called_a_beginning(
    trained: Path, hr_faces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "A beginning" not in Path(release(trained, [hr_faces]).card).read_text()
    monkeypatch.setitem(model_card.PAPER_GAIN_DB, "tiny", 4.32)
    card = Path(release(trained, [hr_faces], force=True).card).read_text()
    assert "trained for 0.0 hours on one CPU. The paper's network gains 4.32 dB" in card


def test_minutes_on_a_gpu_are_told_from_those_on_a_cpu(trained: Path, hr_faces: Path) -> None:
    start = load_checkpoint(trained)
    start.training["stages"][1]["trained_on"] = "cuda"
    save_checkpoint(trained, start.state, start.config, name="tiny", training=start.training)
    card = Path(release(trained, [hr_faces]).card).read_text()
    assert "0.2 minutes on cpu, 0.1 minutes on cuda" in card
    assert "| 2 | 2 | 0.05 | cuda | l2 |" in card


def test_card_says_what_the_weights_are(trained: Path, hr_faces: Path) -> None:
    result = release(trained, [hr_faces])
    card = Path(result.card).read_text()
    assert result.sha256 in card
    assert "9 steps, 44 faces seen, 0.3 minutes on cpu" in card
    assert "| stage | steps | minutes | loss | rate | batch |" in card
    assert "| 2 | 2 | 0.05 | l2 | 0.0005 | 8 |" in card
    assert '- data: ["b.tar"]' in card
    assert "not for identifying anyone" in card
    assert "research, non-commercial" in card
    assert quality_table(result.rows) in card


def test_table_has_the_gain_over_bicubic() -> None:
    rows = [
        QualityRow("bicubic", "pillow", "val", 9, psnr_y=23.0, ssim_y=0.6, psnr_rgb=22.0),
        QualityRow("tiny", "torch", "val", 9, psnr_y=26.5, ssim_y=0.75, psnr_rgb=25.0, gain=3.5),
    ]
    last = quality_table(rows).splitlines()[-1]
    assert last == "| val | 9 | **26.50** | 23.00 | +3.50 | 0.750 | 0.600 |"


def test_weights_that_are_no_better_are_refused(trained: Path, hr_faces: Path) -> None:
    first = release(trained, [hr_faces])
    before = Path(first.weights).read_bytes()
    with pytest.raises(EdgeError, match="train on, or --force"):
        release(trained, [hr_faces])
    assert Path(first.weights).read_bytes() == before
    assert release(trained, [hr_faces], force=True).sha256 == first.sha256


def test_weights_of_another_config_are_refused(
    trained: Path, hr_faces: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.safetensors"
    wider = ModelConfig(**{**TINY.to_dict(), "channels": (16, 16)})
    torch.manual_seed(0)
    save_checkpoint(other, AMINet(wider), wider, name="tiny")
    with pytest.raises(EdgeError, match="channels"):
        release(other, [hr_faces])
    assert not (tmp_path / "weights").exists()


def test_weights_of_unknown_training_are_refused(trained: Path, hr_faces: Path) -> None:
    save_checkpoint(trained, AMINet(TINY), TINY, name="tiny")
    with pytest.raises(EdgeError, match="has no training record"):
        release(trained, [hr_faces])


def test_weights_for_degraded_faces_are_measured_in_every_cell(
    trained: Path, hr_faces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random ones are worse than bicubic upscaling somewhere, which is refused."""
    config = replace(TINY, lr_side=32)
    monkeypatch.setitem(MODELS, "tiny", config)
    monkeypatch.setattr(wild, "SIZES", (16, 32))
    training = load_checkpoint(trained).training
    torch.manual_seed(0)
    network = AMINet(config)
    torch.nn.init.normal_(network.exit.conv.weight, std=0.1)
    metrics = {"validation/psnr_y": 30.0}
    save_checkpoint(trained, network, config, name="tiny", metrics=metrics, training=training)
    with pytest.raises(EdgeError, match=r"bicubic upscaling is better in \d+ cells, .* hr/gain"):
        release(trained, [hr_faces], faces=2)
    result = release(trained, [hr_faces], faces=2, force=True)
    released = load_checkpoint(result.weights)
    cells = {f"{kind}-{size}" for kind in ("clean", "camera", "dark") for size in (16, 32)}
    assert set(released.metrics) == {
        *(f"hr/gain/{cell}" for cell in cells),
        *("hr/gain", "validation/psnr_y"),
    }
    card = Path(result.card).read_text()
    assert "a face of 10 to 64 px, resampled to 64x64, to 128x128" in card
    assert "| dark | tiny |" in card


@pytest.fixture
def natural_and_sharp(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int, float, float], None]:
    """Release `natural`, 4 levels too dark, and write `tiny`, its sharp version, too light.

    LPIPS of dark faces is 0.4, of light ones it is given.
    """

    def make(lr_side: int, levels: float, lpips: float) -> None:
        config = replace(TINY, lr_side=lr_side)
        monkeypatch.setattr(wild, "SIZES", (16,))
        for name, off in (("natural", -4), ("tiny", levels)):
            monkeypatch.setitem(MODELS, name, config)
            network = AMINet(config)
            torch.nn.init.constant_(network.exit.conv.bias, off / 255)
            path = checkpoints.weights_path("natural") if name == "natural" else trained
            path.parent.mkdir(exist_ok=True)
            training = {"stages": [{"steps": 7, "minutes": 1, "batch": 4, "gan": {"patch": 64}}]}
            training |= {"device_used": "cpu", "torch": "2"}
            save_checkpoint(path, network, config, name=name, training=training)
        monkeypatch.setitem(NATURAL, "tiny", "natural")

        def distance(sr: np.ndarray, hr: np.ndarray) -> np.ndarray:
            return np.where(sr.mean((1, 2, 3)) < hr.mean((1, 2, 3)), 0.4, lpips)

        monkeypatch.setattr(LPIPS, "load", lambda: distance)

    return make


@pytest.mark.parametrize("lr_side", [16, 64])
def test_sharp_weights_are_measured_beside_the_natural_model(
    lr_side: int, natural_and_sharp, trained: Path, hr_faces: Path
) -> None:
    natural_and_sharp(lr_side, 3, 0.2)
    released = load_checkpoint(release(trained, [hr_faces]).weights)
    assert released.metrics["hr/lpips"] == pytest.approx(0.2)
    card = Path(released.path).with_suffix(".md").read_text()
    assert "The sharp version of natural" in card
    assert '- gan: {"patch": 64}' in card
    assert all(f"| {name} |" in card for name in ("natural", "tiny"))
    (line,) = results.sharp_table().splitlines()[2:]
    assert re.fullmatch(
        r"\| tiny \| hr \| [+-]\d.\d\d dB \| 0.200 \(-50%\) \| natural \| 0.400 \|", line
    )
    with pytest.raises(EdgeError, match=r"hr/lpips is 0.200, the new weights' 0.200"):
        release(trained, [hr_faces])
    again, layer = load_checkpoint(trained), {"conv": ("in", "out")}
    ranges = ActivationRanges(layer, {"in": (0.0, 1.0), "out": (0.0, 1.0)}, {})
    training = {**again.training, "stages": [*again.training["stages"], QAT_STAGE]}
    save_checkpoint(
        trained, again.state, again.config, name="tiny", training=training, ranges=ranges
    )
    card = Path(release(trained, [hr_faces]).card).read_text()  # INT8 gains what they are worth
    assert "| 2 | 3 | 1 | 8 | yes |" in card
    assert '- gan: {"patch": 64}' in card


@pytest.mark.parametrize(
    ("levels", "lpips", "named"),
    [
        (4, 0.32, r"hr/lpips is 80% of the natural model's, expected 75% at most"),
        (8, 0.2, r"PSNR-Y is [3-6]\.\d\d dB below, expected 1.2 at most"),
    ],
)
def test_sharp_weights_that_are_blunt_or_far_from_the_truth_are_refused(
    levels: float, lpips: float, named: str, natural_and_sharp, trained: Path, hr_faces: Path
) -> None:
    natural_and_sharp(16, levels, lpips)
    with pytest.raises(EdgeError, match=named):
        release(trained, [hr_faces])
    assert not checkpoints.weights_path("tiny").exists()


def test_the_learning_curve_of_a_run_is_written(trained: Path, tmp_path: Path) -> None:
    append(tmp_path / "log.jsonl", {"step": 50, "seconds": 60.0, "loss": 0.1})
    validated = {"psnr_y": 31.0, "bicubic_psnr_y": 30.0, "clean-16": 1.25, "dark-16": 0.5}
    append(tmp_path / "log.jsonl", {"step": 60, "seconds": 90.0, **validated, "rate": 1e-3})
    write_curve(trained.parent, tmp_path / "aminet-real-curve.json")
    (point,) = json.loads((tmp_path / "aminet-real-curve.json").read_text())["points"]
    assert point == {"minutes": 1.5, "step": 60, "faces": 480, **validated}
