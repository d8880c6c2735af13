"""Parity finds what a graph does differently from torch, at any batch size."""

import numpy as np
import onnx
import pytest

import tiny_networks
from export import parity
from export.probes import make_probes
from runtime.errors import EXIT_DRIFT, EdgeError
from runtime.image import to_tensor

CONFIGS = {"layered": tiny_networks.LAYERED, "batched": tiny_networks.BATCHED}


def expected(config):
    probes, sr = make_probes(tiny_networks.network(config))
    return to_tensor(probes.lr), sr


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_traced_graph_equals_torch(config):
    proved = parity.prove(tiny_networks.traced(config), *expected(config), 2e-5, "tracing")
    assert proved.max_abs_diff > 0
    assert 100 < proved.psnr_db < 200


def shuffle_otherwise(graph):
    shuffle = next(node for node in graph.node if node.op_type == "DepthToSpace")
    (mode,) = (entry for entry in shuffle.attribute if entry.name == "mode")
    mode.s = b"DCR"


def change(graph, name, edit):
    tensor = next(tensor for tensor in graph.initializer if tensor.name == name)
    values = edit(onnx.numpy_helper.to_array(tensor).copy())
    tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), name))


def double_a_channel(weight):
    weight[0] *= 2
    return weight


FAULTS = {
    "pixel shuffle of another order": shuffle_otherwise,
    "a zeroed branch": lambda g: change(g, "bottleneck.0.local.mix.weight", np.zeros_like),
    "a doubled channel": lambda g: change(g, "entry.conv.weight", double_a_channel),
    "swapped channels": lambda g: change(g, "exit.conv.bias", lambda bias: bias[::-1]),
    "not a number": lambda g: change(g, "exit.conv.bias", lambda bias: bias * np.nan),
}


@pytest.mark.parametrize("plant", FAULTS.values(), ids=FAULTS)
def test_planted_faults_are_found(plant):
    model = tiny_networks.traced(tiny_networks.LAYERED)
    plant(model.graph)
    with pytest.raises(EdgeError, match="after a pass the graph differs from torch") as caught:
        parity.prove(model, *expected(tiny_networks.LAYERED), parity.MAX_ABS_DIFF, "a pass")
    assert caught.value.status == EXIT_DRIFT


def test_a_graph_that_is_right_for_one_face_alone_is_found():
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 20]>
        nearest (float[batch, 3, 16, 16] lr) => (float[batch, 3, 128, 128] sr)
        <float[4] scales = {1, 1, 8, 8}, int64[1] zero = {0}> {
            mean = ReduceMean (lr, zero)
            rest = Sub (lr, mean)
            odd = Add (lr, rest)
            sr = Resize <mode: string = "nearest"> (odd, , scales)
        }""")
    lr = np.random.default_rng(0).random((3, 3, 16, 16), np.float32)
    sr = lr.repeat(8, axis=2).repeat(8, axis=3)
    assert parity.compare(model, lr[:1], sr[:1]) == parity.Parity(0.0, 200.0)
    assert parity.compare(model, lr, sr).max_abs_diff > 0.1
