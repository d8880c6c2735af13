"""Degraded faces of every size and kind, in one table."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.metrics.wild_upscalers import (
    FrameUpscaler,
    artifact_frames,
    bicubic_frames,
    checkpoint_frames,
    realesrgan_frames,
)
from benchmarks.published import render
from benchmarks.wild import main, table, wild, write_json
from runtime.errors import EXIT_MISSING, EXIT_USAGE, EdgeError
from runtime.image import Pixels
from tiny_artifact import write_artifact
from tiny_networks import BATCHED, write_checkpoint
from tiny_training import write_disks


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_disks(tmp_path_factory.mktemp("faces"), 3)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("weights")
    return [
        str(write_checkpoint(folder / f"{side}.safetensors", replace(BATCHED, lr_side=side)))
        for side in (16, 32)
    ]


def shrunk(face: Pixels, side: int) -> np.ndarray:
    """Means of blocks."""
    step = 128 // side
    return face.reshape(side, step, side, step, 3).mean((1, 3))


def test_every_upscaler_has_a_row_in_every_cell(
    faces: Path, checkpoints: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", str(faces), "--checkpoint", *checkpoints, "--sizes", "12", "40"]
    out = tmp_path / "wild.json"
    assert main([*words, "--kinds", "clean", "dark", "--metrics", "ssim_y", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    rows = json.loads(out.read_text())["rows"]
    assert len(rows) == 2 * 2 * 3
    assert len({(row["kind"], row["size"], row["upscaler"]) for row in rows}) == len(rows)
    assert all(row["gain"] == 0 for row in rows if row["upscaler"] == "bicubic")
    assert all(row["n"] == 3 and row["ssim_y"] is not None for row in rows)
    assert "| clean | tiny 16 at 16 px + back-projection |" in shown
    assert "| dark | tiny 32 |" in shown
    assert "lpips" not in shown


def test_the_same_seed_gives_the_same_table(faces: Path) -> None:
    with bicubic_frames() as bicubic:
        first, second, other = (
            wild([faces], [bicubic], sizes=[20], kinds=["camera"], seed=seed) for seed in (1, 1, 2)
        )
    assert first == second
    assert first.rows[0].psnr_y != other.rows[0].psnr_y


def test_turned_faces_are_other_faces(faces: Path) -> None:
    with bicubic_frames() as bicubic:
        upright, turned = (
            wild([faces], [bicubic], sizes=[20], kinds=["clean"], turned=degrees).rows[0].psnr_y
            for degrees in (0.0, 15.0)
        )
    assert upright != turned
    assert upright == pytest.approx(turned, abs=2)


def test_a_16_px_network_keeps_what_the_frame_knows(checkpoints: list[str]) -> None:
    """Back-projection: shrunk again, its face is the frame."""
    frame = np.random.default_rng(0).integers(60, 200, (64, 64, 3), dtype=np.uint8)
    means = []
    for path in checkpoints:
        with checkpoint_frames(path) as upscaler:
            (sr,) = upscaler.upscale_all([frame])
        means.append(float(np.abs(shrunk(sr, 64) - frame).mean()))
    assert means[0] < means[1] / 2


def test_photo_mode_keeps_what_a_clean_frame_knows(checkpoints: list[str]) -> None:
    """Of a 32-px network it is asked for, and has a row of its own."""
    rows, columns = np.mgrid[:24, :24] * 8
    frame = np.stack([rows, columns, rows], -1).astype(np.uint8)
    with (
        checkpoint_frames(checkpoints[1]) as alone,
        checkpoint_frames(checkpoints[1], back_projected=True) as corrected,
    ):
        assert (alone.name, corrected.name) == ("tiny 32", "tiny 32 + back-projection")
        assert not np.array_equal(alone.upscale_all([frame]), corrected.upscale_all([frame]))


def test_an_artifact_upscales_frames_of_any_size(tmp_path: Path) -> None:
    with artifact_frames(write_artifact(tmp_path)) as upscaler:
        for side in (8, 40):
            frames = [np.full((side, side, 3), 90, np.uint8)] * 17
            assert upscaler.upscale_all(frames).shape == (17, 128, 128, 3)


def test_realesrgan_that_was_not_fetched_is_named() -> None:
    with (
        pytest.raises(EdgeError, match=r"ncnn|benchmarks\.fetch") as missing,
        realesrgan_frames(),
    ):
        pass
    assert missing.value.status == EXIT_MISSING


@pytest.mark.parametrize(
    "words", [["--faces", "0"], ["--sizes", "2"], ["--kinds", "foggy"], ["--metrics", "vmaf"]]
)
def test_options_out_of_range_are_usage_errors(faces: Path, words: list[str]) -> None:
    try:
        status = main(["--data", str(faces), *words])
    except SystemExit as refused:  # argparse's
        status = refused.code
    assert status == EXIT_USAGE


def test_worse_counts_the_faces_that_bicubic_serves_better(faces: Path) -> None:
    """Black pictures lose on every face."""
    black = FrameUpscaler("black", "", lambda f: np.zeros((len(f), 128, 128, 3), np.uint8))
    (row,) = wild([faces], [black], sizes=[16], kinds=["clean"]).rows
    assert row.worse == 1
    assert row.gain_interval[0] <= row.gain <= row.gain_interval[1] < 0
    assert "| clean | black |" in table([row])


def test_published_tables_are_made_of_the_json(faces: Path, tmp_path: Path) -> None:
    """Gains asked and measured, and those of turned faces beside upright ones."""
    with bicubic_frames() as bicubic:
        ours = replace(bicubic, name="aminet-real", backend="torch")
        result = wild([faces], [bicubic, ours], sizes=[16, 32], kinds=["clean"])
    rows = tuple(replace(row, data="celeba-test") for row in result.rows)
    photo_mode = {"upscaler": "aminet-real + back-projection", "gain": -1.0}
    rows += tuple(replace(row, **photo_mode) for row in rows if row.upscaler == "aminet-real")
    write_json(tmp_path / "wild.json", replace(result, rows=rows))
    write_json(tmp_path / "wild-turned.json", replace(result, rows=rows[:2], turn=15.0))
    assert "| clean | aminet-real | +0.00 | +0.00 |" in render("wild", tmp_path)
    assert render("wild-asked", tmp_path).splitlines()[2:] == [
        "| clean 16 px | +2.9 | +3.4 | +0.00 | -1.00 |",
        "| clean 32 px | +2.2 | +2.7 | +0.00 | -1.00 |",
    ]
    assert render("poses", tmp_path).splitlines()[0].endswith("| turned by 15 degrees |")
    assert "| celeba-test | clean | 16 px | aminet-real | +0.00 | +0.00 |" in render(
        "poses", tmp_path
    )
