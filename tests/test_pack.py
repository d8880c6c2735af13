"""A pack for a device: its own README's commands work, in an environment without torch or onnx."""

import os
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import onnx
import pytest

import tiny_artifact
from export import pack
from quantize.fp16_passes import to_half
from runtime.errors import EXIT_DRIFT, EdgeError
from runtime.image import read_image
from runtime.manifest import read_manifest
from test_wheel import PACKAGES, PROJECT, ROOT, build

# Python without what a device does not have; runs a module as `python -m` does.
BARE = """
import runpy, sys
sys.modules.update(torch=None, onnx=None)
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A folder with all the files that any target takes, of one tiny network."""
    folder = tmp_path_factory.mktemp("tiny")
    fp32 = tiny_artifact.build()
    int8 = tiny_artifact.build(tiny_artifact.INT8, tiny_artifact.quantized_weights())
    signed = {**tiny_artifact.quantized_weights(), "feature_zero": np.int8(0)}
    int8_trt = tiny_artifact.build(tiny_artifact.INT8, signed)
    files = {"fp32": fp32, "fp16-trt": half(fp32), "int8": int8}
    files.update({"int8-trt": int8_trt, "int8-trt-fp16": half(int8_trt)})
    for name, model in files.items():
        precision = name.partition("-")[0]
        tiny_artifact.write_artifact(
            folder, f"{name}.onnx", model, precision=precision, executes_as=precision
        )
    return folder


def half(model):
    return to_half(onnx.load_model_from_string(model)).SerializeToString()


@pytest.fixture(scope="module")
def wheel(sources, tmp_path_factory):
    """The project's wheel, with the tiny network as the model inside."""
    project = tmp_path_factory.mktemp("project")
    for name in PROJECT:
        shutil.copy(ROOT / name, project)
    for name in PACKAGES:
        ignored = shutil.ignore_patterns("models", "__pycache__")
        shutil.copytree(ROOT / name, project / name, ignore=ignored)
    inside = project / "runtime" / "models" / "aminet-edge"
    inside.mkdir(parents=True)
    for name in ("int8.onnx", "int8.onnx.json", "probes.npz"):
        shutil.copy(sources / name, inside)
    built = build(project)
    assert built.returncode == 0, built.stderr
    (path,) = (project / "dist").glob("*.whl")
    return path


def commands(readme):
    """The commands in a README that are Python's, as lists of words."""
    lines = [line[4:] for line in readme.splitlines() if line.startswith("    python -m ")]
    return [line.replace('"', "").split()[2:] for line in lines]


@pytest.mark.parametrize("target", ["tensorrt", "cpu"])
def test_an_unpacked_pack_runs_by_its_own_readme(sources, wheel, tmp_path, target):
    made = pack.pack(target, sources, wheel, tmp_path / "pack.zip")
    zipfile.ZipFile(made.archive).extractall(tmp_path)
    readme = (tmp_path / "README.md").read_text()
    install, *rest = commands(readme)
    assert install[:2] == ["pip", "install"]
    assert (tmp_path / install[2]).is_file()
    offline = ["--quiet", "--no-deps", "--no-index", "--no-compile", "--target", "site"]
    command = [sys.executable, "-m", "pip", "install", *offline, install[2]]
    subprocess.run(command, cwd=tmp_path, check=True)
    run = [words for words in rest if "onnxruntime" in words]
    assert {words[0] for words in run} == {"runtime.check", "runtime.infer"}
    for words in run:
        done = subprocess.run(
            [sys.executable, "-c", BARE, *words],
            cwd=tmp_path,
            env={"PYTHONPATH": str(tmp_path / "site"), "XDG_CACHE_HOME": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    assert read_image(tmp_path / "face_sr.png").shape == (128, 128, 3)


def test_the_commands_for_tensorrt_build_all_files(sources, wheel, tmp_path):
    """With TensorRT-RTX here, of the wheel's own code."""
    made = pack.pack("tensorrt", sources, wheel, tmp_path / "pack.zip")
    zipfile.ZipFile(made.archive).extractall(tmp_path)
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    (words,) = [w for w in commands((tmp_path / "README.md").read_text()) if "export" in w[0]]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-m", *words]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    engines = sorted(path.stem for path in tmp_path.glob("tiny/trt/*/*.engine"))
    assert engines == ["fp16-trt", "fp32", "int8-trt", "int8-trt-fp16"]


def test_a_pack_holds_the_target_s_files_and_is_the_same_each_time(sources, wheel, tmp_path):
    first = pack.pack("cpu", sources, wheel, tmp_path / "a.zip")
    second = pack.pack("cpu", sources, wheel, tmp_path / "b.zip")
    assert first.sha256 == second.sha256
    onnx_files = {name for name in first.files if name.endswith(".onnx")}
    assert onnx_files == {"tiny/fp32.onnx", "tiny/int8.onnx"}
    assert {f"{name}.json" for name in onnx_files} | {"tiny/probes.npz"} <= set(first.files)
    with zipfile.ZipFile(first.archive) as archive:
        (tmp_path / "int8.onnx.json").write_bytes(archive.read("tiny/int8.onnx.json"))
    assert read_manifest(tmp_path / "int8.onnx") == read_manifest(sources / "int8.onnx")


def test_what_is_missing_or_would_not_do_is_not_packed(sources, wheel, tmp_path, monkeypatch):
    folder, out = tmp_path / "tiny", tmp_path / "pack.zip"
    shutil.copytree(sources, folder)
    uint8 = (folder / "int8.onnx").read_bytes()
    tiny_artifact.write_artifact(
        folder, "int8-trt.onnx", uint8, precision="int8", executes_as="int8"
    )
    with pytest.raises(EdgeError, match=r"int8-trt\.onnx: .* is uint8") as caught:
        pack.pack("tensorrt", folder, wheel, out)
    assert caught.value.status == EXIT_DRIFT
    (folder / "int8-trt.onnx").unlink()
    with pytest.raises(EdgeError, match=r"int8-trt\.onnx: not found. Create it with: python -m"):
        pack.pack("tensorrt", folder, wheel, out)
    tiny_artifact.write_artifact(
        folder, "int8.onnx", uint8, precision="int8", executes_as="int8", checkpoint_sha256="0" * 64
    )
    with pytest.raises(EdgeError, match="holds files of different weights"):
        pack.pack("cpu", folder, wheel, out)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EdgeError, match=r"dist/ holds 0 wheels.* make wheel"):
        pack.pack("cpu", sources, out=out)
    assert not out.exists()
