"""Packs for phones and boards: what is in them, and that their samples run the probes first."""

import os
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export import pack
from export.pack_targets import TARGETS
from export.packed import encode_probes
from runtime import check, infer
from runtime.backends import installed
from runtime.drift import Limit, read_probes
from runtime.errors import EXIT_DRIFT, EdgeError
from runtime.image import read_image
from runtime.manifest import read_manifest, write_manifest

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "export" / "samples"
NCNN_SDK = os.environ.get("NCNN_DIR", "")  # .../lib/cmake/ncnn
MODELS = {"device_model": 16, "device_model_64": 64}  # the faces that each reads, in px
FILES = {
    "android": {"litert/int8.tflite", "litert/int8.probes.bin"},
    "ios": {"coreml/int8.mlpackage/Manifest.json", "coreml/fp16.probes.bin"},
    "raspberrypi": {"litert/int8.tflite", "ncnn/int8.param", "ncnn/int8.bin"},
}
PACKS = [(model, target) for model in MODELS for target in FILES]
PACKS.remove(("device_model_64", "ios"))  # it has no Core ML packages


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """In the place of one: nobody installs it here."""
    path = tmp_path_factory.mktemp("dist") / "aminet_edge-1-py3-none-any.whl"
    path.write_bytes(b"a wheel")
    return path


@pytest.fixture(params=MODELS)
def model(request):
    """A model's folder, and the px of the faces that it reads."""
    return request.getfixturevalue(request.param), MODELS[request.param]


def unpack(target, folder, wheel, place):
    made = pack.pack(target, folder, wheel, place / f"{target}.zip")
    with zipfile.ZipFile(made.archive) as archive:
        archive.extractall(place / target)
    return place / target


def run(command, cwd):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cwd / "cache")}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(("model", "target"), PACKS, indirect=["model"])
def test_a_pack_holds_the_files_that_its_readme_names(model, wheel, tmp_path, target):
    folder, side = model
    made = pack.pack(target, folder, wheel, tmp_path / "a.zip")
    assert made.sha256 == pack.pack(target, folder, wheel, tmp_path / "b.zip").sha256
    assert {f"tiny/{name}" for name in FILES[target]} <= set(made.files)
    assert set(TARGETS[target].samples) <= set(made.files)
    assert (wheel.name in made.files) == (target == "raspberrypi")
    with zipfile.ZipFile(made.archive) as archive:
        readme = archive.read("README.md").decode()
        sizes = [archive.read(name)[16:20] for name in made.files if name.endswith(".probes.bin")]
        with archive.open("face.png") as file:
            assert Image.open(file).size == (side, side)
    assert {struct.unpack("<i", size) for size in sizes} == {(side,)}
    assert f"reads RGB faces of {side}x{side} px" in readme
    assert ("16x16" in readme, "64x64" in readme) == (side == 16, side == 64)
    named = set(re.findall(r"tiny/[\w/.]+\.(?:tflite|param|bin|mlpackage)\b", readme))
    assert named
    assert all(any(each.startswith(name) for each in made.files) for name in named)
    assert "{" not in readme.replace('{ noCompress += "tflite" }', "")


def test_a_jetson_takes_what_tensorrt_takes():
    assert TARGETS["jetson"] is TARGETS["tensorrt"]


def test_a_pack_for_triton_has_a_model_repository(model, wheel, tmp_path):
    folder, side = model
    made = pack.pack("triton", folder, wheel, tmp_path / "a.zip")
    place = "models/tiny"
    served = {f"{place}/{name}" for name in ("config.pbtxt", "1/model.onnx", "warmup/lr")}
    assert served <= set(made.files)
    with zipfile.ZipFile(made.archive) as archive:
        assert archive.read(f"{place}/1/model.onnx") == (folder / "int8.onnx").read_bytes()
        assert len(archive.read(f"{place}/warmup/lr")) == 3 * side * side * 4
        assert f"dims: [ 3, {side}, {side} ]".encode() in archive.read(f"{place}/config.pbtxt")
        assert f"lr (3, {side}, {side})".encode() in archive.read("README.md")


def test_probes_for_samples_are_those_of_numpy_with_the_limits(device_model):
    content = encode_probes((device_model / "probes.npz").read_bytes(), Limit(50.5, 40.25))
    probes = read_probes(device_model / "probes.npz")
    assert content[:8] == b"AMNPROB1"
    count = len(probes.names)
    assert struct.unpack("<4i2f", content[8:32]) == (count, probes.faces, 16, 128, 50.5, 40.25)
    lr_bytes = probes.lr.size
    assert np.array_equal(np.frombuffer(content[32 : 32 + lr_bytes], np.uint8), probes.lr.ravel())
    assert np.array_equal(np.frombuffer(content[32 + lr_bytes :], np.uint8), probes.sr.ravel())


