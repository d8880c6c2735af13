"""Fixtures of more than one test file."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tiny_artifact
from calib_data.generate import draw_faces, read_statistics
from runtime.backends import installed
from runtime.manifest import read_manifest, write_manifest
from runtime.spinning import spin_little
from runtime.telemetry import disable_telemetry

ROOT = Path(__file__).parent.parent

disable_telemetry()  # before a test imports what reports its import

spin_little()  # before torch loads libgomp


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """No test sees, or leaves anything in, the user's cache folder."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "aminet-edge"


@pytest.fixture(autouse=True)
def only_onnxruntime(monkeypatch):
    """Tests see the one backend that is always there; `every_backend` shows them the others."""
    monkeypatch.setattr(installed, "PACKAGES", {"onnxruntime": "onnxruntime"})


@pytest.fixture
def every_backend(only_onnxruntime, monkeypatch):
    monkeypatch.setattr(installed, "PACKAGES", {name: name for name in ("onnxruntime", "openvino")})


@pytest.fixture(scope="session")
def sound_folder(tmp_path_factory):
    """A folder with a tiny fp32.onnx that passes, measured here; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("sound")
    model = tiny_artifact.build()
    measured_on = (tiny_artifact.measured(model, tiny_artifact.make_probes()),)
    tiny_artifact.write_artifact(folder, model=model, measured_on=measured_on)
    return folder


@pytest.fixture
def artifact(tmp_path, sound_folder):
    """A tiny fp32.onnx that passes, where `runtime.infer` looks for one under tmp_path."""
    folder = tmp_path / "artifacts" / "aminet-edge"
    shutil.copytree(sound_folder, folder)
    return folder / "fp32.onnx"


@pytest.fixture
def artifact_64(tmp_path):
    """A tiny fp32.onnx that reads faces of 64x64, where the model for photos is looked for."""
    folder = tmp_path / "artifacts" / "aminet-real"
    model = tiny_artifact.build(tiny_artifact.FP32_64, tiny_artifact.weights_64())
    probes = tiny_artifact.make_probes(model)
    tiny_artifact.write_probes(folder / "probes.npz", probes)
    measured_on = (tiny_artifact.measured(model, probes),)
    return tiny_artifact.write_artifact(folder, model=model, lr_side=64, measured_on=measured_on)


@pytest.fixture
def face(tmp_path):
    """A 16x16 PNG."""
    path = tmp_path / "face.png"
    Image.fromarray(tiny_artifact.faces(1, seed=3)[0]).save(path)
    return path


@pytest.fixture(scope="session")
def edge_artifact(tmp_path_factory):
    """aminet-edge as export.onnx makes it, with the committed weights, else with random ones.

    The manifest does not say so of random ones, for the runtime would refuse them.
    """
    export = pytest.importorskip("export.exporter", reason="the extra export is not installed")
    out = tmp_path_factory.mktemp("edge") / "fp32.onnx"
    committed = ROOT / "aminet" / "weights" / "aminet-edge.safetensors"
    export.export("aminet-edge", out=out, random_seed=None if committed.exists() else 0)
    write_manifest(out, replace(read_manifest(out), random_weights=False))
    return out


@pytest.fixture(scope="session")
def edge_quantized(edge_artifact):
    """What quantize.int8 says of aminet-edge's INT8 files, which lie beside its fp32.onnx."""
    int8 = pytest.importorskip("quantize.int8")
    options = pytest.importorskip("quantize.options").Int8Options(require_precision=True)
    return int8.quantize(edge_artifact, [ROOT / "calib_data"], options=options)


@pytest.fixture(scope="session")
def edge_halves(edge_artifact):
    """What quantize.fp16 says of aminet-edge's FP16 files, which lie beside its fp32.onnx."""
    fp16 = pytest.importorskip("quantize.fp16")
    pytest.importorskip("onnx")
    return fp16.convert(edge_artifact)


@pytest.fixture(scope="session")
def edge_int8(edge_quantized, edge_artifact):
    """aminet-edge in INT8, for CPUs."""
    assert edge_quantized.failures == ()
    return edge_artifact.with_name("int8.onnx")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A folder with a tiny AMINet's checkpoint.safetensors, fp32.onnx and int8.onnx."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny-model"), "BATCHED")


@pytest.fixture(scope="session")
def tiny_model_64(tmp_path_factory):
    """The same of one that reads faces of 64x64, as aminet-real."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny-model-64"), "BLOCKED")


def make_tiny_model(folder, config):
    """Export and quantize a network of tiny_networks into a folder."""
    export = pytest.importorskip("export.exporter")
    int8 = pytest.importorskip("quantize.int8")
    options = pytest.importorskip("quantize.options")
    import tiny_networks as networks

    network = getattr(networks, config)
    checkpoint = networks.write_checkpoint(folder / "checkpoint.safetensors", network)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "trace", lambda _: networks.traced(network))  # traced once a run
        fp32 = export.export(checkpoint=checkpoint, out=folder / "fp32.onnx").artifact
    for number, face in enumerate(draw_faces(read_statistics(), seed=9, count=24)):
        Image.fromarray(face).save(folder / f"face-{number:02}.png")
    made = int8.quantize(fp32, [folder / "face-*.png"], options=options.Int8Options(max_drop_db=5))
    assert made.failures == ()
    return folder


@pytest.fixture
def calib(tmp_path):
    """A folder of 24 images, so 18 to calibrate with and 6 held out."""
    folder = tmp_path / "calib"
    folder.mkdir()
    for number, face in enumerate(tiny_artifact.faces(24, seed=9)):
        Image.fromarray(face).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture
def source(artifact, monkeypatch):
    """A tiny fp32.onnx, of a model of 27 dB, in a folder that ./artifacts/aminet-edge is."""
    monkeypatch.chdir(artifact.parents[2])
    manifest = read_manifest(artifact)
    tiny_artifact.write_artifact(artifact.parent, psnr_y=27.0, measured_on=manifest.measured_on)
    return artifact


@pytest.fixture(scope="session")
def device_model(tiny_model, tmp_path_factory):
    """The same folder with the files for LiteRT, ncnn and Core ML; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("device-model") / "tiny"
    return add_device_files(tiny_model, folder, "litert", "ncnn", "coreml")


@pytest.fixture(scope="session")
def device_model_64(tiny_model_64, tmp_path_factory):
    """The same of a model that reads faces of 64x64, but for Core ML's, which take 10 s."""
    folder = tmp_path_factory.mktemp("device-model-64") / "tiny"
    return add_device_files(tiny_model_64, folder, "litert", "ncnn")


def add_device_files(model, folder, *formats):
    """Copy a model's folder and write the files of devices into it."""
    commands = [pytest.importorskip(f"export.{name}").main for name in formats]
    shutil.copytree(model, folder)
    for command in commands:
        assert command(["--artifact", str(folder)]) == 0
    return folder


@pytest.fixture
def hr_faces(tmp_path):
    """A folder of three smooth 128x128 pictures, in the place of real faces."""
    folder = tmp_path / "hr"
    folder.mkdir()
    for i, lr in enumerate(tiny_artifact.faces(3, seed=5)):
        enlarged = Image.fromarray(lr).resize((128, 128), Image.Resampling.BICUBIC)
        Image.fromarray(np.asarray(enlarged)).save(folder / f"{i}.png")
    return folder
