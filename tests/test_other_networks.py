"""Any ONNX network of one image in and one image out: imported, quantized, checked."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper, parser

import ncnn_networks
from calib_data.generate import HERE as CALIB_DATA
from quantize.int8 import main, quantize
from quantize.network_import import read_network
from quantize.options import Int8Options, NetworkOptions
from quantize.targets import TARGETS
from runtime import check
from runtime.artifact import write_artifact
from runtime.atomic import sha256_bytes
from runtime.backends.onnx_bytes import with_constant_weights
from runtime.backends.onnxruntime import open_model
from runtime.errors import EXIT_ERROR, EXIT_USAGE, EdgeError
from runtime.image import read_image, write_image
from runtime.manifest import read_manifest
from runtime.network import Network
from runtime.session import open_session

CPU = TARGETS["cpu"]
# Three times as large, as ESPCN does it, of values in RANGE; a batch norm, a leaky ReLU.
SUPER_RESOLUTION = """
    <ir_version: 8, opset_import: ["" : 11]>
    espcn (float[BATCH, CHANNELS, H, W] photo) => (float[BATCH, CHANNELS, H3, W3] large) {
        a = Conv <pads = [1, 1, 1, 1]> (photo, first)
        b = BatchNormalization (a, scale, shift, mean, variance)
        c = LeakyRelu <alpha = 0.1> (b)
        d = Conv <pads = [1, 1, 1, 1]> (c, second)
        e = Relu (d)
        f = Conv <pads = [1, 1, 1, 1]> (e, last)
        g = DepthToSpace <blocksize = 3, mode = "CRD"> (f)
        sizes = Constant <value = float[4] {1, 1, 3, 3}> ()
        roi = Constant <value = float[0] {}> ()
        near = Resize <mode = "nearest"> (photo, roi, sizes)
        large = Add (near, g)
    }
"""


def espcn(channels=3, batch="N", side=("H", "W"), white=1.0):
    """The bytes of the network, random but for its enlarged input, for values up to `white`."""
    text = SUPER_RESOLUTION.replace("BATCH", str(batch)).replace("CHANNELS", str(channels))
    for name, size in zip("HW", side, strict=True):
        tripled = 3 * size if isinstance(size, int) else f"{size}3"
        text = text.replace(f"{name}3]", f"{tripled}]").replace(f"{name}3,", f"{tripled},")
        text = text.replace(f" {name},", f" {size},").replace(f" {name}]", f" {size}]")
    model = parser.parse_model(text)
    generator = np.random.default_rng(3)
    arrays = {
        "first": generator.normal(0, 0.3, (16, channels, 3, 3)),
        "scale": generator.uniform(0.5, 1, 16),
        "shift": generator.normal(0, 0.1 * white, 16),
        "mean": generator.normal(0, 0.1 * white, 16),
        "variance": np.ones(16),
        "second": generator.normal(0, 0.1, (16, 16, 3, 3)),
        "last": generator.normal(0, 0.005, (9 * channels, 16, 3, 3)),
    }
    for name, array in arrays.items():
        tensor = numpy_helper.from_array(array.astype(np.float32), name)
        model.graph.initializer.append(tensor)
    onnx.checker.check_model(model)
    return model.SerializeToString()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """24 images of 64x48, and how they look at other sizes does not matter."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(24):
        face = read_image(CALIB_DATA / "64px" / f"face-{number:03}.png")
        write_image(folder / f"{number:02}.png", face[8:56])
    return folder


def write(path, content):
    path.write_bytes(content)
    return path


def test_a_network_with_any_size_and_range_is_imported_quantized_and_checked(
    tmp_path, photos, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "espcn.onnx", espcn(white=255.0))
    arguments = ["--artifact", "espcn.onnx", "--calib", str(photos), "--side", "48", "--json"]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    cpu, *_ = result["artifacts"]
    assert cpu["artifact"] == "artifacts/espcn/int8.onnx"
    assert cpu["int8_mac_share"] > 0.5
    assert "reads photo (N, 3, 48, 48), black 0, white 255, makes large" in result["notes"][0]
    network = read_manifest(cpu["artifact"]).network
    assert network == Network("photo", "large", 3, 48, 48, 0.0, 255.0)
    for made in result["artifacts"]:
        backend = made["measured_on"].split()[0]
        assert check.main([made["artifact"], "--backend", backend]) == 0
    # It is an ordinary file of the same contract: names, values, any size.
    session = open_model((tmp_path / cpu["artifact"]).read_bytes(), "int8")
    (large,) = session.run(["large"], {"photo": np.full((2, 3, 20, 30), 128, np.float32)})
    assert large.shape == (2, 3, 60, 90)
    assert 100 < large.mean() < 156


def with_weights_as_inputs(model):
    """The same model as old exporters write it: a caller may replace each of its weights."""
    listed = onnx.load_model_from_string(model)
    listed.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in listed.graph.initializer
    )
    return listed.SerializeToString()


@pytest.mark.parametrize(
    ("model", "size", "asked"),
    [
        (espcn(1, 1, (32, 32)), (1, 32, 32), NetworkOptions()),
        (
            with_weights_as_inputs(espcn(3, 1, (24, 40))),
            (3, 24, 40),
            NetworkOptions(range=(0.0, 1.0)),
        ),
    ],
    ids=["gray", "weights as inputs"],
)
def test_networks_of_a_fixed_size_and_batch(model, size, asked, tmp_path, photos, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "net.onnx", model)
    (made,) = quantize(path, [photos], [CPU], Int8Options(network=asked)).artifacts
    network = read_manifest(made.artifact).network
    assert (network.channels, network.height, network.width) == size
    assert "BatchNormalization" not in {n.op_type for n in onnx.load(made.artifact).graph.node}
    assert (network.low, network.high) == (0, 1)
    assert check.check(made.artifact).passed


