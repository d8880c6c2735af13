"""INT8 engines: the project's own and NNCF under one budget, and which file is kept."""

import sys
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

import tiny_artifact
from benchmarks.studies import engine_steps
from benchmarks.studies.accuracy_control import NAME
from benchmarks.studies.engine_steps import EQUALIZED_STEPS, NNCF_STEPS
from benchmarks.studies.engine_tables import engines_table, steps_table
from benchmarks.studies.engines import EngineStudyOptions, compare_engines
from export.gate import check_for_tensorrt
from quantize.budget import Int8Candidate
from quantize.engines import nncf as engine_module
from quantize.engines.zero_points import make_signed, make_unsigned
from quantize.int8 import main, quantize
from quantize.options import Int8Options
from quantize.precision import open_quietly
from quantize.quantizer import choose
from quantize.targets import TARGETS
from runtime.drift import Fidelity
from runtime.errors import EXIT_MISSING, EXIT_USAGE
from runtime.evaluation import Evaluation
from runtime.manifest import read_manifest

CPU, OPENVINO, TENSORRT = TARGETS.values()
PAIR = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[1, 4] x) => (float[1, 4] y) <float scale = {0.02}, TYPE zero = {ZERO}> {
        q = QuantizeLinear (x, scale, zero)
        y = DequantizeLinear (q, scale, zero)
    }
