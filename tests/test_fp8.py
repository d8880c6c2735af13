"""FP8: files that meet the budget, pass TensorRT's gate and are built by TensorRT-RTX."""

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export.gate import check_for_tensorrt, types_of
from export.trt.build import compile_engine, find_builder
from export.trt.options import BuildOptions
from quantize import fp8
from quantize.int8 import quantize
from quantize.options import Int8Options
from quantize.qdq import Range, quantize_weight_to_fp8
from quantize.targets import TARGETS
from runtime.artifact import read_artifact
from runtime.backends.open import open_backend
from runtime.errors import EXIT_DRIFT, EXIT_MISSING, EdgeError
from runtime.manifest import read_manifest
from runtime.session import open_session

RTX = BuildOptions(builder="tensorrt-rtx")
LIMIT = 448  # E4M3's largest number


@pytest.fixture
def made(source, calib, capsys):
    """What the command prints, and the file whose rest is FP32."""
    arguments = ["--artifact", str(source), "--calib", str(calib), "--max-drop-db", "0.3"]
    assert fp8.main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)["artifacts"], source.with_name("fp8-trt.onnx")


def test_both_files_are_written_with_manifests_and_pass_the_probes(made):
    artifacts, path = made
    assert [one["artifact"] for one in artifacts] == [
        str(path),
        str(path.with_name("fp8-trt-fp16.onnx")),
    ]
    for one in artifacts:
        manifest = read_manifest(one["artifact"])
        assert (manifest.precision, manifest.target) == ("fp8", "tensorrt")
        assert manifest.executes_as.startswith("fp8, ")
        assert manifest.measured_on[0].emulated
        with open_session(one["artifact"]) as session:
            assert session.verdict.passed


def test_onnx_runtime_does_not_optimize_pairs_that_it_misreads(made, source, calib):
    """FP8's, and FP16 scales: with its optimizations they are an error, or wrong numbers."""
    quantize(source, [calib], [TARGETS["tensorrt"]], Int8Options(max_drop_db=0.3))
    names = ("fp8-trt.onnx", "fp8-trt-fp16.onnx", "int8-trt-fp16.onnx", "int8-trt.onnx")
    amounts = []
    for name in names:
        with open_backend("onnxruntime", read_artifact(source.with_name(name))) as runner:
            amounts.append(runner.options.split(", ")[1])
    assert amounts == [*["no graph optimizations"] * 3, "all graph optimizations"]


def test_tensorrt_rtx_builds_it_for_ada_and_the_types_are_the_file_s(made, source):
    _, path = made
    types = types_of(onnx.load(path))
    assert set(types["QUANTIZE"]) == {"FP8"}
    found = find_builder(RTX)
    with pytest.raises(EdgeError, match=r"FP8 needs compute capability 8\.9") as caught:
        compile_engine(path, found, RTX)
    assert caught.value.status == EXIT_MISSING
    ada = BuildOptions(builder="tensorrt-rtx", capabilities=("8.9",))
    assert compile_engine(path, found, ada).network_types == types


def test_a_budget_that_is_missed_leaves_no_file(source, calib, capsys):
    arguments = ["--artifact", str(source), "--calib", str(calib), "--max-drop-db", "1e-6"]
    assert fp8.main(arguments) == EXIT_DRIFT
    assert "misses the budget" in capsys.readouterr().err
    assert not source.with_name("fp8-trt.onnx").exists()


@pytest.mark.parametrize("low_high", [(-3.0, 1.0), (0.0, 0.25), (0.0, 0.0)])
def test_the_range_ends_at_the_largest_number_of_fp8(low_high):
    scale, zero = Range(*low_high).fp8_parameters()
    assert float(zero) == 0
    assert LIMIT * scale == pytest.approx(max(map(abs, low_high)), abs=1e-6)


def test_weights_keep_four_significant_bits_in_each_channel():
    weight = np.array([[1.0, 0.1, -0.013], [1e-3, -5e-4, 0.0]], np.float32).reshape(2, 3, 1, 1)
    levels, scale = quantize_weight_to_fp8(weight)
    back = levels.astype(np.float32) * scale.reshape(2, 1, 1, 1)
    assert back == pytest.approx(weight, rel=2**-4)
    stored = numpy_helper.from_array(levels, "w")
    assert stored.data_type == onnx.TensorProto.FLOAT8E4M3FN


def test_the_gate_takes_fp8(made):
    _, path = made
    check_for_tensorrt(onnx.load(path), str(path))