def test_weights_that_are_inputs_too_can_be_made_constant():
    listed = with_weights_as_inputs(espcn())
    assert with_constant_weights(listed) == espcn()
    assert with_constant_weights(espcn()) == espcn()
    old = onnx.load_model_from_string(listed)
    old.ir_version = 3  # which knows no other weights
    assert with_constant_weights(old.SerializeToString()) == old.SerializeToString()


def test_a_file_that_drifts_does_not_pass_the_check(tmp_path, photos, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "net.onnx", espcn(side=(32, 32)))
    (made,) = quantize(path, [photos], [CPU]).artifacts
    other = onnx.load(made.artifact)
    (last,) = [t for t in other.graph.initializer if t.name == "last_quantized"]
    spoiled = np.zeros_like(numpy_helper.to_array(last))
    last.CopyFrom(numpy_helper.from_array(spoiled, last.name))
    content = other.SerializeToString()
    manifest = replace(read_manifest(made.artifact), sha256=sha256_bytes(content))
    write_artifact(Path(made.artifact), content, manifest)
    assert not check.check(made.artifact).passed


PUBLISHED = [(ncnn_networks.REALESRGAN, 4), (ncnn_networks.WAIFU2X, 2)]


@pytest.mark.parametrize(("package", "scale"), PUBLISHED, ids=["Real-ESRGAN", "waifu2x"])
def test_networks_that_others_trained(package, scale, tmp_path, photos, monkeypatch):
    """Their compact ones, which lose more to INT8 than AMINet does: a tenth of a dB is allowed."""
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "net.onnx", ncnn_networks.to_onnx(ncnn_networks.find(package)))
    options = Int8Options(max_drop_db=0.1, network=NetworkOptions(side=32))
    result = quantize(path, [photos], [CPU], options)
    assert result.failures == ()
    (made,) = result.artifacts
    assert made.int8_mac_share > 0.5
    assert made.fidelity_db > 43
    assert check.check(made.artifact).passed
    session = open_model(Path(made.artifact).read_bytes(), "int8")
    (up,) = session.run(None, {"image": np.full((1, 3, 40, 40), 0.5, np.float32)})
    assert abs(up.shape[2] / (40 * scale) - 1) < 0.4  # waifu2x eats the borders
    assert 0.3 < up.mean() < 0.7


TWO_INPUTS = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N, 3, 8, 8] a, float[N, 3, 8, 8] b) => (float[N, 3, 8, 8] c) { c = Add (a, b) }
"""
TOKENS = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (int64[N, 8] a) => (int64[N, 8] b) { b = Identity (a) }
"""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no ONNX", "is not a valid ONNX file"),
        (parser.parse_model(TWO_INPUTS).SerializeToString(), "has 2 inputs and 1 outputs"),
        (parser.parse_model(TOKENS).SerializeToString(), "reads a int64 [0, 8], expected float32"),
    ],
)
def test_what_is_no_image_network_is_one_line(content, reason, tmp_path, photos, capsys):
    path = write(tmp_path / "net.onnx", content)
    assert main(["--artifact", str(path), "--calib", str(photos)]) == EXIT_ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert reason in line


def test_a_range_that_nothing_shows_has_to_be_given(tmp_path, photos, monkeypatch, capsys):
    """Of a network that makes black of any image."""
    monkeypatch.chdir(tmp_path)
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[N, 3, 32, 32] a) => (float[N, 3, 32, 32] b) <float[3, 3, 1, 1] w = {0, 0, 0, 0,
        0, 0, 0, 0, 0}> { b = Conv (a, w) }
    """
    write(tmp_path / "net.onnx", parser.parse_model(text).SerializeToString())
    assert main(["--artifact", "net.onnx", "--calib", str(photos)]) == EXIT_ERROR
    assert "give it: --range 0,1" in capsys.readouterr().err
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.parametrize("flags", [["--range", "1,0"], ["--range", "a"], ["--side", "3"]])
def test_flags_out_of_range_are_usage_errors(flags):
    assert main(flags) == EXIT_USAGE


def test_another_networks_folder_is_not_overwritten(tmp_path, photos, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = Int8Options(network=NetworkOptions(range=(0.0, 1.0), out=tmp_path / "made"))
    quantize(write(tmp_path / "one.onnx", espcn(side=(32, 32))), [photos], [CPU], options)
    other = write(tmp_path / "two.onnx", espcn(side=(32, 32), white=255.0))
    with pytest.raises(EdgeError, match="is of another network; name another folder: --out"):
        quantize(other, [photos], [CPU], options)


def test_no_face_is_upscaled_with_it(tmp_path, photos, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "net.onnx", espcn(side=(32, 32)))
    (made,) = quantize(path, [photos], [CPU]).artifacts
    with pytest.raises(EdgeError, match="is another network than AMINet"):
        open_session(made.artifact)


def test_a_graph_without_sizes_takes_the_side_asked_for(tmp_path):
    path = write(tmp_path / "net.onnx", espcn())
    _, network = read_network(path, NetworkOptions(side=40))
    assert (network.height, network.width) == (40, 40)
    path = write(tmp_path / "fixed.onnx", espcn(side=(32, 32)))
    with pytest.raises(EdgeError, match=r"--side 40: .* reads images of 32x32 and no others"):
        read_network(path, NetworkOptions(side=40))
