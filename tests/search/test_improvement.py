import numpy as np
import pytest

from hwsearch.search.improvement import expected_gains
from hwsearch.search.pareto import hypervolume

POINTS = np.array([(0.50, 4.0), (0.60, 7.0), (0.58, 8.0), (0.70, 12.0), (0.40, 3.0), (0.72, 30.0)])
WORST = (0.42, 20.0)


@pytest.mark.parametrize(
    ("mean", "deviation", "cost"),
    [(0.55, 0.05, 5.0), (0.65, 0.02, 12.0), (0.40, 0.1, 1.0), (0.71, 0.01, 19.0)],
)
def test_the_expected_gain_is_the_mean_growth_of_the_hypervolume(
    mean: float, deviation: float, cost: float
):
    drawn = mean + deviation * np.random.default_rng(0).standard_normal(20_000)
    before = hypervolume(POINTS, WORST)
    growth = [hypervolume([*POINTS.tolist(), (one, cost)], WORST) - before for one in drawn[:4000]]
    (gain,) = expected_gains(
        POINTS,
        means=np.array([mean]),
        deviations=np.array([deviation]),
        costs=np.array([cost]),
        worst=WORST,
    )
    standard_error = np.std(growth) / np.sqrt(len(growth))
    assert gain == pytest.approx(np.mean(growth), abs=4 * standard_error + 1e-6)


def test_what_costs_too_much_gains_nothing():
    gains = expected_gains(
        POINTS,
        means=np.array([0.9, 0.9]),
        deviations=np.array([0.1, 0.1]),
        costs=np.array([20.1, 19.9]),
        worst=WORST,
        at_the_end=5.0,
    )
    assert gains[0] == 0.0
    assert gains[1] > 0.0


def test_weight_at_the_end_favours_the_most_accurate_over_the_cheap():
    arguments = {
        "points": POINTS,
        "means": np.array([0.56, 0.72]),  # one fills a gap of the front, one raises its end
        "deviations": np.array([0.01, 0.01]),
        "costs": np.array([4.1, 18.0]),
        "worst": WORST,
    }
    plain = expected_gains(**arguments)
    ended = expected_gains(**arguments, at_the_end=20.0)
    assert plain[0] > plain[1]
    assert ended[0] < ended[1]
