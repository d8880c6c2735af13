"""export.compare: how far one ONNX file is from another, and which layers make it so."""

import json

import numpy as np
import onnx
import pytest

from export import comparison
from export.compare import main
from runtime.errors import EXIT_ERROR, EXIT_USAGE


@pytest.fixture(scope="module")
def files(tiny_model):
    return tiny_model / "fp32.onnx", tiny_model / "int8.onnx"


@pytest.fixture
def damaged(files, tmp_path):
    """fp32.onnx with noise on one convolution's weights."""
    model = onnx.load(files[0])
    weight = next(t for t in model.graph.initializer if t.name == "decoders.0.up.weight")
    values = onnx.numpy_helper.to_array(weight)
    noise = np.random.default_rng(0).normal(0, values.std(), values.shape)
    weight.CopyFrom(onnx.numpy_helper.from_array((values + noise).astype(np.float32), weight.name))
    onnx.save(model, tmp_path / "damaged.onnx")
    return tmp_path / "damaged.onnx"


def test_a_file_equals_itself(files):
    result = comparison.compare(files[0], files[0], layers=True)
    assert (result.max_abs_diff, result.unmatched) == (0, 0)
    assert {row.snr_db for row in result.layers} == {comparison.EXACT_DB}


def test_the_error_begins_at_the_damaged_layer(files, damaged):
    result = comparison.compare(files[0], damaged, layers=True)
    first = next(row for row in result.layers if row.added > 1e-9)
    assert first.layer == "decoders.0.up"
    assert first in result.worst_layers[:10]
    assert result.fidelity_db < 50


def test_int8_is_matched_through_the_passes_silently(files, capfd, tmp_path):
    arguments = [str(path) for path in files]
    plot = tmp_path / "layers.png"
    assert main([*arguments, "--layers", "--json", "--plot", str(plot)]) == 0
    out, err = capfd.readouterr()  # Polygraphy would log each step on stdout
    result = json.loads(out)
    assert err == ""
    assert 30 < result["fidelity_db"] < 90
    assert len(result["layers"]) > 3 * result["unmatched"]
    assert result["worst_layers"][0] in {row["layer"] for row in result["layers"]}
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["{fp32}", "missing.onnx"], EXIT_ERROR, "missing.onnx: "),
        (["{fp32}", "{text}"], EXIT_ERROR, "not an ONNX file"),
        (["{alone}", "{alone}"], EXIT_ERROR, "give images: --data"),
        (["{fp32}", "{fp32}", "--plot", "x.png"], EXIT_USAGE, "--plot: needs --layers"),
    ],
)
def test_bad_input_is_one_line(arguments, status, message, files, damaged, tmp_path, capsys):
    (tmp_path / "text.onnx").write_text("no model")
    places = {"fp32": files[0], "text": tmp_path / "text.onnx", "alone": damaged}
    assert main([word.format(**places) for word in arguments]) == status
    out, err = capsys.readouterr()
    assert message in err
    assert (out, err.count("\n")) == ("", 1)
