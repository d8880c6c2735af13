"""Cross-layer equalization: the graph computes the same, and its 8 bits go further."""

import numpy as np
import pytest
from onnx import numpy_helper, parser

import tiny_artifact
from quantize.activations import calibrate, find_extremes
from quantize.equalize import MOST, STRENGTH, equalize, scale_inputs
from quantize.layers import find_layers
from quantize.precision import open_quietly
from quantize.qdq import quantize_layers
from quantize.targets import TARGETS
from runtime.image import to_tensor
from tiny_networks import BATCHED, LAYERED, traced

FACES = tiny_artifact.faces(8)
UNEQUAL = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[batch, 3, 16, 16] lr) => (float[batch, 8, 16, 16] sr) {
        made = Conv (lr, make, bias)
        active = Relu (made)
        pooled = AveragePool <kernel_shape = [2, 2], strides = [1, 1]> (active)
        one, two = Split <axis = 1, num_outputs = 2> (pooled)
        both = Concat <axis = 1> (two, one)
        seen = Conv <group = 8, pads = [1, 1, 2, 2]> (both, look)
        sr = READER (seen, last)
    }
"""
LAST = {"Conv": (8, 8, 1, 1), "MatMul": (16, 16)}


def unequal(reader="Conv"):
    """A graph of which channel 0 is a tenth of the others, and channel 1 almost nothing."""
    generator = np.random.default_rng(4)
    shapes = {"make": (8, 3, 1, 1), "bias": (8,), "look": (8, 1, 3, 3), "last": LAST[reader]}
    weights = {n: generator.uniform(0.5, 1, s).astype(np.float32) for n, s in shapes.items()}
    for channel, size in ((0, 0.1), (1, 1e-6)):
        weights["make"][channel] *= size
        weights["bias"][channel] *= size
    weights["look"][4] *= 10  # which reads channel 0
    model = parser.parse_model(UNEQUAL.replace("READER", reader))
    model.graph.initializer.extend(numpy_helper.from_array(w, n) for n, w in weights.items())
    return model


def constants(model):
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def run(model):
    return open_quietly(model.SerializeToString()).run(None, {"lr": to_tensor(FACES)})[0]


def equalized(model):
    found = find_extremes(model, find_layers(model), FACES)
    return equalize(model, {name: extremes.sizes for name, extremes in found.items()})


@pytest.mark.parametrize("config", [LAYERED, BATCHED], ids=["LayerNorm, GELU", "ReLU"])
def test_the_graph_computes_the_same(config):
    model = traced(config)
    result = equalized(model)
    assert any(np.any(factors > 1.5) for factors in result.factors.values())
    assert np.allclose(run(result.model), run(model), atol=1e-4)


def test_small_channels_grow_and_what_reads_them_shrinks():
    model = unequal()
    result = equalized(model)
    sizes = find_extremes(model, find_layers(model), FACES)["active"].sizes
    made, read, seen = (result.factors[name] for name in ("active", "both", "seen"))
    assert made[0] == pytest.approx((sizes.max() / sizes[0]) ** STRENGTH)
    assert made[1] == MOST
    assert np.array_equal(read, np.roll(made, 4))  # Split and Concat have moved them
    before, after = constants(model), constants(result.model)
    assert np.allclose(after["make"][:, 0, 0, 0] / before["make"][:, 0, 0, 0], made)
    assert np.allclose(after["bias"] / before["bias"], made)
    assert np.allclose(after["look"][:, 0, 0, 0] / before["look"][:, 0, 0, 0], seen / read)
    assert np.allclose(run(result.model), run(model), rtol=1e-4)


@pytest.mark.parametrize(("reader", "scaled"), [("Conv", True), ("MatMul", False)])
def test_what_anything_but_a_convolution_reads_keeps_its_channels(reader, scaled):
    model = unequal(reader)
    result = equalized(model)
    assert np.any(result.factors["active"] > 1)
    assert np.any(result.factors["seen"] > 1) == scaled
    assert np.allclose(run(result.model), run(model), rtol=1e-4)


def test_a_weight_of_two_convolutions_is_left_alone():
    text = """
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[batch, 3, 16, 16] lr) => (float[batch, 8, 16, 16] sr) {
            a = Conv (lr, make)
            b = Conv (a, twice)
            c = Conv (b, twice)
            sr = Relu (c)
        }
    """
    model = parser.parse_model(text)
    generator = np.random.default_rng(4)
    for name, shape in (("make", (8, 3, 1, 1)), ("twice", (8, 8, 1, 1))):
        weight = generator.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weight, name))
    result = equalized(model)
    assert np.array_equal(constants(result.model)["twice"], constants(model)["twice"])
    assert np.array_equal(run(result.model), run(model))


def test_where_it_is_not_free_a_multiplication_does_it():
    model = unequal("MatMul")
    layers = find_layers(model)
    for size, names in ((np.ones(8), []), (np.array([1, *[0.1] * 7]), ["both_scaled"])):
        sizes = {"lr": np.ones(3), "both": size}
        made, changed, factors = scale_inputs(model, layers, sizes)
        assert list(factors) == names
        assert [layer.input for layer in changed] == ["lr", *(names or ["both"])]
        assert [n.output[0] for n in made.graph.node if n.op_type == "Mul"] == names
        assert np.allclose(run(made), run(model), rtol=1e-4)
    assert factors["both_scaled"] == pytest.approx([1, *[10**STRENGTH] * 7])


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_quantized_it_is_closer_to_fp32(target):
    model = unequal()
    layers = find_layers(model)
    exact = run(model)
    found = find_extremes(model, layers, FACES)
    plain = {name: extremes.range for name, extremes in found.items()}
    plain_error = np.abs(run(quantize_layers(model, layers, plain, target)) - exact).mean()
    ours = calibrate(model, layers, FACES)
    error = np.abs(
        run(quantize_layers(ours.model, ours.layers, ours.ranges, target)) - exact
    ).mean()
    assert error < 0.7 * plain_error
