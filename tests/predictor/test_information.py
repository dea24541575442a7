"""What measured subnets tell of others, held against the textbook and against simulation."""

import numpy as np
import pytest
from tiny import GEOMETRY, tiny_space

from hwsearch.predictor.features import FeatureBuilder
from hwsearch.predictor.information import (
    PRIOR,
    most_informative,
    relative_costs,
    spreads,
    studentised,
)

SPACE = tiny_space()


def test_what_is_measured_already_tells_nothing_new():
    rows = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 2.0]])
    assert most_informative(rows, [0], [1, 2]) == 2
    assert most_informative(rows, [2], [0, 1]) == 0


def test_a_subnet_is_seen_by_its_costs_over_its_size():
    """Of like make, half of the work gives the same row, but for what every subnet takes."""
    rng = np.random.default_rng(0)
    features = FeatureBuilder(GEOMETRY).matrix([SPACE.sample(rng) for _ in range(6)])
    rows = relative_costs(np.vstack([features, 0.5 * features]), features)
    halves, wholes = rows[6:, 1:], rows[:6, 1:]
    assert halves == pytest.approx(wholes, rel=0.4)
    assert (halves < wholes).all()
    assert (rows[6:, 0] > rows[:6, 0]).all()


def test_errors_of_rows_that_are_hard_to_predict_count_less():
    """Row 2 alone has the second cost: from the others, nothing is known of it."""
    rows = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
    found = studentised(np.full((1, 4), 0.02), rows, np.array([[0, 1, 2, 3]]))[0]
    assert found[2] < 0.5 * found[0] < 0.02
    assert found[[0, 1]] == pytest.approx(found[3])
    together = studentised(np.full((1, 4), 0.02), rows, np.array([[0, 0, 1, 1]]))[0]
    assert together[3] < found[3], "two rows are left to predict it from in place of three"


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
