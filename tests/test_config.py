"""Sizes are hard requirements (the paper's Table X; aminet-edge's own budget), counted here."""

import dataclasses
import re

import pytest

from aminet.config import ABLATIONS, MODELS, ModelConfig
from aminet.info import measure_cost

TINY = ModelConfig(channels=(8, 16), heads=(1, 2), refine_convs=(1, 1), hourglass=(1, 0), side=16)


@pytest.mark.parametrize(
    ("model", "params", "macs", "params_tolerance", "macs_tolerance"),
    [
        ("aminet", 15.6e6, 15.6e9, 0.02, 0.03),
        ("amigan", 15.6e6, 15.6e9, 0.02, 0.03),
        ("aminet-s", 8.2e6, 9.4e9, 0.02, 0.03),
    ],
)
def test_models_have_the_papers_size(
    model: str, params: float, macs: float, params_tolerance: float, macs_tolerance: float
) -> None:
    cost = measure_cost(MODELS[model])
    assert cost.params == pytest.approx(params, rel=params_tolerance)
    assert cost.macs == pytest.approx(macs, rel=macs_tolerance)


@pytest.mark.parametrize("model", ["aminet-edge", "aminet-real"])
def test_edge_models_fit_a_phone(model: str) -> None:
    cost = measure_cost(MODELS[model])
    assert cost.params <= 5.5e6
    assert cost.macs <= 0.9e9


@pytest.mark.parametrize(
    ("ablation", "params"), [("base", 12.62e6), ("transformer", 11.32e6), ("ffn", 12.11e6)]
)
def test_ablation_bases_have_the_papers_size(ablation: str, params: float) -> None:
    assert measure_cost(ABLATIONS[ablation]).params == pytest.approx(params, rel=0.03)


@pytest.mark.parametrize("ablation", [name for name in ABLATIONS if name != "base"])
def test_every_ablation_changes_the_network(ablation: str) -> None:
    assert measure_cost(ABLATIONS[ablation]) != measure_cost(ABLATIONS["base"])


def test_config_survives_json() -> None:
    assert ModelConfig.from_dict(TINY.to_dict()) == TINY


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"channels": (8,)}, "channels"),
        ({"heads": (1, 2, 4)}, "heads"),
        ({"heads": (3, 2)}, "heads: 3 do not divide 8"),
        ({"side": 20}, "side: 20"),
        ({"lr_side": 20}, "lr_side: 20"),
        ({"lr_side": 128}, "lr_side: 128"),
        ({"hourglass": (5, 0)}, "hourglass"),
        ({"self_attention": False, "local_branch": "none"}, "self_attention"),
        ({"skaf_pools": ()}, "skaf_pools"),
        ({"skaf_pools": ("median",)}, "skaf_pools"),
        ({"rdfe_kernels": (4,)}, "rdfe_kernels"),
    ],
)
def test_impossible_configs_are_refused_by_field(change: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=re.escape(named)):
        dataclasses.replace(TINY, **change)  # type: ignore[arg-type]


def test_unknown_and_missing_fields_are_named() -> None:
    with pytest.raises(ValueError, match="wings"):
        ModelConfig.from_dict(TINY.to_dict() | {"wings": 2})
    with pytest.raises(ValueError, match="channels"):
        ModelConfig.from_dict({"heads": [1, 2]})
