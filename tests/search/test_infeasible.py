"""Which choice binds where nothing fits, by a law of latency that is known."""

from collections.abc import Sequence

import numpy as np
import pytest
from laboratory import GEOMETRY, laboratory_space, law_ms, law_ms_of_wide_layers

from hwsearch.records import Deployment
from hwsearch.search.infeasible import Infeasibility, explain, round_up, sentence
from hwsearch.search.objectives import Limits

SPACE = laboratory_space()
LAWS = (law_ms, law_ms_of_wide_layers)


def predict(deployments: Sequence[Deployment]) -> np.ndarray:
    return np.array([[law_ms(one)] for one in deployments])


def why(limit_ms: float, *, slower: float = 1.0) -> Infeasibility:
    nearest = SPACE.smallest
    return explain(
        nearest,
        space=SPACE,
        geometry=GEOMETRY,
        predict=predict,
        latencies_ms=[slower * law_ms(nearest)],
        limits=Limits((limit_ms,)),
        names=["desk"],
    )


def test_the_choice_that_has_to_give_least_binds():
    smallest_ms = law_ms(SPACE.smallest)
    found = why(0.97 * smallest_ms)
    binding = found.relaxations[0]
    assert found.binding_choice == binding.choice
    assert binding.enough
    assert binding.latencies_ms[0] <= 0.97 * smallest_ms
    others = [row.share for row in found.relaxations if row.enough]
    assert binding.share == max(others)
    assert found.distances[0].over_percent == pytest.approx(100 * (1 / 0.97 - 1))
    assert f"the space's {binding.choice}: {binding.needed} instead of {binding.now}" in sentence(
        found
    )


def test_no_less_than_needed_is_asked_for():
    """One step less of the binding choice would not be enough."""
    smallest = SPACE.smallest.subnet
    found = why(0.97 * law_ms(SPACE.smallest))
    by_choice = {row.choice: row for row in found.relaxations}
    depth = by_choice["depth"]
    assert depth.now == f"{smallest.depth} layers"
    assert depth.needed == f"{smallest.depth - 1} layer"
    widths = by_choice["MLP widths"]
    least = int(widths.needed.split()[0])
    assert widths.enough
    capped = [min(layer.mlp_width, least + 8) for layer in smallest.layers]
    layers = tuple(
        layer.model_copy(update={"mlp_width": width})
        for layer, width in zip(smallest.layers, capped, strict=True)
    )
    wider = smallest.model_copy(update={"layers": layers})
    assert law_ms(Deployment(subnet=wider)) > 0.97 * law_ms(SPACE.smallest)


def test_where_no_choice_is_enough_the_one_that_brings_most_is_named():
    found = why(0.1)
    assert not any(row.enough for row in found.relaxations)
    fastest = min(row.latencies_ms[0] for row in found.relaxations)
    assert found.relaxations[0].latencies_ms[0] == fastest
    assert "no choice alone is enough" in sentence(found)


def test_predictions_are_scaled_to_what_the_nearest_took():
    plain, scaled = why(0.1), why(0.1, slower=2.0)
    for one, other in zip(plain.relaxations, scaled.relaxations, strict=True):
        assert other.latencies_ms[0] == pytest.approx(2 * one.latencies_ms[0])


def test_the_target_that_binds_is_named_beside_the_others():
    nearest = SPACE.smallest
    took = [law(nearest) for law in LAWS]
    found = explain(
        nearest,
        space=SPACE,
        geometry=GEOMETRY,
        predict=lambda chosen: np.array([[law(one) for law in LAWS] for one in chosen]),
        latencies_ms=took,
        limits=Limits((2 * took[0], 0.5 * took[1])),
        names=["desk", "board"],
        measured=[True, False],
    )
    assert found.binding_target == "board"
    text = sentence(found)
    assert "by the predictor's upper bound, 100.0 % over" in text
    assert "on desk it is 50.0 % within" in text
    assert found.binding_choice == "MLP widths"  # all that this latency hangs on but the depth


def test_the_advice_is_rounded_up():
    assert round_up(12.341) == 12.4
    assert round_up(12.3) == 12.3
    assert round_up(0.0012341) == 0.00124
