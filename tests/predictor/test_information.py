"""What measured subnets tell of others, held against the textbook and against simulation."""

import numpy as np
import pytest
from tiny import GEOMETRY, tiny_space

from hwsearch.predictor.features import FeatureBuilder
from hwsearch.predictor.information import (
    PRIOR,
    held_out_spreads,
    most_informative,
    relative_costs,
    spreads,
)

SPACE = tiny_space()


def test_what_is_measured_already_tells_nothing_new():
    rows = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 2.0]])
    assert most_informative(rows, [0], [1, 2]) == 2
    assert most_informative(rows, [2], [0, 1]) == 0
    assert most_informative(rows, [], [1]) == 1


def test_a_subnet_is_seen_by_its_costs_over_its_size():
    """Of like make, half of the work gives the same row, but for what every subnet takes."""
    rng = np.random.default_rng(0)
    features = FeatureBuilder(GEOMETRY).matrix([SPACE.sample(rng) for _ in range(6)])
    rows = relative_costs(np.vstack([features, 0.5 * features]), features)
    halves, wholes = rows[6:, 1:], rows[:6, 1:]
    assert halves == pytest.approx(wholes, rel=0.4)
    assert (halves < wholes).all()
    assert (rows[6:, 0] > rows[:6, 0]).all()


def test_a_held_out_row_is_as_uncertain_as_a_new_one():
    rows = np.random.default_rng(1).uniform(0.5, 2, (12, 4))
    found = held_out_spreads(rows)
    for row in range(len(rows)):
        others = np.delete(rows, row, axis=0)
        assert found[row] == pytest.approx(spreads(others, rows[row : row + 1])[0])


def test_spreads_are_those_of_a_linear_model_with_random_errors():
    """Weights drawn from the prior, errors of one: what a ridge misses new measurements by."""
    rng = np.random.default_rng(2)
    measured, new = rng.uniform(0, 1, (9, 3)), rng.uniform(0, 3, (4, 3))
    runs = 20_000
    weights = rng.standard_normal((3, runs)) / np.sqrt(PRIOR)
    latencies = measured @ weights + rng.standard_normal((9, runs))
    ridge = np.linalg.solve(measured.T @ measured + PRIOR * np.eye(3), measured.T @ latencies)
    errors = new @ (ridge - weights) + rng.standard_normal((4, runs))
    assert spreads(measured, new) == pytest.approx(errors.std(axis=1), rel=0.03)
