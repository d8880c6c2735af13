"""Graph passes, each on a graph that can be read here, and all on a real one."""

import numpy as np
import onnx
import onnxruntime
import pytest

import tiny_networks
from export import simplify

HEADER = '<ir_version: 10, opset_import: ["" : 20]>'


def parse(text):
    return onnx.parser.parse_model(f"{HEADER} g {text}")


def operators(model):
    return [node.op_type for node in model.graph.node]


def run(model, *inputs):
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [value.name for value in session.get_inputs()]
    return session.run(None, dict(zip(names, inputs, strict=True)))[0]


def draw(*shape):
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def test_constants_are_folded():
    model = parse("""(float[n, 4] x) => (float[n, 4] y) <float[1] two = {2}> {
        four = Mul (two, two)
        same = Identity (x)
        y = Mul (same, four)
    }""")
    folded = simplify.fold_constants(model)
    assert operators(folded) == ["Mul"]
    assert np.array_equal(run(folded, draw(3, 4)), run(model, draw(3, 4)))


NORMALIZE = """(float[n, 4, 8] x) => (float[n, 4, 8] y)
    <int64[1] last = {-1}, float least = {1e-12}> {
        norm = ReduceL2 (x, last)
        clipped = Clip (norm, least)
        shape = Shape (x)
        same = Expand (clipped, shape)
        y = Div (x, same)
    }"""


def test_expands_before_a_broadcasting_operator_are_dropped():
    model = parse(NORMALIZE)
    dropped = simplify.remove_unused(simplify.drop_expands(model))
    assert operators(dropped) == ["ReduceL2", "Clip", "Div"]
    assert np.array_equal(run(dropped, draw(3, 4, 8)), run(model, draw(3, 4, 8)))


KEPT_EXPANDS = {
    "it makes the result larger": """(float[4, 1] x, float[1, 8] z) => (float[4, 8] y)
        <int64[2] shape = {4, 8}> { same = Expand (x, shape) y = Add (z, same) }""",
    "the operator does not broadcast": """(float[4, 1] x, float[4, 8] z) => (float[8, 8] y)
        <int64[2] shape = {4, 8}> {
            same = Expand (x, shape) y = Concat <axis: int = 0> (z, same) }""",
    "it is an output": """(float[4, 1] x) => (float[4, 8] y)
        <int64[2] shape = {4, 8}> { y = Expand (x, shape) }""",
    "the shape is not known": """(float[4, 1] x, float[4, n] z, int64[2] shape) => (float[4, m] y)
        { same = Expand (x, shape) y = Mul (z, same) }""",
    "both sides are the expanded one": """(float[4, 1] x) => (float[4, 8] y)
        <int64[2] shape = {4, 8}> { same = Expand (x, shape) y = Mul (same, same) }""",
}


@pytest.mark.parametrize("text", KEPT_EXPANDS.values(), ids=KEPT_EXPANDS)
def test_an_expand_is_kept_if(text):
    model = parse(text)
    assert simplify.remove_unused(simplify.drop_expands(model)) == model


TWO_SHUFFLES = """(float[n, 12, 4, 4] a, float[n, 12, 4, 4] b) => (float[n, 3, 8, 8] y) {{
    first = DepthToSpace <blocksize: int = 2, mode: string = "CRD"> (a)
    second = DepthToSpace <blocksize: int = 2, mode: string = "{mode}"> (b)
    y = Add (first, second)
}}"""


def test_two_pixel_shuffles_of_a_sum_become_one():
    model = parse(TWO_SHUFFLES.format(mode="CRD"))
    merged = simplify.remove_unused(simplify.merge_pixel_shuffles(model))
    assert operators(merged) == ["Add", "DepthToSpace"]
    a, b = draw(2, 12, 4, 4), draw(2, 12, 4, 4)[::-1]
    assert np.array_equal(run(merged, a, b), run(model, a, b))


KEPT_SHUFFLES = {
    "the orders differ": TWO_SHUFFLES.format(mode="DCR"),
    "one is read elsewhere": """(float[1, 12, 4, 4] a, float[1, 12, 4, 4] b) =>
        (float[1, 3, 8, 8] y, float[1, 3, 8, 8] second) {
            first = DepthToSpace <blocksize: int = 2> (a)
            second = DepthToSpace <blocksize: int = 2> (b)
            y = Add (first, second) }""",
    "it is added to itself": """(float[1, 12, 4, 4] a) => (float[1, 3, 8, 8] y) {
            first = DepthToSpace <blocksize: int = 2> (a) y = Add (first, first) }""",
    "the sum broadcasts": """(float[1, 12, 4, 4] a, float[1, 4, 4, 4] b) => (float[1, 3, 8, 8] y) {
            first = DepthToSpace <blocksize: int = 2> (a)
            second = DepthToSpace <blocksize: int = 2> (b)
            y = Add (first, second) }""",
}


@pytest.mark.parametrize("text", KEPT_SHUFFLES.values(), ids=KEPT_SHUFFLES)
def test_two_pixel_shuffles_are_kept_if(text):
    model = parse(text)
    assert simplify.merge_pixel_shuffles(model) == model


def test_what_no_output_needs_is_removed():
    model = parse("""(float[4] x) => (float[4] y) <float[1] one = {1}, float[1] two = {2}> {
        unread = Add (x, one)
        farther = Neg (unread)
        y = Mul (x, two)
    }""")
    model = onnx.shape_inference.infer_shapes(model)
    assert {value.name for value in model.graph.value_info} == {"unread", "farther"}
    removed = simplify.remove_unused(model)
    assert operators(removed) == ["Mul"]
    assert [tensor.name for tensor in removed.graph.initializer] == ["two"]
    assert not removed.graph.value_info


def test_metadata_and_doc_strings_are_stripped_wherever_they_are():
    model = parse("(float[4] x) => (float[4] y) <float[1] two = {2}> { y = Mul (x, two) }")
    graph = model.graph
    for message in (model, graph, graph.node[0], graph.initializer[0], graph.input[0]):
        message.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="/home/me/model.py")
        message.doc_string = "/home/me/model.py"
    stripped = simplify.strip_metadata(model)
    assert b"/home/me" not in stripped.SerializeToString()
    assert np.array_equal(run(stripped, draw(4)), draw(4) * 2)


@pytest.mark.parametrize("simplifying", simplify.PASSES, ids=lambda pass_: pass_.__name__)
def test_passes_leave_their_argument_as_it_was(simplifying):
    model = parse(NORMALIZE)
    model.graph.doc_string = "a text"
    before = model.SerializeToString()
    simplifying(model)
    assert model.SerializeToString() == before


def simplified(config):
    model = tiny_networks.traced(config)
    for simplifying in simplify.PASSES:
        model = simplifying(model)
    return model


def test_real_graphs_lose_their_expands_and_the_second_large_shuffle():
    layered = operators(simplified(tiny_networks.LAYERED))
    batched = operators(simplified(tiny_networks.BATCHED))
    assert not {"Expand", "Shape", "Identity", "Constant"} & {*layered, *batched}
    assert layered.count("DepthToSpace") == 4  # bicubic, entry, one decoder, exit
    assert batched.count("DepthToSpace") == 2  # one decoder; bicubic and exit are one