def test_a_package_that_was_changed_is_not_packed(device_model, wheel, tmp_path):
    folder = tmp_path / "tiny"
    shutil.copytree(device_model, folder)
    (folder / "coreml" / "int8.mlpackage" / "Manifest.json").write_text("{}")
    with pytest.raises(EdgeError, match=r"int8\.mlpackage: is not the package"):
        pack.pack("ios", folder, wheel, tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


def test_what_is_missing_is_named_with_its_command(artifact, wheel, tmp_path):
    made_by = rf"int8\.tflite: not found. Create it with: .* --artifact {artifact.parent}"
    with pytest.raises(EdgeError, match=made_by):
        pack.pack("android", artifact.parent, wheel, tmp_path / "a.zip")


def test_the_readme_s_commands_check_and_upscale(model, wheel, tmp_path, monkeypatch):
    packages = {"onnxruntime": "onnxruntime", "litert": "ai_edge_litert"}
    monkeypatch.setattr(installed, "PACKAGES", packages)
    monkeypatch.chdir(unpack("raspberrypi", model[0], wheel, tmp_path))
    commands = re.findall(
        r"^    python -m runtime\.(\w+) (.+)$", Path("README.md").read_text(), re.M
    )
    assert [name for name, _ in commands] == ["check", "infer"]
    for name, words in commands:
        assert {"check": check, "infer": infer}[name].main(words.split()) == 0
    assert read_image("face_sr.png").shape == (128, 128, 3)


def test_the_python_sample_upscales_after_the_probes(model, wheel, tmp_path):
    folder = unpack("raspberrypi", model[0], wheel, tmp_path)
    done = run([sys.executable, "upscale.py", "face.png"], folder)
    assert done.returncode == 0, done.stderr
    assert "dB to FP32 on this device, at least" in done.stdout
    assert read_image(folder / "face_sr.png").shape == (128, 128, 3)


def test_the_python_sample_refuses_a_model_that_drifts(device_model, wheel, tmp_path):
    folder = unpack("raspberrypi", device_model, wheel, tmp_path)
    (model,) = folder.glob("*/litert/int8.tflite")
    manifest = read_manifest(model)
    measured = [{**vars(m), "fidelity_db": 100.0} for m in manifest.measured_on]
    better = type(manifest.measured_on[0])(**measured[0])
    write_manifest(model, type(manifest)(**{**vars(manifest), "measured_on": (better,)}))
    done = run([sys.executable, "upscale.py", "face.png"], folder)
    assert done.returncode == EXIT_DRIFT
    assert "drifts from FP32" in done.stderr
    assert not (folder / "face_sr.png").exists()


@pytest.mark.parametrize("name", ["FaceUpscaler.kt", "FaceUpscaler.swift", "upscale.cpp"])
def test_samples_are_short_and_those_not_compiled_say_so(name):
    text = (SAMPLES / name).read_text()
    assert len(text.splitlines()) <= 150
    assert ("Not compiled where it was written" in text) == (not name.endswith("cpp"))


@pytest.mark.skipif(not NCNN_SDK, reason="NCNN_DIR names no ncnn for C++ (its wheel has none)")
def test_the_cpp_sample_upscales_after_the_probes(device_model, wheel, tmp_path):
    folder = unpack("raspberrypi", device_model, wheel, tmp_path)
    run(["cmake", "-S", ".", "-B", "build", f"-Dncnn_DIR={NCNN_SDK}"], folder)
    built = run(["cmake", "--build", "build"], folder)
    assert built.returncode == 0, built.stdout + built.stderr
    (param,) = folder.glob("*/ncnn/int8.param")
    probes = param.with_name("int8.probes.bin")
    Image.open(folder / "face.png").save(folder / "face.ppm")
    command = ["build/upscale", param, param.with_suffix(".bin"), probes, "face.ppm", "sr.ppm"]
    done = run(command, folder)
    assert done.returncode == 0, done.stderr
    assert "dB to FP32 on faces, at least" in done.stdout
    assert read_image(folder / "sr.ppm").shape == (128, 128, 3)
    damaged = bytearray(probes.read_bytes())
    damaged[24:28] = struct.pack("<f", 99.0)  # the limit of faces
    probes.write_bytes(damaged)
    assert run(command, folder).returncode == EXIT_DRIFT
    probes.write_bytes(b"none")
    assert run(command, folder).returncode == 1
