"""The drift budget: what it allows, and which layers the loop keeps in FP32 to meet it."""

from dataclasses import replace

import numpy as np
import pytest

from quantize.budget import WORST, Budget, Int8Candidate, meet_budget
from quantize.layers import Layer
from quantize.targets import CORRELATION
from runtime.drift import Fidelity
from runtime.errors import EXIT_DRIFT, EdgeError
from runtime.evaluation import Evaluation

LAYERS = tuple(
    Layer(name, name, "x", "y", "y", name, None, macs)
    for name, macs in (("a", 10), ("b", 10), ("c", 40), ("d", 40))
)
COST = {"a": 8.0, "b": 4.0, "c": 2.0, "d": 1.0}  # squared error


def candidate(held_out, probes, drift=None, *, layers=(), finite=True):
    """Of (fidelity, worst) on held-out faces and probes, (mean, worst) drift on real faces."""
    return Int8Candidate(
        content=b"",
        layers=tuple(layers),
        held_out=Evaluation(6, *held_out),
        real=Evaluation(3, 50, 50, 27, *drift) if drift else None,
        probes=Fidelity(*probes, 20, finite),
        computed=frozenset(),
        backend_version="1",
    )


def attempt(layers):
    fidelity = 2 * (60 - sum(COST[layer.name] for layer in layers),)
    return candidate(fidelity, fidelity, layers=layers)


@pytest.mark.parametrize(
    ("least_db", "kept"), [(44, "abcd"), (46, "bcd"), (53, "bcd"), (56, "cd"), (58, "d")]
)
def test_the_most_sensitive_layers_stay_in_fp32_and_no_more(least_db, kept):
    budget = Budget(0.03, 27.0 + least_db - Budget(0.03, 27.0).least_expected_db())
    if kept == "d":  # 40 of 100 multiply-adds
        with pytest.raises(EdgeError) as caught:
            meet_budget(budget, LAYERS, 100, attempt, lambda: COST)
        assert caught.value.status == EXIT_DRIFT
    else:
        met = meet_budget(budget, LAYERS, 100, attempt, lambda: COST)
        assert "".join(sorted(layer.name for layer in met.layers)) == kept


def test_a_layer_too_large_to_stay_in_fp32_does_not_end_the_search():
    a, b, _, d = LAYERS
    layers = (replace(a, macs=60), replace(b, macs=20), replace(d, macs=20))
    budget = Budget(0.03, 27.0 + 50 - Budget(0.03, 27.0).least_expected_db())
    met = meet_budget(budget, layers, 100, attempt, lambda: COST)
    assert [layer.name for layer in met.layers] == ["a", "d"]


@pytest.mark.parametrize(("give_back", "kept"), [(True, "abd"), (False, "d")])
def test_layers_that_a_large_sensitive_one_made_stay_in_fp32_are_given_back(give_back, kept):
    """Cost by size: a, b, c, d; without c alone the budget is met."""
    a, b, c, d = LAYERS
    layers = (
        replace(a, macs=0),
        replace(b, macs=0),
        replace(c, macs=10**8),
        replace(d, macs=10**9),
    )
    cost = {"a": 2.0, "b": 1.0, "c": 20.0, "d": 1.0}

    def attempt(layers):
        fidelity = 2 * (60 - sum(cost[layer.name] for layer in layers),)
        return candidate(fidelity, fidelity, layers=layers)

    budget = Budget(0.03, 27.0 + 52 - Budget(0.03, 27.0).least_expected_db())
    met = meet_budget(budget, layers, 10**9, attempt, lambda: cost, give_back=give_back)
    assert "".join(layer.name for layer in met.layers) == kept


@pytest.mark.parametrize(
    ("held_out", "probes", "drift", "allowed"),
    [
        ((53, 42), (53, 42), None, True),
        ((51, 51), (53, 42), None, False),  # the worst of hundreds would lose too much
        ((53, 41), (53, 42), None, False),  # one face is far off
        ((53, 42), (51, 51), None, False),  # the same of the probes' faces
        ((53, 42), (53, 41), None, False),
        ((90, 90), (49, 48), None, False),  # a set that hides what real faces would lose
        ((40, 30), (49, 42), (0.03, 0.15), True),  # measured drift outweighs expected drift
        ((40, 30), (48, 48), (0.03, 0.15), False),  # but every start would refuse it
        ((49, 42), (49, 42), (0.04, 0.05), False),
        ((49, 42), (49, 42), (0.01, 0.16), False),
    ],
)
def test_budget(held_out, probes, drift, allowed):
    assert Budget(0.03, 27.0).allows(candidate(held_out, probes, drift)) is allowed


def test_what_the_worst_face_loses_is_the_error_that_adds_to_the_one_there_is():
    """By its definition, on errors that correlate as much as is expected."""
    budget = Budget(0.03, 27.0)
    residual = np.array([1.0, 0.0])
    size = 10 ** ((27.0 - budget.least_for_the_worst_db()) / 20)
    error = size * np.array([CORRELATION, np.sqrt(1 - CORRELATION**2)])
    lost_db = 20 * np.log10(np.linalg.norm(residual + error))
    assert lost_db == pytest.approx(WORST * 0.03, rel=0.15)


def test_what_is_not_finite_is_over_any_budget():
    assert not Budget(10, 27.0).allows(candidate((100, 100), (100, 100), finite=False))
