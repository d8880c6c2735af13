"""ONNX graphs as LiteRT files: the same numbers, operator by operator and as a whole."""

import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter
from onnx import numpy_helper, parser

import tiny_artifact
from export.graph import Graph
from export.simplify import PASSES
from export.tflite.channel_order import crd_to_dcr
from export.tflite.convert import convert
from runtime.backends.onnxruntime import open_model
from runtime.errors import EdgeError
from tiny_networks import BATCHED, LAYERED, traced

GENERATOR = np.random.default_rng(5)


def graph(body, shape="1, 8, 16, 16", **constants):
    """A model x (batch, 8, 16, 16) -> y of a few lines of ONNX text and its constants."""
    model = parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 20]>'
        f" g (float[batch, 8, 16, 16] x) => (float[batch, c, h, w] y) {{ {body} }}"
    )
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def weights(*shape):
    return GENERATOR.normal(0, 0.2, shape).astype(np.float32)


def integers(*values):
    return np.array(values, np.int64)


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


OPERATORS = {
    "dense, padded": graph("y = Conv <pads = [1, 1, 1, 1]> (x, w)", w=weights(6, 8, 3, 3)),
    "a stride of 2, padded on the side that torch pads": graph(
        "y = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w, b)",
        w=weights(6, 8, 3, 3),
        b=weights(6),
    ),
    "padded on one side": graph("y = Conv <pads = [2, 0, 0, 1]> (x, w)", w=weights(6, 8, 3, 3)),
    "dilated": graph(
        "y = Conv <pads = [2, 2, 2, 2], dilations = [2, 2]> (x, w)", w=weights(6, 8, 3, 3)
    ),
    "depthwise": graph("y = Conv <group = 8, pads = [2, 2, 2, 2]> (x, w)", w=weights(8, 1, 5, 5)),
    "depthwise, three of each": graph("y = Conv <group = 8> (x, w)", w=weights(24, 1, 3, 3)),
    "grouped": graph("y = Conv <group = 2> (x, w)", w=weights(6, 4, 3, 3)),
    "an activation that others read too": graph(
        "a = Conv (x, w)  b = Relu (a)  y = Add (a, b)", w=weights(6, 8, 1, 1)
    ),
    "grouped, before a pixel shuffle": graph(
        'a = Conv <group = 2> (x, w)  y = DepthToSpace <blocksize = 2, mode = "CRD"> (a)',
        w=weights(16, 4, 1, 1),
    ),
    "a sum before a pixel shuffle": graph(
        "a = Conv <group = 4> (x, v)  b = Conv (x, w)  c = Add (a, b)  d = Relu (c)"
        ' y = DepthToSpace <blocksize = 2, mode = "CRD"> (d)',
        v=weights(12, 2, 1, 1),
        w=weights(12, 8, 1, 1),
    ),
    "a pixel shuffle of what others read too": graph(
        'a = Conv (x, w)  b = DepthToSpace <blocksize = 2, mode = "CRD"> (a)'
        ' c = DepthToSpace <blocksize = 2, mode = "DCR"> (a)  y = Add (b, c)',
        w=weights(12, 8, 1, 1),
    ),
    "a pixel unshuffle, as torch exports it": graph(
        "a = Reshape (x, s)  b = Transpose <perm = [0, 1, 3, 5, 2, 4]> (a)  c = Reshape (b, t)"
        " y = Conv (c, w)",
        s=integers(-1, 8, 8, 2, 8, 2),
        t=integers(-1, 32, 8, 8),
        w=weights(6, 32, 1, 1),
    ),
    "space to depth": graph("y = SpaceToDepth <blocksize = 2> (x)"),
    "edges repeated": graph('y = Pad <mode = "edge"> (x, p)', p=integers(0, 0, 2, 1, 0, 0, 2, 0)),
    "twice the size": graph(
        'y = Resize <mode = "nearest", nearest_mode = "floor",'
        ' coordinate_transformation_mode = "asymmetric"> (x, , s)',
        s=np.array([1, 1, 2, 2], np.float32),
    ),
    "pooled": graph("y = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (x)"),
    "channels cut and joined": graph(
        "a, b = Split <axis = 1, num_outputs = 2> (x)  c = Slice (x, s, e, s)"
        " y = Concat <axis = 1> (b, c, a)",
        s=integers(1),
        e=integers(2**63 - 1),
    ),
    "reductions": graph(
        "a = ReduceMean (x, s)  b = ReduceMax (x, c)  d = ReduceL2 (x, c)  e = Add (a, b)"
        " y = Mul (e, d)",
        s=integers(2, 3),
        c=integers(1),
    ),
    "elementwise": graph(
        "a = Sigmoid (x)  b = Gelu (x)  d = Clip (x, lo, hi)  e = Max (a, b)  f = Sub (e, d)"
        " g = Div (f, two)  y = Mul (g, k)",
        lo=np.float32(-0.5),
        hi=np.float32(0.5),
        two=np.float32(2),
        k=weights(1, 8, 1, 1),
    ),
    "normalized": graph(
        "a = Transpose <perm = [0, 2, 3, 1]> (x)  b = LayerNormalization <axis = -1> (a, g, h)"
        " y = Transpose <perm = [0, 3, 1, 2]> (b)",
        g=weights(8),
        h=weights(8),
    ),
    "attention over channels": graph(
        "a = Reshape (x, s)  t = Transpose <perm = [0, 1, 3, 2]> (a)  m = MatMul (a, t)"
        " n = Softmax <axis = -1> (m)  o = MatMul (n, a)  y = Reshape (o, r)",
        s=integers(-1, 2, 4, 256),
        r=integers(-1, 8, 16, 16),
    ),
}


@pytest.mark.parametrize("model", OPERATORS.values(), ids=OPERATORS)
def test_an_operator_computes_what_onnx_runtime_does(model):
    x = GENERATOR.normal(0, 1, (1, 8, 16, 16)).astype(np.float32)
    assert difference(model, x) < 2e-5


@pytest.mark.parametrize("config", [LAYERED, BATCHED], ids=["layered", "batched"])
def test_a_network_computes_what_onnx_runtime_does(config):
    model = traced(config)
    for simplify in PASSES:
        model = simplify(model)
    x = GENERATOR.random((1, 3, 16, 16), np.float32)
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
