"""Where the milliseconds go: every node is counted once, in the kind of work that it does."""

import json

import pytest
from onnx import TensorProto, helper, parser

from benchmarks.studies import profile
from runtime.errors import EXIT_ERROR

CONVOLUTION = """
    <ir_version: 10, opset_import: ["" : 20]>
    one (float[1, 8, 4, 4] x, float[8, {inputs}, {kernel}, {kernel}] w) => (float[1, 8, 4, 4] y) {{
        y = Conv <group = {group}> (x, w)
    }}
"""


def test_kinds_and_operators_sum_to_the_whole(artifact, capsys):
    assert profile.main(["--artifact", str(artifact), "--json"]) == 0
    (profiled,) = json.loads(capsys.readouterr().out)["profiles"]
    for shares in (profiled["kinds"], profiled["operators"]):
        assert sum(share["ms"] for share in shares) == pytest.approx(profiled["total_ms"])
        assert [s["ms"] for s in shares] == sorted((s["ms"] for s in shares), reverse=True)
    assert sum(s["nodes"] for s in profiled["kinds"]) == sum(
        s["nodes"] for s in profiled["operators"]
    )
    kinds = {share["kind"]: share["nodes"] for share in profiled["kinds"]}
    assert kinds["convolutions"] == 2
    assert kinds["1x1 convolutions"] == 1
    assert profile.OTHER not in kinds


@pytest.mark.parametrize(
    ("inputs", "kernel", "group", "kind"),
    [
        (8, 3, 1, "convolutions"),
        (8, 1, 1, "1x1 convolutions"),
        (1, 5, 8, "depthwise convolutions"),
    ],
)
def test_a_convolution_is_told_by_its_weights(inputs, kernel, group, kind):
    text = CONVOLUTION.format(inputs=inputs, kernel=kernel, group=group)
    model = parser.parse_model(text)
    shape = (8, inputs, kernel, kernel)
    weights = helper.make_tensor(
        "w", TensorProto.FLOAT, shape, bytes(4 * 8 * inputs * kernel**2), True
    )
    model.graph.initializer.append(weights)
    assert profile.find_kind(model.graph.node[0], model) == kind


def test_an_unknown_operator_is_other():
    model = parser.parse_model(CONVOLUTION.format(inputs=8, kernel=1, group=1))
    assert profile.find_kind(helper.make_node("Det", ["x"], ["y"]), model) == profile.OTHER


def test_what_cannot_be_read_is_one_line(tmp_path, capsys):
    assert profile.main(["--artifact", str(tmp_path / "absent.onnx")]) == EXIT_ERROR
    assert "absent.onnx: not found" in capsys.readouterr().err
