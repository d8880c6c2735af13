"""The graph passes of quantize, on graphs that can be read here."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

import tiny_artifact
from export.gate import check_for_tensorrt
from quantize.fp16_passes import round_to_half, to_half
from quantize.layers import find_layers, total_macs
from quantize.precision import computes_in_half, int8_layers_onnxruntime, open_quietly
from quantize.qdq import BIAS_LIMIT, Range, quantize_layers, quantize_weight
from quantize.targets import TARGETS, for_processor
from runtime.errors import EdgeError
from runtime.image import to_tensor

CPU, OPENVINO, TENSORRT = TARGETS.values()
LR = to_tensor(tiny_artifact.faces(4))
RANGES = {"lr": Range(0, 1), "feature": Range(0, 4), "local": Range(-1, 1), "global": Range(-1, 1)}


@pytest.fixture
def model():
    return onnx.load_model_from_string(tiny_artifact.build())


def quantized(model, target, layers=None):
    made = quantize_layers(model, layers or find_layers(model), RANGES, target)
    onnx.checker.check_model(made, full_check=True)
    return made


def run(model, lr=LR):
    return open_quietly(model.SerializeToString()).run(None, {"lr": lr})[0]


def operators(model):
    short = {"QuantizeLinear": "Q", "DequantizeLinear": "DQ"}
    return [f"{short.get(n.op_type, n.op_type)} {n.output[0]}" for n in model.graph.node]


def constants(model):
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def test_layers_are_convolutions_with_the_activation_that_follows(model):
    embed, local, global_ = find_layers(model)
    assert (embed.input, embed.output, embed.result) == ("lr", "embedded", "feature")
    assert (embed.weight, embed.bias) == ("embed", "embed_bias")
    assert (local.input, local.result, local.bias) == ("feature", "local", None)
    assert embed.macs == 16 * 3 * 9 * 16 * 16
    assert sum(layer.macs for layer in (embed, local, global_)) == total_macs(model)


LEFT_ALONE = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[batch, 16, 4, 4] x) => (float[batch, 16, 4, 4] y)
    <float[16, 16, 1, 1] dense, float[16, 1, 3, 3] depth, float[16, 4, 1, 1] grouped,
     float[2, 16, 1, 1] narrow, float[16, 16, 1, 1] last> {
        a = Conv (x, dense)
        b = Conv <group = 16, pads = [1, 1, 1, 1]> (a, depth)
        c = Conv <group = 4> (b, grouped)
        d = ReduceMean (c, axes)
        e = Conv (d, dense2)
        f = Conv (c, narrow)
        g = ReduceMax (f, axis)
        h = Mul (g, e)
        i = Add (h, c)
        y = Conv (i, last)
    }
"""


def test_layers_that_gain_nothing_are_left_alone():
    """Grouped ones, those of one pixel or few channels, and what makes the network's output."""
    model = parser.parse_model(LEFT_ALONE)
    shapes = {
        "dense": (16, 16, 1, 1),
        "depth": (16, 1, 3, 3),
        "grouped": (16, 4, 1, 1),
        "narrow": (2, 16, 1, 1),
        "last": (16, 16, 1, 1),
        "dense2": (16, 16, 1, 1),
    }
    del model.graph.initializer[:]
    for name, shape in shapes.items():
        ones = np.ones(shape, np.float32)
        model.graph.initializer.append(numpy_helper.from_array(ones, name))
    for name, axes in (("axes", [2, 3]), ("axis", [1])):
        model.graph.initializer.append(numpy_helper.from_array(np.array(axes), name))
    assert [layer.name for layer in find_layers(model)] == ["dense", "depth"]


def test_a_small_layer_that_reads_the_image_stays_fp32():
    text = tiny_artifact.FP32.replace("local = Conv <pads = [1, 1, 1, 1]>", "local = Conv <PADS>")
    text = text.replace("PADS", "pads = [2, 2, 2, 2]")
    larger = {**tiny_artifact.weights(), "local_weight": np.ones((192, 16, 5, 5), np.float32)}
    model = onnx.load_model_from_string(tiny_artifact.build(text, larger))
    assert [layer.name for layer in find_layers(model)] == ["local_weight", "global_weight"]


