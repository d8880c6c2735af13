"""The ONNX contract refuses every graph that is not lr -> sr at opset 20."""

import onnx
import pytest

from export.contract import check_contract
from runtime.errors import EdgeError

GOOD = """<ir_version: 10, opset_import: ["" : 20]>
    nearest (float[batch, 3, 16, 16] lr) => (float[batch, 3, 128, 128] sr)
    <float[4] scales = {1, 1, 8, 8}>
    { sr = Resize <mode: string = "nearest"> (lr, , scales) }"""

# What is changed in it, and what the message says.
BAD = {
    "another opset": ('"" : 20', '"" : 19', "of opset {'': 19}, expected 20"),
    "one more opset": ('"" : 20', '"" : 20, "ours" : 1', "'ours': 1"),
    "another input": ("lr", "x", "input is x .*, expected lr"),
    "another output": ("sr", "y", "output is y .*, expected sr"),
    "a fixed batch": ("float[batch, 3, 16", "float[1, 3, 16", r"input is lr \(1, 3, 16, 16\)"),
    "another side": ("3, 16, 16", "3, 15, 16", "not valid ONNX"),
    "another type": ("float[batch", "double[batch", "float32"),
    "an operator that is none": ("Resize <", "Enlarge <", "not valid ONNX"),
}


def test_a_graph_of_the_contract_is_accepted():
    check_contract(onnx.parser.parse_model(GOOD))


@pytest.mark.parametrize(("old", "new", "message"), BAD.values(), ids=BAD)
def test_graphs_of_another_contract_are_refused(old, new, message):
    assert old in GOOD
    with pytest.raises(EdgeError, match=message) as caught:
        check_contract(onnx.parser.parse_model(GOOD.replace(old, new)))
    assert "\n" not in str(caught.value)


def test_weights_in_another_file_are_refused():
    model = onnx.parser.parse_model(GOOD)
    model.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    with pytest.raises(EdgeError, match="weights in other files"):
        check_contract(model)
