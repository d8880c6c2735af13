"""`python -m aminet.info` counts what a network costs, and lists its weights."""

import json

import pytest

from aminet.config import ABLATIONS, ModelConfig
from aminet.info import main, measure_cost
from runtime.errors import EXIT_USAGE


def test_json_has_the_contracts_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", "aminet-edge", "--json"]) == 0
    assert {"model", "params", "macs", "weights", "sha256", "psnr_y", "minutes"} <= set(
        json.loads(capsys.readouterr().out)
    )


def test_table_lists_every_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("aminet ", "aminet-s", "aminet-edge", "amigan"))


def test_unknown_model_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", "aminet-xl"]) == EXIT_USAGE
    assert "aminet-xl: unknown, expected one of aminet-edge" in capsys.readouterr().err


def test_ablations_are_reached_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--ablation", "without-sa", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"] == "ablation/without-sa"
    assert found["params"] == measure_cost(ABLATIONS["without-sa"]).params
    assert main(["--ablation", "without-wings"]) == EXIT_USAGE
    assert "ablation/without-wings: unknown" in capsys.readouterr().err


def test_cost_of_a_tiny_network_by_hand() -> None:
    """Everything but the two blocks of a level can be counted on paper: the entry and exit do."""
    small = ModelConfig(
        channels=(8, 16), heads=(1, 1), refine_convs=(0, 0), hourglass=(0, 0), side=16
    )
    deep = ModelConfig(
        channels=(8, 16), heads=(1, 1), refine_convs=(1, 0), hourglass=(0, 0), side=16
    )
    one_conv, blocks = 8 * 8 * 9, 2
    difference = measure_cost(deep).params - measure_cost(small).params
    assert difference == blocks * (one_conv + 8)
    assert measure_cost(deep).macs - measure_cost(small).macs == blocks * one_conv * 16 * 16