def test_qdq_pairs_stand_where_onnx_runtime_fuses_convolution_and_relu(model):
    made = quantized(model, CPU)
    assert operators(made)[:3] == ["DQ embed", "DQ embed_bias", "DQ local_weight"]
    assert operators(made)[4:] == [
        "Q lr_quantized",
        "DQ lr_dequantized",
        "Constant scales",
        "Resize enlarged",
        "Conv embedded",
        "Relu feature",
        "Q feature_quantized",
        "DQ feature_dequantized",
        "Conv local",
        "Q local_quantized",
        "DQ local_dequantized",
        "Conv global",
        "Q global_quantized",
        "DQ global_dequantized",
        "Add fused",
        "DepthToSpace detail",
        "Add sr",
    ]
    inputs = {node.output[0]: list(node.input) for node in made.graph.node}
    assert inputs["enlarged"][0] == "lr"  # what is not a layer reads the exact value
    assert inputs["fused"] == ["local_dequantized", "global_dequantized"]


def test_onnx_runtime_fuses_every_layer(model):
    layers = find_layers(model)
    content = quantized(model, CPU).SerializeToString()
    assert int8_layers_onnxruntime(content, layers) == {layer.name for layer in layers}
    content = quantized(model, CPU, layers[1:]).SerializeToString()
    assert int8_layers_onnxruntime(content, layers) == {layer.name for layer in layers[1:]}


def test_what_nothing_fuses_is_not_counted(model):
    """Without pairs after the results ONNX Runtime computes in FP32 what the file calls INT8."""
    content = quantized(model, OPENVINO).SerializeToString()
    assert int8_layers_onnxruntime(content, find_layers(model)) == {"embed"}


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_values_stay_close(model, target):
    assert np.abs(run(quantized(model, target)) - run(model)).max() < 0.02


def test_the_input_is_quantized_without_loss(model):
    made = constants(quantized(model, CPU))
    assert made["lr_zero_point"] == 0
    levels = np.arange(256, dtype=np.float32) / np.float32(255)
    assert np.array_equal(np.rint(levels / made["lr_scale"]), np.arange(256))


def test_tensorrt_gets_int8_around_zero_and_float_biases(model):
    made = quantized(model, TENSORRT)
    values = constants(made)
    assert values["feature_zero_point"].dtype == np.int8
    assert not [name for name, value in values.items() if "zero_point" in name and value.any()]
    assert values["embed_bias"].dtype == np.float32
    check_for_tensorrt(made, "int8-trt.onnx")


def test_weights_have_a_scale_for_each_channel_and_biases_fit():
    weight = np.zeros((3, 2, 1, 1), np.float32)
    weight[0, 0] = 1.27
    weight[1, 1] = -0.00127
    bias = np.array([0, 1e3, 0], np.float32)
    levels, scale = quantize_weight(weight, np.abs(bias) / BIAS_LIMIT, 127)
    assert levels[:2].reshape(2, 2).tolist() == [[127, 0], [0, -127]]
    assert scale[:2] == pytest.approx([0.01, 0.00001])
    assert np.abs(np.rint(bias / scale)).max() <= BIAS_LIMIT
    assert scale[2] > 0  # a channel that is always zero


@pytest.mark.parametrize(
    ("processor", "limit"),
    [
        ("Old (avx2)", 63),
        ("New (avx2 avx512f avx512_vnni)", 127),
        ("Newer (avx2 avx_vnni)", 127),
        ("Arm (asimddp)", 127),
    ],
)
def test_weights_have_seven_bits_on_avx2_without_vnni(model, processor, limit):
    made = quantized(model, for_processor(CPU, processor))
    assert np.abs(constants(made)["local_weight_quantized"]).max() == limit
    assert for_processor(TENSORRT, processor) == TENSORRT


