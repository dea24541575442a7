"""Cross-validation leaks nothing, scores what it says, and prefers simple models."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from synthetic import GEOMETRY, NOISE, sampled, true_ms

from hwsearch.predictor.crossvalidation import choose_model, out_of_fold
from hwsearch.predictor.features import FeatureBuilder, columns

CONFIGS = sampled(64, seed=21)
FEATURES = FeatureBuilder(GEOMETRY).matrix(CONFIGS)


@dataclass
class Witness:
    """Predicts 1 ms for a row it never saw, else 2 ms; rows are known by their first feature."""

    name: str = "witness"
    tuned_on: list[set[float]] = field(default_factory=list)

    def suits(self, samples: int) -> bool:
        return True

    def tune(self, features: np.ndarray, latencies_ms: np.ndarray) -> dict[str, float]:
        self.tuned_on.append(set(features[:, 0].tolist()))
        return {}

    def fit(self, features: np.ndarray, latencies_ms: np.ndarray, hyper: object):
        return Recall(set(features[:, 0].tolist()) | self.tuned_on[-1])


@dataclass
class Recall:
    seen: set[float]

    def predict(self, features: np.ndarray) -> np.ndarray:
        return np.array([2.0 if row in self.seen else 1.0 for row in features[:, 0].tolist()])


@pytest.mark.parametrize("n", [8, 30])
def test_no_row_is_predicted_by_a_model_that_saw_it(n: int):
    rows = np.arange(n, dtype=np.float64)[:, None]
    witness = Witness()
    found = out_of_fold(witness, rows, np.ones(n), seed=0)
    assert np.array_equal(found, np.ones((3, n)))
    assert min(map(len, witness.tuned_on)) >= n - -(-n // 8)


def additive_ms(seed: int) -> np.ndarray:
    places = columns(["windowed_mlp_macs", "global_projection_macs", "global_blocks"])
    law = 2.0 + FEATURES[:, places] @ np.array([4e-8, 6e-8, 0.2])
    return law * np.exp(NOISE * np.random.default_rng(seed).standard_normal(len(law)))


@pytest.mark.parametrize("seed", [0, 1])
def test_an_additive_law_gets_the_simplest_model(seed: int):
    choice = choose_model(FEATURES[:24], additive_ms(seed)[:24], seed=seed)
    assert choice.model_name == "block_sum"


@pytest.mark.usefixtures("one_repeat")
def test_a_law_with_an_interaction_gets_another_model():
    choice = choose_model(FEATURES[:47], true_ms(CONFIGS)[:47], seed=0)
    assert choice.model_name != "block_sum"
    errors = {score.name: score.mape_percent for score in choice.cv.models}
    assert errors[choice.model_name] < 0.6 * errors["block_sum"]


def test_scores_agree_with_the_stored_residuals():
    choice = choose_model(FEATURES[:12], additive_ms(5)[:12], seed=3)
    errors = np.abs(np.exp(-np.array(choice.log_residuals)) - 1)
    assert errors.shape == (choice.cv.repeats, choice.cv.n) == (3, 12)
    assert choice.cv.name == choice.model_name
    assert choice.cv.mape_percent == pytest.approx(100 * errors.mean())
    assert choice.cv.within_5_percent == pytest.approx((errors <= 0.05).mean())


@pytest.mark.usefixtures("one_repeat")
def test_baselines_are_scored_and_a_constant_has_no_order():
    choice = choose_model(FEATURES[:24], additive_ms(6)[:24], seed=0)
    scores = {score.name: score for score in choice.cv.baselines}
    assert set(scores) == {"constant", "params_only", "macs_only"}
    assert scores["macs_only"].mape_percent > 3 * choice.cv.mape_percent
    assert scores["constant"].mape_percent > 3 * scores["macs_only"].mape_percent
    assert (scores["constant"].kendall_tau, scores["constant"].spearman) == (None, None)
    assert choice.cv.kendall_tau > 0.95
    assert choice.cv.spearman > choice.cv.kendall_tau


@pytest.mark.usefixtures("one_repeat")
def test_the_same_seed_gives_the_same_choice():
    latencies = additive_ms(7)[:10]
    first = choose_model(FEATURES[:10], latencies, seed=4)
    assert choose_model(FEATURES[:10], latencies, seed=4) == first
    assert choose_model(FEATURES[:10], latencies, seed=5) != first
