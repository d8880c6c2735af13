"""Core ML packages: written from the ONNX graph, read back, interpreted, refused if they drift."""

import shutil

import numpy as np
import pytest

from export.coreml import main
from export.mil import interpreter
from export.mil.interpreter import interpret
from export.mil.package import InterpretedPackage, make_package
from export.mil.program import write_program
from export.packed import folder_listing
from runtime.atomic import sha256_bytes
from runtime.backends.base import silenced
from runtime.backends.onnxruntime import open_model
from runtime.check import main as check_main
from runtime.errors import EXIT_DRIFT, EXIT_ERROR, EXIT_MISSING, EdgeError
from runtime.infer import main as infer_main
from runtime.manifest import read_manifest
from tiny_operators import GENERATOR, OPERATORS, graph, weights

SIX_AXES = "a pixel unshuffle, as torch exports it"


@pytest.fixture
def made(device_model):
    return device_model


def reference(model, x):
    return open_model(model.SerializeToString(), "g").run(None, {"x": x})[0]


@pytest.mark.parametrize("name", sorted(OPERATORS.keys() - {SIX_AXES}))
def test_an_operator_computes_what_onnx_runtime_does(name):
    x = GENERATOR.normal(0, 1, (1, 8, 16, 16)).astype(np.float32)
    made, expected = (
        interpret(write_program(OPERATORS[name], "g"), x),
        reference(OPERATORS[name], x),
    )
    assert made.shape == expected.shape
    assert np.abs(made - expected).max() < 2e-5


def quantized():
    """A convolution of an activation with a zero point, as int8.onnx has it."""
    return graph(
        "a = QuantizeLinear (x, s, z)  b = DequantizeLinear (a, s, z)"
        " w = DequantizeLinear <axis = 0> (w8, ws)  y = Conv <pads = [1, 1, 1, 1]> (b, w, k)",
        s=np.float32(0.03125),
        z=np.uint8(125),
        w8=GENERATOR.integers(-127, 128, (8, 8, 3, 3), np.int8),
        ws=np.full(8, 2.0**-9, np.float32),
        k=weights(8),
    )


MODEL = quantized()


def test_zero_points_and_scales_are_carried_through_coremltools_passes():
    """In numbers that FP16 holds; 10 % of a scale, or another zero point, would be 0.1 and more."""
    model = MODEL
    x = (0.03125 * GENERATOR.integers(-100, 101, (1, 8, 16, 16))).astype(np.float32)
    expected = reference(model, x)
    program = write_program(model, "g")
    assert np.abs(interpret(program, x) - expected).max() < 1e-5
    with silenced():
        package = InterpretedPackage(make_package(program, "test"))
    assert np.abs(package.run(x) - expected).max() < 0.01


def test_an_operator_without_a_writer_is_named():
    with pytest.raises(EdgeError, match="Erf 'y' cannot be converted: Core ML programs are"):
        write_program(graph("y = Erf (x)"), "g")


def test_more_axes_than_core_ml_has_are_named():
    with pytest.raises(EdgeError, match="Reshape 'a' cannot be converted: Core ML has at most 5"):
        write_program(OPERATORS[SIX_AXES], "g")


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_package_has_a_manifest_that_says_it_was_not_run(made, precision):
    path = made / "coreml" / f"{precision}.mlpackage"
    manifest = read_manifest(path)
    assert manifest.executes_as.startswith(precision)
    assert manifest.executes_as.endswith("converted and interpreted; not run (needs a Mac)")
    (measured,) = manifest.measured_on
    assert measured.emulated
    assert measured.backend == "coreml, interpreted"
    files = {
        each.relative_to(path).as_posix(): each.read_bytes()
        for each in path.rglob("*")
        if each.is_file()
    }
    assert manifest.sha256 == sha256_bytes(folder_listing(files))
    assert manifest.flags["parts"] == {n: sha256_bytes(content) for n, content in files.items()}


def test_the_same_graph_gives_the_same_package():
    with silenced():
        first, second = (make_package(write_program(MODEL, "g"), "x") for _ in range(2))
    assert folder_listing(first) == folder_listing(second)
    assert sorted(first) == [
        "Data/com.apple.CoreML/model.mlmodel",
        "Data/com.apple.CoreML/weights/weight.bin",
        "Manifest.json",
    ]


def test_a_version_that_computes_something_else_publishes_nothing(
    made, tmp_path, monkeypatch, capsys
):
    """The package that was there stays."""
    folder = tmp_path / "tiny"
    shutil.copytree(made, folder)
    before = {path: path.read_bytes() for path in (folder / "coreml").rglob("*") if path.is_file()}
    monkeypatch.setitem(interpreter.OPERATORS, "add", lambda i: (i["x"] + i["y"]) * 0.9)
    assert main(["--artifact", str(folder / "int8-trt.onnx")]) == EXIT_DRIFT
    after = {path: path.read_bytes() for path in (folder / "coreml").rglob("*") if path.is_file()}
    assert after == before
    assert "nothing was written" in capsys.readouterr().err


def test_an_artifact_that_cannot_be_converted_leaves_nothing(artifact, capsys):
    assert main(["--artifact", str(artifact)]) == EXIT_ERROR
    assert "Resize 'enlarged' cannot be converted" in capsys.readouterr().err
    assert not (artifact.parent / "coreml").exists()


def test_check_and_infer_say_where_a_package_runs(made, face, capsys):
    path = str(made / "coreml" / "fp16.mlpackage")
    assert check_main([path]) == EXIT_MISSING
    assert infer_main([str(face), "--artifact", path]) == EXIT_MISSING
    for line in capsys.readouterr().err.splitlines():
        assert line.startswith(f"error: {path}: is a Core ML package, which runs on Apple's")
