"""The wheel works by itself: no torch, no onnx, no checkout, and a model inside."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from quantize.int8 import quantize
from quantize.targets import TARGETS
from runtime.image import read_image

ROOT = Path(__file__).parent.parent
PROJECT = (
    "pyproject.toml",
    "hatch_build.py",
    "README.md",
    "LICENSE",
    "THIRD_PARTY.md",
    ".gitignore",
)
PACKAGES = ("aminet", "benchmarks", "calib_data", "export", "quantize", "runtime")
PACKED = Path("runtime", "models", "aminet-edge")
MODEL_FILES = ("int8.onnx", "int8.onnx.json", "probes.npz")

# What `python -m runtime.infer` does, on a machine where torch and onnx are not installed.
INFER = """
import sys, runpy
sys.modules.update(torch=None, onnx=None)
sys.argv = ["runtime.infer", *sys.argv[1:]]
runpy.run_module("runtime.infer", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of what a wheel is built from, without a model."""
    copy = tmp_path_factory.mktemp("project")
    for name in PROJECT:
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, copy)
    for name in PACKAGES:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, copy / name, ignore=shutil.ignore_patterns("models", "__pycache__")
            )
    return copy


@pytest.fixture(scope="module")
def wheel(project, edge_artifact):
    """The wheel with aminet-edge inside, exported and quantized."""
    quantize(edge_artifact, [ROOT / "calib_data"], [TARGETS["cpu"]])
    folder = project / PACKED
    folder.mkdir(parents=True)
    for name in MODEL_FILES:
        shutil.copy(edge_artifact.parent / name, folder)
    built = build(project)
    shutil.rmtree(folder)
    assert built.returncode == 0, built.stderr
    (path,) = (project / "dist").glob("*.whl")
    return path


def build(project):
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel"]
    return subprocess.run(command, cwd=project, capture_output=True, text=True)


def test_a_wheel_without_the_model_is_not_built(project):
    built = build(project)
    assert built.returncode != 0
    (line,) = built.stderr.splitlines()
    assert line.startswith("error: ")
    assert "int8.onnx, int8.onnx.json, probes.npz" in line
    assert line.endswith("make wheel")
    assert not list((project / "dist").glob("*.whl"))


def test_wheel_holds_model_weights_and_faces_of_nobody_but_no_tests(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"{PACKED.as_posix()}/{name}" for name in MODEL_FILES} <= names
    assert {"calib_data/face-000.png", "calib_data/statistics.npz", "calib_data/README.md"} <= names
    assert "export/probe_faces.png" in names
    assert not [name for name in names if name.startswith(("tests/", ".", "artifacts/"))]
    assert not [name for name in names if name.endswith("fp32.onnx")]
    assert wheel.stat().st_size < 20e6


def test_installed_wheel_enlarges_a_face_by_itself(wheel, tmp_path):
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--no-compile", "--target", site, wheel], check=True)
    elsewhere.mkdir()
    shutil.copy(site / "calib_data" / "face-000.png", elsewhere)

    done = subprocess.run(
        [sys.executable, "-c", INFER, "face-000.png", "--json"],
        cwd=elsewhere,
        env={"PYTHONPATH": str(site), "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert Path(report["artifact"]).is_relative_to(site)
    assert read_image(elsewhere / "face-000_sr.png").shape == (128, 128, 3)
