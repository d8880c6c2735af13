"""The Polygraphy commands in docs/tensorrt.md work, with TensorRT-RTX and without a GPU."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import tiny_artifact
from quantize.fp16_passes import to_half

ROOT = Path(__file__).parent.parent
DOCS = (ROOT / "docs" / "tensorrt.md").read_text()
COMMANDS = [line.strip() for line in DOCS.splitlines() if line.startswith("    polygraphy ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the commands are run: a tiny network in the place of aminet-edge, and a broken one."""
    folder = tmp_path_factory.mktemp("docs")
    models = folder / "artifacts" / "aminet-edge"
    models.mkdir(parents=True)
    fp32 = tiny_artifact.build()
    signed = {**tiny_artifact.quantized_weights(), "feature_zero": np.int8(0)}
    (models / "fp32.onnx").write_bytes(fp32)
    half = to_half(onnx.load_model_from_string(fp32))
    (models / "fp16-trt.onnx").write_bytes(half.SerializeToString())
    (models / "int8-trt.onnx").write_bytes(tiny_artifact.build(tiny_artifact.INT8, signed))
    broken = tiny_artifact.build(tiny_artifact.FP32.replace("Relu", "Bernoulli"))
    (folder / "broken.onnx").write_bytes(broken)
    return folder


def test_polygraphy_does_what_the_docs_say(folder):
    tools = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "POLYGRAPHY_USE_TENSORRT_RTX": "1",
    }
    assert len(COMMANDS) == 6
    for command in COMMANDS:
        done = subprocess.run(
            [tools / "polygraphy", *shlex.split(command)[1:]],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    assert (folder / "fp16.engine").stat().st_size > 10_000
    operators = [node.op_type for node in onnx.load(folder / "sanitized.onnx").graph.node]
    assert operators.count("DequantizeLinear") == 2
    (smallest,) = onnx.load(folder / "smallest.onnx").graph.node
    assert smallest.op_type == "Bernoulli"
