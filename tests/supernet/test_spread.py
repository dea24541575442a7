"""A few figures tell how scores are spread."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import GEOMETRY, tiny_space

from hwsearch.records import LayerSpread, ScoreSpread
from hwsearch.supernet.scores import LayerScores
from hwsearch.supernet.spread import score_spreads


def spread_of(neurons: list[float], heads: list[float]) -> LayerSpread:
    scores = LayerScores(neurons=torch.tensor(neurons), heads=torch.tensor(heads))
    layers = score_spreads({"taylor": [scores] * GEOMETRY.depth}, tiny_space())
    assert [layer.index for layer in layers] == [0, 1, 2, 3]
    assert len({layer.mlp_widths for layer in layers}) == 1
    return layers[3]


def test_shares_of_the_first_and_of_the_best():
    neurons = [0.0] * 16 + [1.0] * 16 + [3.0] * 32
    layer = spread_of(neurons, [1.0, 4.0, 0.0, 5.0])
    assert layer.mlp_widths == (16, 32, 64)
    spread = layer.methods["taylor"]
    assert spread.heads == (0.1, 0.4, 0.0, 0.5)
    assert spread.first_neurons == pytest.approx((0, 16 / 112, 1), abs=1e-4)
    assert spread.best_neurons == pytest.approx((48 / 112, 96 / 112, 1), abs=1e-4)
    assert layer.first_half("taylor") == spread.first_neurons[1]


def test_half_the_neurons_are_counted_even_if_no_subnet_has_so_many():
    space = tiny_space()
    layers = [c.model_copy(update={"mlp_widths": (16, 64)}) for c in space.layers]
    narrow = space.model_copy(update={"layers": tuple(layers)})
    scores = LayerScores(neurons=torch.ones(64), heads=torch.ones(4))
    found = score_spreads({"wanda": [scores] * 4}, narrow)
    assert found[1].mlp_widths == (16, 32, 64)
    assert found[1].first_half("wanda") == 0.5


def test_without_any_score_all_are_alike():
    spread = spread_of([0.0] * 64, [0.0] * 4).methods["taylor"]
    assert spread.heads == (0.25,) * 4
    assert spread.first_neurons == spread.best_neurons == (0.25, 0.5, 1.0)


scores = st.lists(st.floats(0, 1e6, width=32), min_size=64, max_size=64)


@settings(max_examples=20)
@given(scores)
def test_the_best_hold_at_least_what_the_first_do(neurons: list[float]):
    layer = spread_of(neurons, [1.0] * 4)
    spread = layer.methods["taylor"]
    assert all(b >= f for b, f in zip(spread.best_neurons, spread.first_neurons, strict=True))
    assert spread.first_neurons[-1] == spread.best_neurons[-1] == pytest.approx(1, abs=1e-4)
    in_order = spread_of(sorted(neurons, reverse=True), [1.0] * 4).methods["taylor"]
    assert in_order.first_neurons == pytest.approx(spread.best_neurons, abs=1.1e-4)
    assert LayerSpread.from_json(layer.to_json()) == layer


def test_shares_fit_their_widths():
    spread = ScoreSpread(heads=(1.0,), first_neurons=(0.5, 1.0), best_neurons=(0.6, 1.0))
    LayerSpread(index=0, mlp_widths=(8, 16), methods={"wanda": spread})
    for widths, fault in (((8,), "lack half"), ((4, 8, 16), "not one a width")):
        with pytest.raises(ValueError, match=fault):
            LayerSpread(index=0, mlp_widths=widths, methods={"wanda": spread})
