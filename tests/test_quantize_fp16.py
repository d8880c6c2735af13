"""FP16: a file for CPUs that stores it, and one for TensorRT that computes in it, both gated."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tiny_artifact
from export.gate import check_for_tensorrt
from quantize import fp16, fp16_files
from quantize.fp16_passes import round_to_half
from quantize.fp16_sums import convolve, multiply, open_summed_in_half, sum_in_half
from quantize.precision import computes_in_half, open_quietly, optimized_graph
from runtime.errors import EXIT_DRIFT, EXIT_PRECISION, EXIT_USAGE, EdgeError
from runtime.image import to_tensor
from runtime.infer import InferOptions, infer
from runtime.manifest import read_manifest
from runtime.session import open_session


def test_both_files_are_half_the_size_and_keep_60_db(artifact, capsys):
    assert fp16.main(["--artifact", str(artifact), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    made = {one["target"]: one for one in result["artifacts"]}
    assert result["artifact"] == str(artifact.with_name("fp16.onnx")) == made["cpu"]["artifact"]
    assert made["tensorrt"]["artifact"] == str(artifact.with_name("fp16-trt.onnx"))
    for target, one in made.items():
        assert one["bytes"] < 0.6 * artifact.stat().st_size
        assert min(one["fidelity_db"], one["extremes_fidelity_db"]) >= 60
        manifest = read_manifest(one["artifact"])
        assert (manifest.precision, manifest.target) == ("fp16", target)
        assert manifest.executes_as == one["executes_as"]
        with open_session(one["artifact"]) as session:
            assert session.verdict.passed
    assert made["cpu"]["fp16_sums_fidelity_db"] is None
    assert made["tensorrt"]["fp16_sums_fidelity_db"] >= 60


def test_the_file_for_cpus_was_measured_and_the_other_says_which_arithmetic_was_modelled(artifact):
    fp16.convert(artifact)
    measured = {
        name: {m.backend: m.emulated for m in read_manifest(artifact.with_name(name)).measured_on}
        for name in ("fp16.onnx", "fp16-trt.onnx")
    }
    assert measured["fp16.onnx"] == {"onnxruntime": False}
    assert measured["fp16-trt.onnx"] == {
        fp16_files.FP32_SUMS: True,
        fp16_files.FP16_SUMS: True,
        "onnxruntime": True,
    }


def test_what_is_stored_in_fp16_runs_in_fp32_with_its_casts_folded(artifact, face):
    (made,) = fp16.convert(artifact, ["cpu"])
    content = artifact.with_name("fp16.onnx").read_bytes()
    assert TensorProto.FLOAT16 in {t.data_type for t in onnx.load(made.artifact).graph.initializer}
    runs = optimized_graph(content).graph
    assert "Cast" not in {node.op_type for node in runs.node}
    assert TensorProto.FLOAT16 not in {tensor.data_type for tensor in runs.initializer}
    assert not computes_in_half(content)
    report = infer([str(face)], InferOptions(artifact=made.artifact))
    assert report.precision == "fp32"
    assert report.executes_as == "fp32, weights stored in FP16"
    assert report.results[0].error is None
    assert not artifact.with_name("fp16-trt.onnx").exists()


def test_what_is_stored_in_fp16_is_no_engine_of_fp16(artifact):
    fp16.convert(artifact)
    check_for_tensorrt(onnx.load(artifact.with_name("fp16-trt.onnx")), "fp16-trt.onnx")
    with pytest.raises(EdgeError, match=r"take fp16-trt\.onnx: .* --target tensorrt"):
        check_for_tensorrt(onnx.load(artifact.with_name("fp16.onnx")), "fp16.onnx")


def test_fp16_arithmetic_can_be_demanded(artifact, capsys):
    asked = ["--artifact", str(artifact), "--require-precision"]
    assert fp16.main(asked) == EXIT_PRECISION
    assert "fp16.onnx computes in FP32 on every CPU" in capsys.readouterr().err
    assert not list(artifact.parent.glob("fp16*"))
    assert fp16.main([*asked, "--target", "tensorrt"]) == 0
    assert fp16.main([*asked, "--target", "phone"]) == EXIT_USAGE


@pytest.mark.parametrize("target", ["cpu,tensorrt", "tensorrt"])
def test_an_overflow_is_found_and_leaves_no_file(artifact, capsys, target):
    weights = tiny_artifact.weights()
    weights["embed"], weights["embed_bias"] = weights["embed"] * 1e5, weights["embed_bias"] * 1e5
    for name in ("local_weight", "global_weight"):
        weights[name] = weights[name] / np.float32(1e5)
    tiny_artifact.write_artifact(
        artifact.parent, model=tiny_artifact.build(tiny_artifact.FP32, weights)
    )
    assert fp16.main(["--artifact", str(artifact), "--target", target]) == EXIT_DRIFT
    assert "FP16 keeps 0.0 dB on faces and 0.0 on stress probes" in capsys.readouterr().err
    assert not list(artifact.parent.glob("fp16*"))


def half(*shape, seed=0):
    values = np.random.default_rng(seed).normal(size=shape)
    return values.astype(np.float16).astype(np.float32)


def test_sums_are_rounded_to_fp16_after_each_product():
    a, b = half(2, 3, 50), half(2, 50, 7, seed=1)
    total = np.zeros((2, 3, 7), np.float16)
    for k in range(50):
        product = a[:, :, k, None] * b[:, None, k]
        total = (total.astype(np.float32) + product).astype(np.float16)
    assert np.array_equal(sum_in_half(a, b), total.astype(np.float32))
    assert 1e-4 < np.abs(multiply(a, b) - a @ b).max() < 0.1
    assert np.isposinf(sum_in_half(np.full((1, 1, 2), 6e4), np.ones((1, 2, 1)))).all()


@pytest.mark.parametrize(
    ("channels", "weights", "attributes"),
    [
        (3, (8, 3, 3, 3), {"pads": [1, 1, 1, 1]}),
        (4, (8, 2, 3, 3), {"pads": [1, 1, 1, 1], "group": 2}),
        (6, (6, 1, 5, 3), {"pads": [2, 1, 2, 1], "group": 6}),
        (3, (4, 3, 2, 2), {"strides": [2, 2]}),
        (3, (4, 3, 3, 3), {"dilations": [2, 2]}),
    ],
    ids=["dense", "grouped", "depthwise", "strided", "dilated"],
)
def test_a_convolution_with_fp16_sums_is_a_convolution(channels, weights, attributes):
    x, weight, bias = half(2, channels, 9, 9), half(*weights, seed=1), half(weights[0], seed=2)
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "convolution",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")],
    )
    opset = [helper.make_opsetid("", 20)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    exact = open_quietly(model.SerializeToString()).run(None, {"x": x})[0]
    made = convolve(x, weight, bias, **attributes)
    assert made.shape == exact.shape
    assert np.abs(made - exact).max() < 0.03


def test_fp16_sums_lose_more_than_rounded_activations():
    model = onnx.load_model_from_string(tiny_artifact.build())
    lr = to_tensor(tiny_artifact.faces(2))
    exact = open_quietly(model.SerializeToString()).run(None, {"lr": lr})[0]
    rounded = open_quietly(round_to_half(model).SerializeToString()).run(None, {"lr": lr})[0]
    summed = open_summed_in_half(model)(lr)
    assert 0 < np.abs(rounded - exact).mean() < np.abs(summed - exact).mean() < 1e-3
