"""`python -m aminet.info` counts what a network costs, and lists its weights."""

import json

import pytest

from aminet.config import ModelConfig
from aminet.info import main, measure_cost
from runtime.errors import EdgeError


def test_json_has_the_contracts_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", "aminet-edge", "--json"]) == 0
    assert {"model", "params", "macs", "weights", "sha256", "psnr_y", "minutes"} <= set(
        json.loads(capsys.readouterr().out)
    )


def test_table_lists_every_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("aminet ", "aminet-s", "aminet-edge", "amigan"))


def test_unknown_model_is_named() -> None:
    with pytest.raises(EdgeError, match="aminet-xl: unknown"):
        main(["--model", "aminet-xl"])


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
