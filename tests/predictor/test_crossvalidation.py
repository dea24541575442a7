"""Cross-validation leaks nothing, scores what it says, and prefers simple models."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from synthetic import GEOMETRY, NOISE, sampled, true_ms

from hwsearch.predictor.crossvalidation import ModelChoice, choose_model, fold_numbers, out_of_fold
from hwsearch.predictor.features import SCHEMA, FeatureBuilder
from hwsearch.predictor.models import baselines, candidates

CONFIGS = sampled(64, seed=21)
FEATURES = FeatureBuilder(GEOMETRY).matrix(CONFIGS)


def chosen(features: np.ndarray, latencies: np.ndarray, *, seed: int) -> ModelChoice:
    models, beaten = candidates(SCHEMA), baselines(SCHEMA)
    return choose_model(features, latencies, models=models, baselines=beaten, seed=seed)


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
    found = out_of_fold(witness, rows, np.ones(n), folds=fold_numbers(n, seed=0))
    assert np.array_equal(found, np.ones((3, n)))
    assert min(map(len, witness.tuned_on)) >= n - -(-n // 8)


def additive_ms(seed: int) -> np.ndarray:
    places = SCHEMA.places(["all_mlp_macs", "all_projection_macs", "all_blocks"])
    law = 2.0 + FEATURES[:, places] @ np.array([4e-8, 6e-8, 0.2])
    return law * np.exp(NOISE * np.random.default_rng(seed).standard_normal(len(law)))


@pytest.mark.usefixtures("one_repeat")
@pytest.mark.parametrize("seed", [0, 1])
def test_an_additive_law_gets_one_of_the_simplest_models(seed: int):
    choice = chosen(FEATURES[:24], additive_ms(seed)[:24], seed=seed)
    assert choice.model_name in {"operator_mean", "operator_sum"}


@pytest.mark.usefixtures("one_repeat")
def test_a_law_with_an_interaction_gets_another_model():
    choice = chosen(FEATURES[:47], true_ms(CONFIGS)[:47], seed=0)
    assert choice.model_name not in {"operator_mean", "operator_sum"}
    errors = {score.name: score.mape_percent for score in choice.cv.models}
    assert errors[choice.model_name] < 0.6 * errors["operator_sum"]


def test_scores_agree_with_the_stored_residuals():
    choice = chosen(FEATURES[:12], additive_ms(5)[:12], seed=3)
    errors = np.abs(np.exp(-np.array(choice.log_residuals)) - 1)
    assert errors.shape == (choice.cv.repeats, choice.cv.n) == (3, 12)
    assert choice.cv.name == choice.model_name
    assert choice.cv.mape_percent == pytest.approx(100 * errors.mean())
    assert choice.cv.within_5_percent == pytest.approx((errors <= 0.05).mean())


@dataclass
class Oracle:
    """Knows the latencies, but for the rows whose first feature it is lucky or unlucky on."""

    name: str
    wrong: frozenset[float]
    share: float

    def suits(self, samples: int) -> bool:
        return True

    def tune(self, features: np.ndarray, latencies_ms: np.ndarray) -> dict[str, float]:
        return {}

    def fit(self, features: np.ndarray, latencies_ms: np.ndarray, hyper: object):
        return self

    def predict(self, features: np.ndarray) -> np.ndarray:
        return np.array([1 + self.share * (row in self.wrong) for row in features[:, 0].tolist()])


@pytest.mark.usefixtures("one_repeat")
def test_a_row_has_no_part_in_the_choice_of_its_model():
    """One model errs on a single fold alone, by much; the other everywhere, by little.

    All rows choose the second, and so do the folds that see that one. The one that does not sees
    the first model without fault, takes it, and is wrong.
    """
    rows, folds = np.arange(32.0)[:, None], fold_numbers(32, seed=0)[0]
    bad = frozenset(rows[folds == folds[0], 0].tolist())
    first = Oracle("first", bad, 0.8)
    second = Oracle("second", frozenset(rows[:, 0].tolist()), 0.02)
    choice = choose_model(rows, np.ones(32), models=(second, first), baselines=(), seed=0)
    assert choice.model_name == "second"
    errors = np.exp(-np.array(choice.log_residuals[0])) - 1
    assert np.allclose(errors[folds == folds[0]], 0.8)
    assert np.allclose(errors[folds != folds[0]], 0.02)


@pytest.mark.usefixtures("one_repeat")
def test_baselines_are_scored_and_a_constant_has_no_order():
    choice = chosen(FEATURES[:24], additive_ms(6)[:24], seed=0)
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
    first = chosen(FEATURES[:10], latencies, seed=4)
    assert chosen(FEATURES[:10], latencies, seed=4) == first
    assert chosen(FEATURES[:10], latencies, seed=5) != first