@pytest.mark.parametrize(
    ("target", "spoil", "reason"),
    [
        (CPU, None, "is uint8, expected int8"),
        (TENSORRT, ("feature_zero_point", np.int8(3)), "zero point that is not 0"),
        (TENSORRT, ("local_weight_quantized", np.uint8(1)), "is uint8, expected int8"),
        (TENSORRT, ("local_weight_quantized", np.int32(1)), "is int32, expected int8"),
    ],
)
def test_what_tensorrt_would_misread_is_refused(model, target, spoil, reason):
    made = quantized(model, target)
    if spoil:
        name, value = spoil
        (tensor,) = (t for t in made.graph.initializer if t.name == name)
        shape = tuple(tensor.dims)
        tensor.CopyFrom(numpy_helper.from_array(np.full(shape, value), name))
    with pytest.raises(EdgeError, match=reason):
        check_for_tensorrt(made, "a.onnx")


def test_quantized_constants_elsewhere_are_refused():
    text = """
        <ir_version: 10, opset_import: ["" : 20]>
        g (int8[2] x) => (int8[2] y) <int8[2] stored = {1, 2}> { y = Add (x, stored) }
    """
    with pytest.raises(EdgeError, match="without a DequantizeLinear"):
        check_for_tensorrt(parser.parse_model(text), "a.onnx")


def test_fp16_keeps_float32_outside_and_scales_of_a_resize(model):
    made = to_half(model)
    onnx.checker.check_model(made, full_check=True)
    assert {v.type.tensor_type.elem_type for v in (*made.graph.input, *made.graph.output)} == {1}
    assert constants(made)["scales"].dtype == np.float32
    assert constants(made)["local_weight_half"].dtype == np.float16
    assert len(made.SerializeToString()) < 0.6 * len(model.SerializeToString())
    assert 0 < np.abs(run(made) - run(model)).max() < 2e-3


def test_int8_and_fp16_go_together(model):
    made = to_half(quantized(model, TENSORRT))
    onnx.checker.check_model(made, full_check=True)
    check_for_tensorrt(made, "int8-trt-fp16.onnx")
    assert np.abs(run(made) - run(model)).max() < 0.02


NORMALIZED = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[batch, 4] x) => (float[batch, 4] y)
    <int64[1] axis = {1}, float least = {1e-12}, float large = {3000.0}> {
        scaled = Mul (x, large)
        norm = ReduceL2 (scaled, axis)
        safe = Clip (norm, least)
        y = Div (scaled, safe)
    }
"""


@pytest.mark.parametrize("convert", [to_half, round_to_half])
def test_norms_neither_overflow_nor_vanish_in_fp16(convert):
    made = convert(parser.parse_model(NORMALIZED))
    session = open_quietly(made.SerializeToString())
    x = np.array([[0, 0, 0, 0], [20, 20, 20, 20]], np.float32)
    y = session.run(None, {"x": x})[0]
    assert np.allclose(y, [[0] * 4, [0.5] * 4], atol=1e-3)


def test_a_value_may_be_read_in_both_precisions():
    text = """
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[batch, 4] x) => (float[batch, 4] y) <int64[1] axis = {1}> {
            a = Relu (x)
            b = Neg (a)
            mean = ReduceMean (a, axis)
            c = Add (a, b)
            y = Add (c, mean)
        }
    """
    x = np.ones((1, 4), np.float32)
    for convert in (to_half, round_to_half):
        made = convert(parser.parse_model(text))
        onnx.checker.check_model(made, full_check=True)
        assert open_quietly(made.SerializeToString()).run(None, {"x": x})[0].tolist() == [[1] * 4]


def test_rounding_shows_an_overflow_that_this_processor_would_not(model):
    text = tiny_artifact.FP32.replace("feature = Relu (embedded)", "feature = Mul (embedded, loud)")
    loud = {**tiny_artifact.weights(), "loud": np.float32(1e5)}
    loud["local_weight"] = loud["local_weight"] / 1e5
    loud["global_weight"] = loud["global_weight"] / 1e5
    model = onnx.load_model_from_string(tiny_artifact.build(text, loud))
    assert np.isfinite(run(model)).all()
    assert not np.isfinite(run(round_to_half(model))).all()


def test_fp16_files_are_known_to_run_in_fp32_here(model):
    half = to_half(model).SerializeToString()
    assert isinstance(computes_in_half(half), bool)
    assert not computes_in_half(model.SerializeToString())
