"""Which subnets are measured next."""

import numpy as np
import pytest
from synthetic import GEOMETRY, SPACE, TARGET, measured_ms, sampled

from hwsearch.errors import PredictorError
from hwsearch.predictor.acquisition import next_subnets
from hwsearch.predictor.latency_predictor import LatencyPredictor

CANDIDATES = sampled(300, seed=5)
FULL = SPACE.largest.resolution


def test_chosen_subnets_are_distinct_candidates_not_measured_yet(predictor: LatencyPredictor):
    pool = [*predictor.configs_, *CANDIDATES]
    chosen = next_subnets(predictor, pool, 10)
    assert len(set(chosen)) == 10
    assert set(chosen) <= set(CANDIDATES) - set(predictor.configs_)
    assert chosen[:4] == next_subnets(predictor, pool, 4)


def test_a_resolution_that_was_never_measured_comes_first():
    configs = sampled(120, seed=1)
    seen = [c for c in configs if c.resolution != FULL][:16]
    fitted = LatencyPredictor(GEOMETRY, TARGET, "custom-1").fit(seen, measured_ms(seen, seed=1))
    chosen = next_subnets(fitted, CANDIDATES, 6)
    share = np.mean([c.resolution == FULL for c in CANDIDATES])
    assert np.mean([c.resolution == FULL for c in chosen]) > 1.5 * share


def test_near_a_target_latency_more_is_measured(predictor: LatencyPredictor):
    target = float(np.quantile(predictor.predict(CANDIDATES), 0.7))

    def distance(near_ms: tuple[float, ...]) -> float:
        chosen = next_subnets(predictor, CANDIDATES, 8, near_ms=near_ms)
        return float(np.abs(np.log(predictor.predict(chosen) / target)).mean())

    assert distance((target,)) < distance(()) / 2


def test_when_all_is_measured_nothing_is_chosen(predictor: LatencyPredictor):
    assert next_subnets(predictor, predictor.configs_, 3) == []
    assert len(next_subnets(predictor, CANDIDATES[:2], 3)) == 2


def test_an_unfitted_predictor_knows_no_next_subnet():
    with pytest.raises(PredictorError, match="not fitted"):
        next_subnets(LatencyPredictor(GEOMETRY, TARGET, "custom-1"), CANDIDATES, 3)
