"""The study of formats beside INT8: its INT4 pass, and a row for each format."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import tiny_artifact
from benchmarks.studies.formats import GPU_CLASSES, compare_formats, formats_table
from benchmarks.studies.int4_weights import store_weights_in_int4
from quantize.layers import find_layers
from quantize.precision import open_quietly
from runtime.image import to_tensor


def rounded(weight, block):
    """INT4 by the book: absmax / 7 for each row of `block` weights."""
    rows = weight.reshape(-1, block)
    scale = np.abs(rows).max(axis=1, keepdims=True) / 7
    return (np.rint(rows / scale) * scale).reshape(weight.shape)


@pytest.mark.parametrize(("block", "local_block", "global_block"), [(None, 144, 16), (48, 48, 16)])
def test_weights_in_int4_are_the_rounded_ones(block, local_block, global_block):
    model = onnx.load_model_from_string(tiny_artifact.build())
    layers = [layer for layer in find_layers(model) if layer.name != "embed"]
    assert [layer.name for layer in layers] == ["local_weight", "global_weight"]
    stored = store_weights_in_int4(model, layers, block)
    onnx.checker.check_model(stored, full_check=True)
    kinds = {tensor.data_type for tensor in stored.graph.initializer}
    assert onnx.TensorProto.INT4 in kinds
    by_hand = tiny_artifact.weights()
    by_hand["local_weight"] = rounded(by_hand["local_weight"], local_block)
    by_hand["global_weight"] = rounded(by_hand["global_weight"], global_block)
    lr = to_tensor(tiny_artifact.faces(2))
    outputs = [
        open_quietly(content).run(None, {"lr": lr})[0]
        for content in (stored.SerializeToString(), tiny_artifact.build(initializers=by_hand))
    ]
    assert outputs[0] == pytest.approx(outputs[1], abs=1e-5)
    names = {tensor.name for tensor in stored.graph.initializer}
    assert ("local_weight_shape" in names) == (block is not None)
    levels = next(t for t in stored.graph.initializer if t.name == "local_weight_quantized")
    assert np.abs(numpy_helper.to_array(levels).astype(np.int8)).max() == 7


@pytest.mark.soak
def test_each_format_has_a_size_a_fidelity_and_an_engine_or_why_not(source, calib):
    found = compare_formats(source, [calib])
    assert len(found.rows) == 7
    fp8 = next(row for row in found.rows if row.format == "FP8")
    assert "fp8_e4m3" in fp8.engines["8.6"]
    assert all(isinstance(fp8.engines[capability], int) for capability in ("8.9", "12.0"))
    table = formats_table(found)
    assert table.count("\n| ") == 2 + len(found.rows)
    assert all(capability in table for capability in GPU_CLASSES)
