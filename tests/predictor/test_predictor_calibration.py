"""Conformal bounds: the right rank, honest where samples are too few, and they cover."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mapie.regression import SplitConformalRegressor
from sklearn.dummy import DummyRegressor

from hwsearch.errors import UsageError
from hwsearch.predictor.calibration import ErrorBound, found_coverage, one_sided, two_sided

NINE = [[0.05, -0.01, 0.02, -0.09, 0.03, 0.04, -0.06, 0.07, 0.08]]
residuals = st.lists(
    st.lists(st.floats(-1, 1), min_size=12, max_size=12), min_size=1, max_size=3
).map(np.array)


@pytest.mark.parametrize(
    ("coverage", "bound"), [(0.1, 0.01), (0.5, 0.05), (0.55, 0.06), (0.9, 0.09)]
)
def test_the_rank_counts_the_next_error_too(coverage: float, bound: float):
    assert two_sided(NINE, coverage) == ErrorBound(bound, extrapolated=False)


def test_one_sided_takes_the_sign_into_account():
    assert one_sided(NINE, 0.9) == ErrorBound(0.08, extrapolated=False)


def test_too_few_samples_widen_the_bound_and_say_so():
    bound = two_sided(NINE, 0.95)
    assert bound.extrapolated
    assert bound.size == pytest.approx(0.09 * math.log(20) / math.log(10))


def test_repeats_are_combined_by_their_median():
    assert two_sided([[0.1] * 9, [0.2] * 9, [0.9] * 9], 0.5).size == 0.2


def test_the_upper_bound_is_never_below_the_prediction():
    assert one_sided([[-0.1] * 20], 0.9).size == 0.0


@given(errors=residuals, pair=st.tuples(st.floats(0.01, 0.999), st.floats(0.01, 0.999)))
def test_more_coverage_is_never_a_narrower_bound(errors: np.ndarray, pair: tuple[float, float]):
    low, high = sorted(pair)
    assert two_sided(errors, low).size <= two_sided(errors, high).size
    assert one_sided(errors, low).size <= one_sided(errors, high).size


@pytest.mark.parametrize(("n", "coverage"), [(10, 0.9), (25, 0.8), (64, 0.95), (200, 0.9)])
def test_bounds_are_those_of_another_implementation(n: int, coverage: float):
    errors = np.random.default_rng(n).standard_t(3, size=n)
    rows = np.zeros((n, 1))
    nothing = DummyRegressor(strategy="constant", constant=0.0).fit(rows, errors)
    mapie = SplitConformalRegressor(nothing, confidence_level=coverage, prefit=True)
    _, intervals = mapie.conformalize(rows, errors).predict_interval(rows[:1])
    assert two_sided([errors], coverage).size == intervals[0, 1, 0]


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.99])
def test_exchangeable_errors_are_covered_even_with_heavy_tails(coverage: float):
    rng = np.random.default_rng(0)
    draws = 0.02 * rng.standard_t(3, size=(1500, 25))
    held = [abs(row[-1]) <= two_sided([row[:-1]], coverage).size for row in draws]
    upper = [row[-1] <= one_sided([row[:-1]], coverage).size for row in draws]
    assert np.mean(held) == pytest.approx(coverage + 0.01, abs=0.035)
    assert np.mean(upper) == pytest.approx(coverage + 0.01, abs=0.035)


def test_found_coverage_leaves_the_row_itself_out():
    # Of nine errors, 0.8 of ten takes the eighth of the other eight: only the largest is outside.
    assert found_coverage(NINE, 0.8) == pytest.approx(8 / 9)


@pytest.mark.parametrize("coverage", [0.0, 1.0, -1.0, 90.0, math.nan])
def test_a_coverage_outside_0_and_1_is_refused(coverage: float):
    with pytest.raises(UsageError, match="between 0 and 1"):
        two_sided(NINE, coverage)
