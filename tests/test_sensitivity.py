"""The sensitivity of layers: measured one by one, kept when stopped, listed and drawn."""

import json
from dataclasses import replace

import pytest
from PIL import Image

from quantize import sensitivity
from quantize.int8 import quantize
from quantize.options import Int8Options
from quantize.source import SourceModel
from quantize.targets import TARGETS
from runtime.errors import EXIT_USAGE, EdgeError

CPU = TARGETS["cpu"]
PLAIN_MISSES_DB = 0.0127  # over it with all layers in INT8, under it with one


def test_sensitivity_has_each_layer_a_total_and_the_next_command(source, calib, capsys):
    arguments = ["--artifact", str(source), "--calib", str(calib)]
    assert sensitivity.main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    layers = result["layers"]
    assert {layer["layer"] for layer in layers} == {"embed", "local_weight", "global_weight"}
    fidelities = [layer["fidelity_db"] for layer in layers]
    assert fidelities == sorted(fidelities)  # the most sensitive first
    assert all(layer["ms_saved"] is not None for layer in layers)
    assert sum(layer["error_share"] for layer in layers) == pytest.approx(1)
    assert result["total_fidelity_db"] < min(fidelities)
    assert sensitivity.main(arguments) == 0
    *_, total, following = capsys.readouterr().out.splitlines()
    assert total.startswith("all, if errors add")
    assert following.startswith("next: python -m quantize.int8 --calib")


def test_the_plot_marks_the_layers_kept_in_fp32(source, calib, tmp_path, capsys):
    quantize(source, [calib], [CPU], Int8Options(max_drop_db=PLAIN_MISSES_DB))
    result = sensitivity.sensitivity(source, [calib], plot=tmp_path / "plot.png")
    assert sum(layer.kept_fp32 for layer in result.layers) == 2
    with Image.open(tmp_path / "plot.png") as plot:
        assert plot.format == "PNG"
        colors = {color for _, color in plot.convert("RGB").getcolors(1 << 24)}
    assert {(0x2A, 0x7D, 0xE1), (0xD9, 0x82, 0x2B)} <= colors  # INT8 and FP32
    sensitivity.sensitivity(source, [calib], plot=tmp_path / "plot.svg")
    assert "<svg" in (tmp_path / "plot.svg").read_text()


def test_a_plot_of_another_kind_is_refused_before_any_work(source, calib, capsys):
    assert sensitivity.main(["--calib", str(calib), "--plot", "plot.bmp"]) == EXIT_USAGE
    assert "--plot plot.bmp: expected a name that ends in .png" in capsys.readouterr().err


def test_a_stopped_measurement_continues_where_it_stopped(source, calib, monkeypatch):
    opened = []
    open_file = SourceModel.open

    def count(*arguments):
        opened.append(arguments)
        return open_file(*arguments)

    monkeypatch.setattr(SourceModel, "open", count)
    options = Int8Options(max_drop_db=PLAIN_MISSES_DB, minutes=0)
    with pytest.raises(EdgeError, match="0 of 3 layers measured after 0 minutes; run it again"):
        quantize(source, [calib], [CPU], options)
    opened.clear()
    sensitivity.sensitivity(source, [calib])
    assert len(opened) == 4  # FP32, and each layer alone
    opened.clear()
    quantize(source, [calib], [CPU], replace(options, minutes=1))
    assert len(opened) < 9  # FP32 and the candidates; the layers' errors were remembered
