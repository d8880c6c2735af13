"""FP16 files keep 60 dB in FP16 arithmetic, and say where that is not what runs."""

import json

import numpy as np
import pytest

import tiny_artifact
from quantize import fp16
from quantize.precision import computes_in_half
from runtime.errors import EXIT_DRIFT, EXIT_PRECISION
from runtime.infer import Options, infer
from runtime.manifest import read_manifest
from runtime.session import open_session


@pytest.fixture
def native(artifact):
    """Whether ONNX Runtime computes in FP16 on this processor."""
    fp16.convert(artifact)
    return computes_in_half(artifact.with_name("fp16.onnx").read_bytes())


def test_fp16_is_half_the_size_and_keeps_60_db(artifact, capsys):
    assert fp16.main(["--artifact", str(artifact), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["bytes"] < 0.6 * artifact.stat().st_size
    assert min(result["fidelity_db"], result["extremes_fidelity_db"]) >= 60
    manifest = read_manifest(result["artifact"])
    assert (manifest.precision, manifest.executes_as) == ("fp16", result["executes_as"])
    assert [m.emulated for m in manifest.measured_on] == [False, True]
    with open_session(result["artifact"]) as session:
        assert session.verdict.passed


def test_where_it_runs_in_fp32_inference_says_so_and_goes_on(artifact, native, face):
    report = infer([str(face)], Options(artifact=str(artifact.with_name("fp16.onnx"))))
    assert report.precision.startswith("fp16" if native else "fp32, ")
    assert report.results[0].error is None


def test_fp16_arithmetic_can_be_demanded(artifact, native):
    status = fp16.main(["--artifact", str(artifact), "--require-precision"])
    assert status == (0 if native else EXIT_PRECISION)


def test_an_overflow_is_found_and_leaves_no_file(artifact, capsys):
    weights = tiny_artifact.weights()
    weights["embed"], weights["embed_bias"] = weights["embed"] * 1e5, weights["embed_bias"] * 1e5
    for name in ("local_weight", "global_weight"):
        weights[name] = weights[name] / np.float32(1e5)
    tiny_artifact.write_artifact(
        artifact.parent, model=tiny_artifact.build(tiny_artifact.FP32, weights)
    )
    assert fp16.main(["--artifact", str(artifact)]) == EXIT_DRIFT
    assert "FP16 keeps 0.0 dB on faces and 0.0 on extremes" in capsys.readouterr().err
    assert not list(artifact.parent.glob("fp16*"))
