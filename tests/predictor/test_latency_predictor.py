"""Accuracy, intervals and refusals of the latency predictor on a law that it doesn't know."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import GEOMETRY, SPACE, TARGET, measured_ms, sampled, true_ms

from hwsearch.costs import encoder_params
from hwsearch.errors import PredictorError, UsageError
from hwsearch.predictor.calibration import two_sided
from hwsearch.predictor.features import SCHEMA, FeatureBuilder
from hwsearch.predictor.latency_predictor import LatencyPredictor
from hwsearch.predictor.linear import BlockSum
from hwsearch.predictor.sampling import stratified_sample
from hwsearch.records import SubnetConfig

TEST_CONFIGS = sampled(400, seed=99)


def unfitted() -> LatencyPredictor:
    return LatencyPredictor(GEOMETRY, TARGET, "custom-1")


def mape(predictions: np.ndarray, configs: Sequence[SubnetConfig] = TEST_CONFIGS) -> float:
    return float(100 * np.abs(predictions / true_ms(configs) - 1).mean())


def front(configs: Sequence[SubnetConfig], predicted_ms: np.ndarray, *, seed: int) -> np.ndarray:
    """Rows that are more accurate than all faster ones, where accuracy grows with size."""
    rng = np.random.default_rng(seed)
    sizes = np.array([encoder_params(GEOMETRY, config) for config in configs])
    accuracies = np.log(sizes) + 0.05 * rng.standard_normal(len(sizes))
    order = np.argsort(predicted_ms)
    best = np.maximum.accumulate(accuracies[order])
    return order[np.concatenate([[True], best[1:] > best[:-1]])]


def test_32_subnets_predict_the_rest(predictor: LatencyPredictor):
    builder = FeatureBuilder(GEOMETRY)
    baseline = BlockSum("macs_only", SCHEMA.places(["macs"])).fit(
        builder.matrix(predictor.configs_), predictor.latencies_ms_, {}
    )
    found = mape(predictor.predict(TEST_CONFIGS))
    assert found < 1.5
    assert found < mape(baseline.predict(builder.matrix(TEST_CONFIGS))) / 3


def test_cross_validation_tells_the_error_on_new_subnets(predictor: LatencyPredictor):
    latencies = measured_ms(TEST_CONFIGS, seed=7)
    error = 100 * np.abs(predictor.predict(TEST_CONFIGS) / latencies - 1).mean()
    assert predictor.cv_.mape_percent == pytest.approx(error, rel=0.5)
    assert predictor.cv_.n == 32


@pytest.mark.usefixtures("one_repeat")
def test_bounds_hold_the_asked_share_of_measured_latencies():
    """On any subnets, though the measured ones were chosen, and on those a search would pick."""
    unseen = sampled(300, seed=77)
    held, below, held_on_front = [], [], []
    for seed in range(8):
        configs = stratified_sample(SPACE, GEOMETRY, 32, seed=seed)
        fitted = unfitted().fit(configs, measured_ms(configs, seed=seed))
        latencies = measured_ms(unseen, seed=1000 + seed)
        low, high = fitted.interval(unseen, coverage=0.9)
        inside = (low <= latencies) & (latencies <= high)
        held.append(inside.mean())
        below.append(np.mean(latencies <= fitted.upper(unseen, coverage=0.9)))
        held_on_front += inside[front(unseen, fitted.predict(unseen), seed=seed)].tolist()
    assert np.mean(held) == pytest.approx(0.91, abs=0.06)
    assert np.mean(below) == pytest.approx(0.91, abs=0.06)
    assert np.mean(held_on_front) == pytest.approx(0.91, abs=0.06)


@pytest.mark.usefixtures("one_repeat")
def test_rows_that_were_chosen_to_differ_do_not_widen_the_bounds():
    """Each, held out, is harder to predict than most: bounds of the plain errors are too wide."""
    unseen = sampled(300, seed=78)
    held, shares = [], []
    for seed in range(16):
        configs = stratified_sample(SPACE, GEOMETRY, 16, seed=seed)
        fitted = unfitted().fit(configs, measured_ms(configs, seed=seed))
        latencies = measured_ms(unseen, seed=2000 + seed)
        low, high = fitted.interval(unseen, coverage=0.9)
        held.append(np.mean((low <= latencies) & (latencies <= high)))
        plain = two_sided(fitted.choice_.log_residuals, 0.9).size
        shares.append(np.median(np.log(high / low)) / 2 / plain)
    assert np.mean(shares) < 0.95
    assert np.mean(held) > 0.88


def test_bounds_are_wider_where_less_is_known():
    """Fitted at one resolution alone, a subnet at another one is less certain."""
    configs = [config for config in sampled(400, seed=5) if config.resolution == 256][:32]
    fitted = unfitted().fit(configs, measured_ms(configs, seed=5))
    sides = [configs[0].model_copy(update={"resolution": side}) for side in (256, 192, 128)]
    predicted = fitted.predict(sides)
    low, high = fitted.interval(sides)
    upper = fitted.upper(sides)
    for factors in (predicted / low, high / predicted, upper / predicted):
        assert (np.diff(factors) > 0).all()
        assert np.log(factors[-1]) > 1.2 * np.log(factors[0]) > 0


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), coverage=st.floats(0.05, 0.99))
def test_any_subnet_gets_a_positive_finite_prediction_within_its_bounds(
    predictor: LatencyPredictor, seed: int, coverage: float
):
    config = SPACE.sample(np.random.default_rng(seed))
    predicted = predictor.predict([config])
    low, high = predictor.interval([config], coverage)
    assert 0 < low[0] <= predicted[0] <= high[0] < np.inf
    assert predictor.upper([config], coverage)[0] >= predicted[0]


def test_many_subnets_get_what_one_gets(predictor: LatencyPredictor):
    alone = np.concatenate([predictor.predict([config]) for config in TEST_CONFIGS[:20]])
    assert np.allclose(predictor.predict(TEST_CONFIGS)[:20], alone, rtol=1e-12)
    assert predictor.predict([]).shape == (0,)


@pytest.mark.usefixtures("one_repeat")
def test_a_subnet_measured_often_counts_once_with_its_median():
    configs = sampled(12, seed=4)
    latencies = true_ms(configs)
    fitted = unfitted().fit([*configs, configs[0], configs[0]], [*latencies, 1e6, latencies[0]])
    assert fitted.configs_ == tuple(configs)
    assert np.array_equal(fitted.latencies_ms_, latencies)


@pytest.mark.usefixtures("one_repeat")
def test_a_correction_mends_what_was_never_measured():
    """At the highest resolution the device is slower than the others let expect."""
    largest = SPACE.resolutions[-1]
    small = [config for config in sampled(80, seed=5) if config.resolution < largest][:16]
    large = [config for config in TEST_CONFIGS if config.resolution == largest]
    latencies = 1.2 * true_ms(large)
    before = unfitted().fit(small, true_ms(small))
    blind = before.predict(large)
    after = before.correct(large[:8], latencies[:8])
    error = np.abs(after.predict(large[8:]) / latencies[8:] - 1).mean()
    assert error < 0.3 * np.abs(blind[8:] / latencies[8:] - 1).mean()
    assert (len(before.configs_), len(after.configs_)) == (16, 24)
    assert np.array_equal(before.predict(large), blind)


@pytest.mark.usefixtures("one_repeat")
def test_a_fit_returns_itself_and_repeats():
    configs = sampled(9, seed=6)
    first, second = unfitted(), unfitted()
    assert first.fit(configs, true_ms(configs)) is first
    second.fit(configs, true_ms(configs))
    assert np.array_equal(first.predict(TEST_CONFIGS), second.predict(TEST_CONFIGS))


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_latency_is_refused(wrong: float):
    configs = sampled(10, seed=0)
    with pytest.raises(PredictorError, match="positive and finite"):
        unfitted().fit(configs, [*true_ms(configs)[:9], wrong])


def test_too_few_subnets_are_refused():
    configs = sampled(7, seed=0)
    with pytest.raises(PredictorError, match=r"7 distinct subnets: profile at least 8"):
        unfitted().fit(configs * 2, [*true_ms(configs)] * 2)


def test_rows_that_do_not_match_are_refused():
    configs = sampled(10, seed=0)
    with pytest.raises(PredictorError, match="one number a subnet"):
        unfitted().fit(configs, true_ms(configs)[:9])


@pytest.mark.parametrize("method", ["predict", "interval", "upper"])
def test_an_unfitted_predictor_says_so(method: str):
    with pytest.raises(PredictorError, match="not fitted"):
        getattr(unfitted(), method)([SPACE.largest])


def test_a_correction_of_nothing_fitted_says_so():
    with pytest.raises(PredictorError, match="not fitted"):
        unfitted().correct([SPACE.largest], [1.0])


def test_a_choice_of_other_rows_is_refused(predictor: LatencyPredictor):
    configs = sampled(10, seed=0)
    with pytest.raises(PredictorError, match="not those of the 10 stored subnets"):
        unfitted().refit(configs, true_ms(configs), predictor.choice_)


def test_a_wrong_coverage_is_refused(predictor: LatencyPredictor):
    with pytest.raises(UsageError, match="between 0 and 1"):
        predictor.upper([SPACE.largest], coverage=90)


def test_another_target_is_refused_by_name(predictor: LatencyPredictor):
    other = TARGET.model_copy(update={"runtime_version": "2.0", "threads": 4})
    predictor.check_target(TARGET)
    with pytest.raises(PredictorError, match=r"runtime_version 1.0 is now 2.0, threads 2 is now 4"):
        predictor.check_target(other)
