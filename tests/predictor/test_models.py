"""What sets the latency models apart; what they share is in tests/contracts."""

import numpy as np
import pytest
from synthetic import GEOMETRY, sampled, true_ms

from hwsearch.errors import PredictorError
from hwsearch.predictor.features import SCHEMA, FeatureBuilder
from hwsearch.predictor.linear import BlockSum
from hwsearch.predictor.models import LatencyModel, candidates, model_named

CONFIGS = sampled(264, seed=11)
FEATURES = FeatureBuilder(GEOMETRY).matrix(CONFIGS)
TRAIN, TEST = slice(0, 64), slice(64, None)
MEAN, OPERATOR_SUM, OPERATOR_RIDGE, BLOCK_SUM, BLOCK_TABLE, PROCESS, TREES = candidates(SCHEMA)


def mape(model: LatencyModel, latencies: np.ndarray) -> float:
    hyper = model.tune(FEATURES[TRAIN], latencies[TRAIN])
    fitted = model.fit(FEATURES[TRAIN], latencies[TRAIN], hyper)
    return float(100 * np.abs(fitted.predict(FEATURES[TEST]) / latencies[TEST] - 1).mean())


def test_the_block_sum_finds_an_additive_law():
    places = SCHEMA.places(["windowed_mlp_macs", "global_attention_macs", "windowed_blocks"])
    latencies = 1.0 + FEATURES[:, places] @ np.array([4e-8, 2e-7, 0.05])
    assert mape(BLOCK_SUM, latencies) < 0.01
    assert mape(OPERATOR_SUM, latencies) > 1


def test_the_operator_sum_needs_fewer_rows_where_blocks_of_both_kinds_run_alike():
    places = SCHEMA.places(["all_mlp_macs", "all_projection_macs", "all_blocks", "all_tokens"])
    noise = np.exp(0.02 * np.random.default_rng(0).standard_normal(len(FEATURES)))
    latencies = (1.0 + FEATURES[:, places] @ np.array([4e-8, 6e-8, 0.05, 2e-4])) * noise
    few = slice(0, 20)
    errors = [
        np.abs(
            model.fit(FEATURES[few], latencies[few], {}).predict(FEATURES[TEST]) / latencies[TEST]
            - 1
        )
        for model in (OPERATOR_SUM, BLOCK_SUM)
    ]
    assert errors[0].mean() < errors[1].mean()


def test_sums_find_what_grows_faster_than_the_blocks_do():
    places = SCHEMA.places(["all_mlp_macs", "all_blocks", "depth_squared"])
    latencies = 1.0 + FEATURES[:, places] @ np.array([4e-8, 0.05, 0.02])
    straight = BlockSum("straight", SCHEMA.places(SCHEMA.operators))
    assert mape(OPERATOR_SUM, latencies) < 0.01
    assert mape(straight, latencies) > 0.5


def test_the_ridge_learns_no_bend():
    latencies = true_ms(CONFIGS)[TRAIN]
    bent = FEATURES.copy()
    bent[:, SCHEMA.places(SCHEMA.bends)] *= 2
    fitted = OPERATOR_RIDGE.fit(FEATURES[TRAIN], latencies, {"alpha": 0.01})
    assert (fitted.predict(bent) == fitted.predict(FEATURES)).all()


def test_the_mean_lies_halfway_between_its_parts_in_logarithms():
    latencies = true_ms(CONFIGS)[TRAIN]
    predictions = {
        model.name: model.fit(
            FEATURES[TRAIN], latencies, model.tune(FEATURES[TRAIN], latencies)
        ).predict(FEATURES[TEST])
        for model in (MEAN, OPERATOR_SUM, OPERATOR_RIDGE)
    }
    product = predictions["operator_sum"] * predictions["operator_ridge"]
    assert predictions["operator_mean"] ** 2 == pytest.approx(product)
    assert not np.allclose(predictions["operator_sum"], predictions["operator_ridge"], rtol=1e-3)


def test_the_process_finds_what_no_sum_of_blocks_holds():
    latencies = true_ms(CONFIGS)
    assert mape(PROCESS, latencies) < 0.6 * mape(OPERATOR_SUM, latencies)


def test_the_trees_find_steps():
    tiles = np.ceil(FEATURES[:, SCHEMA.places(["windowed_mlp_macs"])[0]] / 1.2e8)
    latencies = true_ms(CONFIGS) * (1 + 0.1 * (tiles % 2))
    assert mape(TREES, latencies) < 0.9 * mape(OPERATOR_SUM, latencies)


def test_the_block_table_finds_widths_that_run_badly():
    """MLPs of the narrowest quarter take thrice their tokens' time, which no cost tells."""
    places = SCHEMA.places(["windowed_mlp_quarter_1", "global_mlp_quarter_1"])
    latencies = 5 + FEATURES[:, SCHEMA.places(["macs"])[0]] / 1e9
    latencies += FEATURES[:, places].sum(axis=1) / 500
    assert mape(BLOCK_TABLE, latencies) < 0.3 * mape(BLOCK_SUM, latencies)


@pytest.mark.parametrize("model", [OPERATOR_SUM, OPERATOR_RIDGE], ids=lambda model: model.name)
def test_disturbed_rows_do_not_pull_the_fit(model: LatencyModel):
    latencies = 5 + FEATURES[:, SCHEMA.places(["macs"])[0]] / 1e9
    disturbed = latencies * np.where(np.arange(len(latencies)) % 6 == 0, 1.5, 1.0)
    hyper = model.tune(FEATURES[TRAIN], disturbed[TRAIN])
    fitted = model.fit(FEATURES[TRAIN], disturbed[TRAIN], hyper)
    # Least squares would lie a twelfth too high.
    assert np.abs(fitted.predict(FEATURES[TEST]) / latencies[TEST] - 1).mean() < 0.01


def test_errors_are_weighed_relatively():
    """Of a constant for 1 ms and 2 ms, each eight times, the relative errors balance nearer 1."""
    latencies = np.array([1.0] * 8 + [2.0] * 8)
    prediction = BlockSum("constant", ()).fit(FEATURES[:16], latencies, {}).predict(FEATURES[:1])
    assert 1.0 < prediction[0] < 1.4


def test_ridge_extrapolates_to_no_less_than_a_tenth_of_the_fastest():
    latencies = true_ms(CONFIGS)
    fitted = OPERATOR_RIDGE.fit(FEATURES[TRAIN], latencies[TRAIN], {"alpha": 1e-4})
    nothing = np.zeros((1, FEATURES.shape[1])) - 1e12
    assert fitted.predict(nothing)[0] >= 0.1 * latencies[TRAIN].min()


def test_models_decline_numbers_of_rows_that_they_are_not_made_for():
    assert not TREES.suits(32)
    assert TREES.suits(64)
    assert not PROCESS.suits(2000)


def test_an_unknown_model_is_a_sentence():
    with pytest.raises(
        PredictorError, match=r"no latency model 'oracle'.*operator_sum, operator_ridge"
    ):
        model_named("oracle", candidates(SCHEMA))
