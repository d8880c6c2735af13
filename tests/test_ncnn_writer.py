"""ONNX graphs as ncnn networks: the same numbers, operator by operator and as a whole."""

import numpy as np
import pytest
from ncnn import Mat, Net

from export.ncnn_writer.convert import convert
from export.simplify import PASSES
from runtime.backends.ncnn import OFF
from runtime.backends.onnxruntime import open_model
from runtime.errors import EdgeError
from tiny_networks import BATCHED, BLOCKED, LAYERED, traced
from tiny_operators import GENERATOR, OPERATORS, graph, weights


def run_ncnn(converted, folder, x, result):
    """One image (1, C, H, W) through a network."""
    (folder / "g.param").write_bytes(converted.param)
    (folder / "g.bin").write_bytes(converted.bin)
    net = Net()
    for option in OFF:
        setattr(net.opt, option, False)
    assert net.load_param(str(folder / "g.param")) == 0
    assert net.load_model(str(folder / "g.bin")) == 0
    extractor = net.create_extractor()
    extractor.input(net.input_names()[0], Mat(x[0]).clone())
    status, made = extractor.extract(result)
    assert status == 0
    return np.array(made)[None]


def difference(model, folder, x, **options):
    """The largest difference between ncnn and ONNX Runtime."""
    name = model.graph.input[0].name
    (expected,) = open_model(model.SerializeToString(), "g").run(None, {name: x})
    made = run_ncnn(convert(model, "g", **options), folder, x, model.graph.output[0].name)
    assert made.shape == expected.shape
    return np.abs(made - expected).max()


FIVE_AXES = "a pixel unshuffle, as torch exports it"


@pytest.mark.parametrize("name", sorted(OPERATORS.keys() - {FIVE_AXES}))
def test_an_operator_computes_what_onnx_runtime_does(name, tmp_path):
    x = GENERATOR.normal(0, 1, (1, 8, 16, 16)).astype(np.float32)
    assert difference(OPERATORS[name], tmp_path, x) < 2e-5


@pytest.mark.parametrize(
    "config", [LAYERED, BATCHED, BLOCKED], ids=["layered", "batched", "blocked"]
)
def test_a_network_computes_what_onnx_runtime_does(config, tmp_path):
    model = traced(config)
    for simplify in PASSES:
        model = simplify(model)
    x = GENERATOR.random((1, 3, config.lr_side, config.lr_side), np.float32)
    assert difference(model, tmp_path, x) < 2e-4


def quantized(zero=0, group=1):
    """A convolution of a quantized activation, with a scale for each output channel."""
    return graph(
        "a = QuantizeLinear (x, s, z)  b = DequantizeLinear (a, s, z)"
        f" w = DequantizeLinear <axis = 0> (w8, ws)  c = Conv <group = {group}> (b, w, k)"
        " y = Relu (c)",
        s=np.float32(0.03),
        z=np.int8(zero),
        w8=GENERATOR.integers(-127, 128, (8, 8 // group, 3, 3), np.int8),
        ws=np.linspace(0.001, 0.004, 8, dtype=np.float32),
        k=weights(8),
    )


@pytest.mark.parametrize("group", [1, 8], ids=["dense", "depthwise"])
def test_a_quantized_convolution_computes_in_int8_with_its_own_scales(group, tmp_path):
    """The activations lie on int8's steps, where the two ways to round a half agree.

    ncnn's depthwise kernel differs by 1e-4 of the value; another scale would by 1e-2.
    """
    model = quantized(group=group)
    x = (0.03 * GENERATOR.integers(-100, 101, (1, 8, 16, 16))).astype(np.float32)
    assert difference(model, tmp_path, x) < 1e-3
    assert convert(model, "g").int8_mac_share == 1
    assert len(convert(model, "g").bin) < 8 * 8 // group * 9 + 150


def test_half_weights_are_rounded_and_take_half_the_room(tmp_path):
    model = graph("y = Conv (x, w)", w=weights(64, 8, 3, 3))
    x = GENERATOR.random((1, 8, 16, 16), np.float32)
    assert 1e-6 < difference(model, tmp_path, x, half=True) < 1e-2
    assert len(convert(model, "g", half=True).bin) == 4 + 64 * 8 * 9 * 2


def test_an_operator_without_a_writer_is_named():
    with pytest.raises(EdgeError, match=r"g.onnx: Erf 'y' cannot be converted: ncnn networks are"):
        convert(graph("y = Erf (x)"), "g.onnx")


def test_more_axes_than_ncnn_has_are_named():
    with pytest.raises(EdgeError, match="Reshape 'a' cannot be converted: ncnn has 1 to 4 axes"):
        convert(OPERATORS[FIVE_AXES], "g")


def test_a_zero_point_is_refused_and_the_file_without_one_is_named():
    with pytest.raises(EdgeError, match="ncnn quantizes to int8 around zero: take int8-trt"):
        convert(quantized(zero=3), "g.onnx")


def test_a_value_that_several_layers_read_is_split():
    param = convert(graph("a = Sigmoid (x)  b = Add (a, x)  y = Mul (a, b)"), "g").param.decode()
    assert "Split x_split 1 2 x x_split_0 x_split_1" in param
    assert "BinaryOp b 2 1 a_split_0 x_split_1 b 0=0" in param
    assert param.splitlines()[1] == "6 8"  # layers and blobs