"""
X = np.array([[-0.5, 0.0, 1.0, 2.4]], np.float32)


def pair(kind, zero):
    return parser.parse_model(PAIR.replace("TYPE", kind).replace("ZERO", str(zero)))


def run(model):
    return open_quietly(model.SerializeToString()).run(None, {"x": X})[0]


def zero_point(model):
    return next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == "zero")


def test_int8_activations_become_uint8_ones_of_the_same_numbers():
    model = pair("int8", -28)
    unsigned = make_unsigned(model)
    assert (zero_point(unsigned).dtype, zero_point(unsigned)) == (np.uint8, 100)
    assert np.array_equal(run(unsigned), run(model))


def test_uint8_activations_around_zero_become_int8_ones_of_the_same_range():
    signed = make_signed(pair("uint8", 0))
    assert (zero_point(signed).dtype, zero_point(signed)) == (np.int8, 0)
    assert run(signed) == pytest.approx(np.array([[-0.5, 0, 1, 2.4]]), abs=0.03)


def test_a_zero_point_that_int8_around_zero_cannot_have_is_left_for_the_gate():
    assert zero_point(make_signed(pair("uint8", 7))).dtype == np.uint8


@pytest.fixture
def without_nncf(monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)


@pytest.mark.parametrize("engine", ["nncf", "auto"])
def test_without_nncf_the_extra_is_named(engine, source, calib, without_nncf, capsys):
    assert main(["--calib", str(calib), "--engine", engine]) == EXIT_MISSING
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --engine nncf: ")
    assert line.endswith("is not installed; pip install 'aminet-edge[nncf]'")
    assert not source.with_name("int8.onnx").exists()


def test_an_nncf_of_another_api_is_one_line(source, calib, monkeypatch, capsys):
    class Other:
        __version__ = "99.0"

    monkeypatch.setitem(sys.modules, "nncf", Other)
    assert main(["--calib", str(calib), "--engine", "nncf"]) == EXIT_MISSING
    (line,) = capsys.readouterr().err.splitlines()
    assert "nncf 99.0 has another API" in line
    assert "expected 2.17 or newer" in line


def test_an_unknown_engine_is_a_usage_error():
    with pytest.raises(SystemExit) as ended:
        main(["--engine", "magic"])
    assert ended.value.code == EXIT_USAGE


def test_nncf_meets_the_same_budget_gate_and_manifest_silently(source, calib, capfd):
    pytest.importorskip("nncf")
    options = Int8Options(max_drop_db=0.3, engine="nncf", require_precision=True)
    result = quantize(source, [calib], options=options)
    assert result.failures == ()
    for made in result.artifacts:
        assert made.engine == "nncf"
        assert made.int8_mac_share == 1
        manifest = read_manifest(made.artifact)
        assert manifest.flags["engine"] == "nncf"
        assert manifest.flags["engine_version"] == manifest.tools["nncf"] == made.engine_version
        if manifest.target == "tensorrt":
            check_for_tensorrt(onnx.load(made.artifact), made.artifact)
    assert capfd.readouterr() == ("", "")  # neither NNCF's logs nor its progress bars


def test_auto_builds_both_and_says_which_it_kept(source, calib):
    pytest.importorskip("nncf")
    options = Int8Options(max_drop_db=0.3, engine="auto")
    (made,) = quantize(source, [calib], [CPU], options).artifacts
    assert made.engine in ("native", "nncf")
    assert made.choice.startswith(f"{made.engine} kept (native ")
    assert made.choice.count(" dB, ") == made.choice.count(" ms") == 2


@pytest.mark.soak
def test_the_study_has_a_row_for_each_file_each_step_and_nncfs_own_loop(source, calib):
    pytest.importorskip("nncf")
    found = compare_engines(source, EngineStudyOptions(calib=[calib], faces=16))
    files = {(row.engine, row.target.split(", ")[0]) for row in found.rows}
    engines = ("native", "nncf", NAME)
    assert files == {(engine, target) for engine in engines for target in TARGETS}
    assert all(row.fidelity_db > 48 for row in found.rows)
    assert engines_table(found).count("\n| ") == 2 + len(found.rows)
    assert {row.target for row in found.steps} == set(TARGETS)
    assert len(found.steps) == 3 * (3 + len(NNCF_STEPS) + len(EQUALIZED_STEPS))
    assert steps_table(found).count("\n| ") == 2 + len(found.steps) / 3
    assert set(found.choices) == set(TARGETS)


def test_a_recipe_that_fails_in_its_library_is_a_row_and_ends_nothing(monkeypatch):
    class Quantizer:
        def attempt(self, engine, target, layers):
            if engine.name == "nncf" and engine.version == "broken":
                raise KeyError("node_conv2d_1")
            return candidate(engine.name, 55.0)

        def evaluate(self, target, content, layers):
            return candidate("", 54.0)

    engines = [("min/max", "native", ""), ("as it is", "nncf", ""), ("accurate", "nncf", "broken")]
    monkeypatch.setattr(
        engine_steps,
        "recipes",
        lambda *_: [(step, SimpleNamespace(name=n, version=v)) for step, n, v in engines],
    )
    layers = {TARGETS[name]: () for name in ("cpu", "openvino")}
    rows = tuple(engine_steps.compare_steps(None, None, Quantizer(), layers))
    table = steps_table(SimpleNamespace(steps=rows))
    assert "| nncf | accurate | failed | failed |" in table
    assert "nncf, accurate, for cpu: KeyError: 'node_conv2d_1'." in table
    assert "| nncf | as it is | 55.0 (55.0) | 54.0 (54.0) |" in table


def candidate(engine, fidelity_db):
    return Int8Candidate(
        content=b"",
        layers=(),
        held_out=Evaluation(6, fidelity_db, fidelity_db),
        real=None,
        probes=Fidelity(fidelity_db, fidelity_db, 20),
        computed=frozenset(),
        backend_version="1",
        engine=engine,
    )


@pytest.mark.parametrize(
    ("fidelities_db", "times_ms", "kept"),
    [
        ((55, 50), (5.0, 5.0), 0),
        ((50, 55), (5.0, 5.05), 1),  # as fast
        ((50, 55), (5.0, 6.0), 0),  # not as fast, and both meet the budget
        ((50, 55), (6.0, 5.0), 1),
        ((55, 50), None, 0),  # nothing was timed: only a proxy runs it
    ],
)
def test_the_higher_fidelity_is_kept_at_equal_or_better_speed(fidelities_db, times_ms, kept):
    names = ("native", "nncf")
    pair = [candidate(name, db) for name, db in zip(names, fidelities_db, strict=True)]
    place, why = choose(pair, times_ms)
    assert place == kept
    assert why.startswith(f"{names[kept]} kept (")


def test_the_tiny_network_is_the_one_that_nncf_was_seen_with():
    """Its operators have no names, and NNCF's ignored scope is of names."""
    model = onnx.load_model_from_string(tiny_artifact.build())
    named = engine_module.name_operators(model)
    assert len({node.name for node in named.graph.node}) == len(model.graph.node)
