"""The wheel works on its own: no torch, no onnx, no checkout, and a model inside."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from runtime.errors import EXIT_MISSING, EXIT_USAGE
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

# The console script, on a machine where torch and onnx are not installed.
SCRIPT = """
import sys
sys.modules.update(torch=None, onnx=None)
from runtime.cli import main
sys.exit(main())
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
def wheel(project, edge_int8):
    """The wheel with aminet-edge inside, exported and quantized."""
    folder = project / PACKED
    folder.mkdir(parents=True)
    for name in MODEL_FILES:
        shutil.copy(edge_int8.parent / name, folder)
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


def test_the_wheel_holds_the_model_and_nothing_that_only_a_checkout_needs(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"{PACKED.as_posix()}/{name}" for name in MODEL_FILES} <= names
    assert {"export/probe_faces.png", "export/face.png", "runtime/py.typed"} <= names
    checkout = ("tests/", ".", "artifacts/", "benchmarks/", "calib_data/")
    assert not [name for name in names if name.startswith(checkout)]
    assert not [name for name in names if name.endswith(".safetensors")]
    assert not [name for name in names if name.endswith("fp32.onnx")]
    assert wheel.stat().st_size < 10e6


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory):
    """The wheel, installed into a folder of its own."""
    site = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--no-compile", "--target", site, wheel], check=True)
    return site


def run_script(site, folder, *arguments):
    """The console script in a folder where other packages are called runtime and export."""
    for name in ("runtime", "export"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "__init__.py").write_text("raise SystemExit('the wrong package')")
    return subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT, *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(site), "XDG_CACHE_HOME": str(folder / "cache")},
        capture_output=True,
        text=True,
    )


def test_the_installed_wheel_upscales_a_face(site, tmp_path):
    shutil.copy(site / "export" / "face.png", tmp_path)
    done = run_script(site, tmp_path, "infer", "face.png", "--json")
    assert done.returncode == 0, done.stderr
    assert Path(json.loads(done.stdout)["artifact"]).is_relative_to(site)
    assert read_image(tmp_path / "face_sr.png").shape == (128, 128, 3)


def test_the_script_offers_what_is_installed(site, tmp_path):
    done = run_script(site, tmp_path, "--help")
    assert done.returncode == 0, done.stderr
    assert {"infer", "check", "export", "quantize"} <= set(done.stdout.split())
    assert "benchmarks" not in done.stdout
    absent = run_script(site, tmp_path, "bench")
    assert absent.returncode == EXIT_MISSING
    assert "python -m benchmarks.latency" in absent.stderr
    assert run_script(site, tmp_path, "enlarge").returncode == EXIT_USAGE
    exporting = run_script(site, tmp_path, "export")
    assert (exporting.returncode, exporting.stderr.count("\n")) == (EXIT_MISSING, 1)
    assert "aminet-edge[export]" in exporting.stderr
