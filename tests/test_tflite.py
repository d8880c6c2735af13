"""ONNX graphs as LiteRT files: the same numbers, operator by operator and as a whole."""

import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter

import tiny_artifact
from export.graph import Graph
from export.simplify import PASSES
from export.tflite.channel_order import crd_to_dcr
from export.tflite.convert import convert
from runtime.backends.onnxruntime import open_model
from runtime.errors import EdgeError
from tiny_networks import BATCHED, BLOCKED, LAYERED, traced
from tiny_operators import GENERATOR, OPERATORS, graph, integers, weights


def run_litert(content, x):
    """One image (1, C, H, W) through a file that has its channels last."""
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x.transpose(0, 2, 3, 1))
    interpreter.invoke()
    made = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return made.transpose(0, 3, 1, 2)


def difference(model, x, **options):
    """The largest difference between LiteRT and ONNX Runtime."""
    (expected,) = open_model(model.SerializeToString(), "g").run(
        None, {model.graph.input[0].name: x}
    )
    made = run_litert(convert(model, "g", **options), x)
    assert made.shape == expected.shape
    return np.abs(made - expected).max()


@pytest.mark.parametrize("model", OPERATORS.values(), ids=OPERATORS)
def test_an_operator_computes_what_onnx_runtime_does(model):
    x = GENERATOR.normal(0, 1, (1, 8, 16, 16)).astype(np.float32)
    assert difference(model, x) < 2e-5


@pytest.mark.parametrize(
    "config", [LAYERED, BATCHED, BLOCKED], ids=["layered", "batched", "blocked"]
)
def test_a_network_computes_what_onnx_runtime_does(config):
    model = traced(config)
    for simplify in PASSES:
        model = simplify(model)
    x = GENERATOR.random((1, 3, config.lr_side, config.lr_side), np.float32)
    assert difference(model, x) < 2e-5


def test_half_weights_are_rounded_and_take_half_the_room():
    model = graph("y = Conv (x, w)", w=weights(64, 8, 3, 3))
    x = GENERATOR.random((1, 8, 16, 16), np.float32)
    assert 1e-6 < difference(model, x, half=True) < 1e-2
    assert len(convert(model, "g")) - len(convert(model, "g", half=True)) > 64 * 8 * 9 * 1.9


def quantized(signed):
    """A convolution between Q/DQ pairs, with a scale for each output channel."""
    kind = np.int8 if signed else np.uint8
    return graph(
        "a = QuantizeLinear (x, s, z)  b = DequantizeLinear (a, s, z)"
        " w = DequantizeLinear <axis = 0> (w8, ws)  k = DequantizeLinear <axis = 0> (b32, bs)"
        " c = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (b, w, k)  d = Relu (c)"
        " e = QuantizeLinear (d, t, u)  y = DequantizeLinear (e, t, u)",
        s=np.float32(0.03),
        z=kind(-3 if signed else 125),
        w8=GENERATOR.integers(-127, 128, (12, 8, 3, 3), np.int8),
        ws=np.linspace(0.001, 0.004, 12, dtype=np.float32),
        b32=GENERATOR.integers(-9999, 9999, 12, np.int32),
        bs=(0.03 * np.linspace(0.001, 0.004, 12)).astype(np.float32),
        t=np.float32(0.05),
        u=kind(-128 if signed else 0),
    )


@pytest.mark.parametrize("signed", [False, True], ids=["uint8", "int8"])
def test_a_quantized_convolution_runs_in_int8_with_its_own_scales(signed):
    """Both round sums in FP32: at most one step of 0.05 lies between them, where a half is cut."""
    model = quantized(signed)
    x = GENERATOR.normal(0, 1, (1, 8, 16, 16)).astype(np.float32)
    assert difference(model, x) < 0.0501
    interpreter = Interpreter(model_content=convert(model, "g"))
    (convolution,) = [n for n in interpreter._get_ops_details() if n["op_name"] == "CONV_2D"]
    assert convolution["result_types"] == [np.int8]
    assert convolution["operand_types"][:2] == [np.int8, np.int8]


def test_a_convolution_whose_result_is_not_quantized_keeps_its_rounded_weights():
    """Its INT8 kernel would have to round what the file does not."""
    model = graph(
        "a = QuantizeLinear (x, s, z)  b = DequantizeLinear (a, s, z)"
        " w = DequantizeLinear <axis = 0> (w8, ws)  y = Conv (b, w)",
        s=np.float32(0.03),
        z=np.int8(0),
        w8=GENERATOR.integers(-127, 128, (12, 8, 3, 3), np.int8),
        ws=np.linspace(0.001, 0.004, 12, dtype=np.float32),
    )
    assert difference(model, GENERATOR.random((1, 8, 16, 16), np.float32)) < 2e-5


@pytest.mark.parametrize(
    ("body", "constants", "message"),
    [
        ("y = Erf (x)", {}, "Erf 'y' cannot be converted: LiteRT files are written with Add, "),
        (
            'y = Resize <mode = "cubic"> (x, , s)',
            {"s": np.array([1, 1, 2, 2], np.float32)},
            "Resize 'y' cannot be converted: expected mode nearest",
        ),
        ("w = Relu (v)  y = Conv (x, w)", {"v": weights(6, 8, 1, 1)}, "its weights w are computed"),
    ],
)
def test_an_operator_without_a_writer_is_named(body, constants, message):
    with pytest.raises(EdgeError, match=message):
        convert(graph(body, **constants), "g.onnx")


def test_a_pixel_shuffle_needs_no_transposition_after_convolutions():
    permuted = crd_to_dcr(OPERATORS["a sum before a pixel shuffle"], "g")
    (shuffle,) = [node for node in permuted.graph.node if node.op_type == "DepthToSpace"]
    assert shuffle.attribute[-1].s == b"DCR"
    left = crd_to_dcr(OPERATORS["a pixel shuffle of what others read too"], "g")
    modes = [n.attribute[-1].s for n in left.graph.node if n.op_type == "DepthToSpace"]
    assert sorted(modes) == [b"CRD", b"DCR"]


def test_a_file_is_the_same_each_time_and_says_what_it_is():
    model = traced(BATCHED)
    for simplify in PASSES:
        model = simplify(model)
    content = convert(model, "g", title="tiny fp32")
    assert content == convert(model, "g", title="tiny fp32")
    signatures = Interpreter(model_content=content).get_signature_list()
    assert signatures == {"serving_default": {"inputs": ["lr"], "outputs": ["sr"]}}
    assert b"M001" in content
    assert b"face super-resolution from 16 px to 128 px" in content


def test_a_shape_that_only_running_would_tell_is_named():
    model = graph("n = NonZero (x)  c = Cast <to = 1> (n)  y = Unsqueeze (c, a)", a=integers(0, 1))
    with pytest.raises(EdgeError, match="is not known before it runs"):
        Graph(model, "g").shape("n")


def test_the_network_of_the_tests_has_an_operator_without_a_writer():
    with pytest.raises(EdgeError, match="Resize 'enlarged' cannot be converted"):
        convert(onnx.load_from_string(tiny_artifact.build()), "tiny")
