"""The gate before a TensorRT build: a rule at a time, each on a network that breaks it alone."""

import numpy as np
import onnx
import pytest
from onnx import helper

import tiny_artifact
from export import gate
from runtime.errors import EXIT_DRIFT, EXIT_ERROR, EdgeError
from tiny_artifact import FP32, INT8

INT8_BIAS = INT8.replace(
    "embedded = Conv <pads = [1, 1, 1, 1]> (lr, embed_float, embed_bias)",
    """
        bias_float = DequantizeLinear (embed_bias, bias_scale)
        embedded = Conv <pads = [1, 1, 1, 1]> (lr, embed_float, bias_float)
    """,
)
WITHOUT_ZERO_POINT = INT8.replace(
    "(active, feature_scale, feature_zero)", "(active, feature_scale)"
)
WITHOUT_DEQUANTIZE = INT8.replace(
    "feature = DequantizeLinear (quantized, feature_scale, feature_zero)",
    "feature = Cast <to = 1> (quantized)",
)
CAST_WEIGHT = INT8.replace(
    "DequantizeLinear <axis = 0> (embed, embed_scale)", "Cast <to = 1> (embed)"
)


def signed(**changes):
    """The initializers of INT8 as TensorRT wants them, but for the changes."""
    changed = {"feature_zero": np.int8(0), **changes}
    return {
        name: np.asarray(value)
        for name, value in {**tiny_artifact.quantized_weights(), **changed}.items()
    }


def model(text=INT8, **changes):
    return onnx.load_model_from_string(tiny_artifact.build(text, signed(**changes)))


# What is wrong, the rule that says so and its words.
FAULTS = {
    "infinite weights": (
        model(local_weight=np.full((192, 16, 3, 3), np.inf, np.float32)),
        gate.stored_numbers_are_finite,
        "local_weight holds numbers that are not finite",
    ),
    "uint8": (
        model(feature_zero=np.uint8(0)),
        gate.qdq_pairs_are_int8_or_fp8,
        "is uint8, expected int8",
    ),
    "no zero point": (
        model(WITHOUT_ZERO_POINT),
        gate.qdq_pairs_are_int8_or_fp8,
        "the QuantizeLinear of quantized has no constant zero point, so is uint8",
    ),
    "zero points": (
        model(feature_zero=np.int8(3)),
        gate.zero_points_are_zero,
        "has a zero point that is not 0",
    ),
    "int32 bias": (
        model(INT8_BIAS, embed_bias=np.full(16, 9, np.int32), bias_scale=np.float32(0.1)),
        gate.dequantized_constants_are_int8_or_fp8,
        "reads embed_bias, which is int32, expected int8",
    ),
    "a weight cast": (
        model(CAST_WEIGHT),
        gate.quantized_constants_are_dequantized,
        "the Cast of embed_float reads embed in 8 bits without a DequantizeLinear",
    ),
    "a feature cast": (
        model(WITHOUT_DEQUANTIZE),
        gate.quantized_activations_are_dequantized,
        "the Cast of feature reads quantized in 8 bits",
    ),
    "scales": (
        model(feature_scale=np.float32(-0.5)),
        gate.scales_are_positive,
        "has a scale that is not over 0",
    ),
    "scales of a feature": (
        model(
            INT8.replace("(active, f", "<axis = 1> (active, f"),
            feature_scale=np.full(16, 0.1, np.float32),
            feature_zero=np.zeros(16, np.int8),
        ),
        gate.activations_have_one_scale,
        "has 16 scales, expected one per tensor",
    ),
}


@pytest.mark.parametrize(("graph", "rule", "words"), FAULTS.values(), ids=FAULTS)
def test_each_rule_finds_its_fault_and_no_other_rule_does(graph, rule, words):
    assert words in next(rule(graph))
    finders = [r for r in gate.RULES if next(r(graph), None)]
    assert finders == [rule]
    with pytest.raises(EdgeError) as caught:
        gate.check_for_tensorrt(graph, "face.onnx")
    assert str(caught.value).startswith("face.onnx: ")
    assert "\n" not in str(caught.value)
    assert caught.value.status == EXIT_DRIFT


def test_every_rule_has_a_fault_here():
    assert {rule for _, rule, _ in FAULTS.values()} == set(gate.RULES)


def test_operators_on_integers_are_refused():
    graph = model()
    graph.graph.node.append(helper.make_node("QLinearConv", ["a"] * 8, ["b"], name="conv"))
    with pytest.raises(EdgeError, match="conv is a QLinearConv, expected QuantizeLinear-Deq"):
        gate.check_for_tensorrt(graph, "face.onnx")


@pytest.mark.parametrize(
    "graph", [model(), onnx.load_model_from_string(tiny_artifact.build())], ids=["int8", "fp32"]
)
def test_what_tensorrt_computes_as_it_stands_passes(graph):
    gate.check_for_tensorrt(graph, "face.onnx")


def changed(change):
    graph = onnx.load_model_from_string(tiny_artifact.build())
    change(graph)
    return graph.SerializeToString()


NO_ONNX = {
    "empty": (b"", "is not valid ONNX"),
    "garbage": (b"garbage" * 99, "not an ONNX file, or truncated"),
    "truncated": (tiny_artifact.build()[:4000], "not an ONNX file, or truncated"),
    "operator": (changed(lambda m: setattr(m.graph.node[2], "op_type", "Enlarge")), "Enlarge"),
    "opset": (changed(lambda m: setattr(m.opset_import[0], "version", 99)), "99"),
    "contract": (tiny_artifact.build(FP32.replace("lr", "low")), "input is low"),
}


@pytest.mark.parametrize(("content", "words"), NO_ONNX.values(), ids=NO_ONNX)
def test_what_is_no_onnx_of_ours_is_named_in_one_line(content, words):
    with pytest.raises(EdgeError) as caught:
        gate.read_graph(content, "face.onnx")
    assert str(caught.value).startswith("face.onnx: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.status == EXIT_ERROR


def test_types_are_counted_as_tensorrt_names_them():
    assert gate.types_of(model()) == {
        "CONVOLUTION": {"FLOAT": 3},
        "QUANTIZE": {"INT8": 1},
        "DEQUANTIZE": {"FLOAT": 2},
    }
