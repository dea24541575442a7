"""What sets the latency models apart; what they share is in tests/contracts."""

import numpy as np
import pytest
from synthetic import GEOMETRY, sampled, true_ms

from hwsearch.errors import PredictorError
from hwsearch.predictor.features import FeatureBuilder, columns
from hwsearch.predictor.models import (
    BlockSum,
    BoostedBlockSum,
    CostRidge,
    LatencyModel,
    ProcessOnBlockSum,
    candidate,
)

CONFIGS = sampled(264, seed=11)
FEATURES = FeatureBuilder(GEOMETRY).matrix(CONFIGS)
TRAIN, TEST = slice(0, 64), slice(64, None)


def mape(model: LatencyModel, latencies: np.ndarray) -> float:
    hyper = model.tune(FEATURES[TRAIN], latencies[TRAIN])
    fitted = model.fit(FEATURES[TRAIN], latencies[TRAIN], hyper)
    return float(100 * np.abs(fitted.predict(FEATURES[TEST]) / latencies[TEST] - 1).mean())


def test_the_block_sum_finds_an_additive_law():
    places = columns(["windowed_mlp_macs", "global_attention_macs", "windowed_blocks"])
    latencies = 1.0 + FEATURES[:, places] @ np.array([4e-8, 2e-7, 0.05])
    assert mape(BlockSum(), latencies) < 0.01


def test_the_process_finds_what_no_sum_of_blocks_holds():
    latencies = true_ms(CONFIGS)
    assert mape(ProcessOnBlockSum(), latencies) < 0.6 * mape(BlockSum(), latencies)


def test_the_trees_find_steps():
    tiles = np.ceil(FEATURES[:, columns(["windowed_mlp_macs"])[0]] / 1.2e8)
    latencies = true_ms(CONFIGS) * (1 + 0.1 * (tiles % 2))
    assert mape(BoostedBlockSum(), latencies) < 0.9 * mape(BlockSum(), latencies)


def test_errors_are_weighed_relatively():
    """A constant that fits 1 ms and 100 ms relatively lies near 1 ms."""
    latencies = np.array([1.0] * 8 + [100.0] * 8)
    model = BlockSum(name="constant", names=())
    prediction = model.fit(FEATURES[:16], latencies, {}).predict(FEATURES[:1])[0]
    # Minimises 8·(c - 1)² + 8·(c / 100 - 1)².
    assert prediction == pytest.approx((1 + 1 / 100) / (1 + 1 / 100**2))


def test_ridge_extrapolates_to_no_less_than_a_tenth_of_the_fastest():
    latencies = true_ms(CONFIGS)
    fitted = CostRidge().fit(FEATURES[TRAIN], latencies[TRAIN], {"alpha": 1e-4})
    nothing = np.zeros((1, FEATURES.shape[1])) - 1e12
    assert fitted.predict(nothing)[0] >= 0.1 * latencies[TRAIN].min()


def test_models_decline_numbers_of_rows_that_they_are_not_made_for():
    assert not BoostedBlockSum().suits(32)
    assert BoostedBlockSum().suits(64)
    assert not ProcessOnBlockSum().suits(2000)


def test_an_unknown_model_is_a_sentence():
    with pytest.raises(PredictorError, match=r"no latency model 'oracle'.*block_sum, cost_ridge"):
        candidate("oracle")
