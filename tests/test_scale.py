"""docs/scale.md: each command of the page is run on a few faces."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tiny_artifact
from runtime.image import decode_image, write_image
from test_shards import names, write_shard

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "scale.md").read_text()
COMMANDS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
SLURM = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "1"}


def commands(word):
    found = [command for command in COMMANDS if word in command]
    assert found, f"no command with {word} in docs/scale.md"
    return "\n".join(found)


def shell(script, folder, timeout=120):
    """Run it where an artifact and faces/ are, with this Python and this checkout."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, **SLURM, "PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["sh", "-e", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def place(tmp_path, artifact):
    (tmp_path / "faces").mkdir()
    return tmp_path


SHELLS = ["results.jsonl", "for shard in"]
SHELLS += [pytest.param(word, marks=pytest.mark.soak) for word in ("SLURM", "xargs")]


@pytest.mark.parametrize("word", SHELLS)
def test_the_commands_for_shells_upscale_each_file_once(place, word):
    pytest.importorskip("pyarrow", reason="the extra scale is not installed")
    for name in ("a.tar", "b.tar", "c.parquet", "d.parquet"):
        write_shard(place / "faces" / name, 3)
    script = commands(word)
    shell(script, place)
    expected = {
        path.with_stem(f"{path.stem}_sr").name
        for path in (place / "faces").iterdir()
        if f"*{path.suffix}" in script
    }
    assert {path.name for path in (place / "sr").iterdir()} == expected
    assert all(len(names(path)) == 3 for path in (place / "sr").iterdir())


@pytest.mark.parametrize("suffix", [".parquet", pytest.param(".tar", marks=pytest.mark.soak)])
def test_ray_upscales_parquet_files_and_tars(place, suffix):
    """A damaged face is a row that says why."""
    pytest.importorskip("ray", reason="the extra scale is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    write_shard(place / "faces" / f"a{suffix}", 9, damaged=4)
    script = commands("ray_data").replace("examples/", f"{ROOT}/examples/")
    shell(script.replace("upscaled/", f"upscaled/ {place}/artifacts/aminet-edge/fp32.onnx"), place)
    rows = parquet.read_table(place / "upscaled").to_pylist()
    assert len(rows) == 9
    (bad,) = (row for row in rows if row["image"] is None)
    assert "is not an image" in bad["error"]
    good = [decode_image(row["image"], "sr") for row in rows if row["error"] is None]
    assert [face.shape for face in good] == [(128, 128, 3)] * 8


def test_the_command_that_trains_is_one(capsys):
    from aminet.training.options import build_parser

    (line,) = commands("torchrun").splitlines()
    launcher, _, arguments = line.partition(" -m aminet.train ")
    assert launcher.startswith("torchrun --standalone --nproc-per-node 2")
    build_parser().parse_args(arguments.split())


@pytest.mark.soak  # gloo aborted once in a while as a process left
def test_the_command_that_trains_writes_a_checkpoint(place):
    for number, face in enumerate(tiny_artifact.faces(8, side=128)):
        write_image(place / "faces" / f"{number}.png", face)
    shell(commands("torchrun"), place, timeout=600)
    assert (place / "runs" / "two" / "best.safetensors").exists()
