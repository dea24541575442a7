"""Transfer: few rows of a new target suffice, many leave the source behind, and it is stored."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr
from synthetic import GEOMETRY, TARGET, law_ms, measured_ms, sampled, true_ms

from hwsearch.errors import PredictorError
from hwsearch.predictor.crossvalidation import choose_model
from hwsearch.predictor.curve import few_shot_curve
from hwsearch.predictor.features import SCHEMA, FeatureBuilder
from hwsearch.predictor.latency_predictor import LatencyPredictor
from hwsearch.predictor.store import load_latency_predictor, save_latency_predictor
from hwsearch.predictor.transfer import SOURCE_MEAN, affine_transfer, transfer_candidates
from hwsearch.records import SubnetConfig

OTHER = TARGET.model_copy(update={"threads": 1})
UNSEEN = sampled(200, seed=98)
AFFINE = affine_transfer(SCHEMA)
MODELS = {model.name: model for model in transfer_candidates(SCHEMA)}
CORRECTED = [MODELS[name] for name in ("transfer_ridge", "transfer_process")]

pytestmark = pytest.mark.usefixtures("one_repeat")


def other_ms(configs: list[SubnetConfig], *, seed: int) -> np.ndarray:
    """One thread: a power of the two threads' latency, and MLPs that gain less than the rest."""
    rng = np.random.default_rng(seed)
    mlps = np.array([sum(layer.mlp_width for layer in config.layers) for config in configs])
    law = 1.6 * np.array([law_ms(config) for config in configs]) ** 1.05 * (1 + mlps / 2e5)
    return law * np.exp(0.01 * rng.standard_normal(len(configs)))


def transferred(source: LatencyPredictor, n: int, *, seed: int = 5) -> LatencyPredictor:
    configs = sampled(n, seed=seed)
    new = LatencyPredictor(GEOMETRY, OTHER, source.supernet_id, source=source)
    return new.fit(configs, other_ms(configs, seed=seed))


@pytest.fixture(scope="module")
def ten(predictor: LatencyPredictor) -> LatencyPredictor:
    return transferred(predictor, 10)


def test_ten_rows_rank_and_predict_a_new_target(ten: LatencyPredictor):
    latencies = other_ms(UNSEEN, seed=1)
    predicted = ten.predict(UNSEEN)
    assert spearmanr(predicted, latencies).statistic >= 0.99
    assert np.abs(predicted / latencies - 1).mean() < 0.03
    assert ten.model_name_.startswith("transfer")


def test_five_rows_are_enough_with_a_source(predictor: LatencyPredictor):
    few = transferred(predictor, 5)
    assert few.model_name_ == AFFINE.name
    assert spearmanr(few.predict(UNSEEN), other_ms(UNSEEN, seed=1)).statistic >= 0.99
    with pytest.raises(PredictorError, match="4 distinct subnets: profile at least 5"):
        transferred(predictor, 4)


def test_a_source_that_tells_nothing_is_left_behind(predictor: LatencyPredictor):
    """Of a source whose latencies were drawn by chance, no row of the new target is a power."""
    configs = sampled(24, seed=31)
    noise = np.exp(np.random.default_rng(0).standard_normal(len(configs)))
    misled = LatencyPredictor(GEOMETRY, TARGET, "custom-1").fit(configs, 20 * noise)
    new = LatencyPredictor(GEOMETRY, OTHER, "custom-1", source=misled)
    rows = sampled(24, seed=32)
    latencies = measured_ms(rows, seed=2)
    assert not new.fit(rows, latencies).model_name_.startswith("transfer")
    alone = LatencyPredictor(GEOMETRY, OTHER, "custom-1").fit(rows, latencies)
    assert alone.model_name_ == new.model_name_
    assert np.array_equal(new.interval(UNSEEN), alone.interval(UNSEEN)), "bounds know no source"


def test_the_affine_map_is_found_exactly():
    features = FeatureBuilder(GEOMETRY).matrix(UNSEEN)
    source = true_ms(UNSEEN)
    features = np.column_stack([features, source])
    fitted = AFFINE.fit(features[:40], 3 * source[:40] ** 1.2, {})
    # The penalty holds the power back by less than a hundredth.
    assert np.allclose(fitted.predict(features), 3 * source**1.2, rtol=0.01)


@pytest.mark.parametrize("model", CORRECTED, ids=lambda model: model.name)
def test_what_the_affine_map_leaves_is_learnt(model):
    features = np.column_stack([FeatureBuilder(GEOMETRY).matrix(UNSEEN), true_ms(UNSEEN)])
    share = features[:, SCHEMA.places(["windowed_mlp_macs"])[0]] / 4e8
    latencies = true_ms(UNSEEN) * (1 + 0.3 * share)
    train, test = slice(0, 40), slice(40, None)
    errors = {}
    for one in (AFFINE, model):
        hyper = one.tune(features[train], latencies[train])
        found = one.fit(features[train], latencies[train], hyper).predict(features[test])
        errors[one.name] = np.abs(found / latencies[test] - 1).mean()
    assert errors[model.name] < 0.6 * errors[AFFINE.name]


def with_slower_mlps_ms(configs: list[SubnetConfig]) -> np.ndarray:
    """By so much a MAC: no power of the source's latency tells."""
    features = FeatureBuilder(GEOMETRY).matrix(configs)
    mlps = features[:, SCHEMA.places(["windowed_mlp_macs"])[0]] / 4e8
    return true_ms(configs) + 1.5 * true_ms(UNSEEN).mean() * mlps


def test_operators_that_take_other_shares_of_the_time_are_learnt_from_ten_rows():
    features = np.column_stack([FeatureBuilder(GEOMETRY).matrix(UNSEEN), true_ms(UNSEEN)])
    latencies = with_slower_mlps_ms(UNSEEN)
    models = (AFFINE, MODELS[SOURCE_MEAN], MODELS["operator_mean"])
    errors = {model.name: 0.0 for model in models}
    for seed in range(6):
        order = np.random.default_rng(seed).permutation(len(UNSEEN))
        train, test = order[:10], order[10:]
        for model in models:
            hyper = model.tune(features[train], latencies[train])
            found = model.fit(features[train], latencies[train], hyper).predict(features[test])
            errors[model.name] += np.abs(found / latencies[test] - 1).mean()
    assert errors[SOURCE_MEAN] < 0.8 * errors[AFFINE.name]
    assert errors[SOURCE_MEAN] < 0.95 * errors["operator_mean"]


def test_a_sum_over_the_source_is_stored_and_its_bounds_widen_with_what_is_not_known(
    predictor: LatencyPredictor, tmp_path: Path
):
    configs = sampled(12, seed=5)
    new = LatencyPredictor(GEOMETRY, OTHER, predictor.supernet_id, source=predictor)
    rows, measured = FeatureBuilder(GEOMETRY).matrix(configs), with_slower_mlps_ms(configs)
    choice = choose_model(
        np.column_stack([rows, predictor.predict(configs)]),
        measured,
        models=[MODELS[SOURCE_MEAN]],
        baselines=(),
        seed=0,
    )
    new.refit(configs, measured, choice)
    assert set(new.choice_.hyper) == {"operator_mean.operator_ridge.alpha"}
    save_latency_predictor(new, tmp_path)
    loaded = load_latency_predictor(tmp_path, target=OTHER)
    assert np.array_equal(loaded.interval(UNSEEN), new.interval(UNSEEN))
    low, high = new.interval(UNSEEN)
    assert np.ptp(np.log(high / low)) > 0.2 * np.median(np.log(high / low))
    latencies = with_slower_mlps_ms(UNSEEN)
    assert ((low <= latencies) & (latencies <= high)).mean() >= 0.8


def test_a_transferred_predictor_is_stored_with_its_source(ten: LatencyPredictor, tmp_path: Path):
    folder = tmp_path / "cpu-test" / "custom-1"
    save_latency_predictor(ten, folder)
    loaded = load_latency_predictor(folder, target=OTHER)
    assert np.array_equal(loaded.predict(UNSEEN), ten.predict(UNSEEN))
    assert loaded.source.configs_ == ten.source.configs_
    assert f"| transferred from | {TARGET.name}, 32 subnets |" in (folder / "CARD.md").read_text()


def test_a_source_keeps_its_card(predictor: LatencyPredictor, tmp_path: Path):
    save_latency_predictor(predictor, tmp_path / "source", noise_floor_percent=1.25)
    folder = tmp_path / "cpu-test" / "custom-1"
    save_latency_predictor(transferred(load_latency_predictor(tmp_path / "source"), 10), folder)
    card = (folder / "source" / "CARD.md").read_text()
    assert "1.25 %" in card
    assert 'load_latency_predictor("predictors/cpu-test/custom-1/source")' in card
    assert load_latency_predictor(folder).source.noise_floor_percent == 1.25


def test_another_source_than_the_stored_one_is_refused(
    ten: LatencyPredictor, predictor: LatencyPredictor, tmp_path: Path
):
    save_latency_predictor(ten, tmp_path)
    save_latency_predictor(predictor, tmp_path / "source", noise_floor_percent=1.0)
    with pytest.raises(PredictorError, match=r"source can't be used.*predictor.json names"):
        load_latency_predictor(tmp_path)


def test_a_fit_from_scratch_takes_the_old_source_away(
    ten: LatencyPredictor, predictor: LatencyPredictor, tmp_path: Path
):
    save_latency_predictor(ten, tmp_path)
    save_latency_predictor(predictor, tmp_path)
    assert not (tmp_path / "source").exists()
    assert load_latency_predictor(tmp_path).source is None


def test_a_correction_keeps_the_source(ten: LatencyPredictor):
    extra = sampled(2, seed=71)
    corrected = ten.correct(extra, other_ms(extra, seed=3))
    assert corrected.source is ten.source
    assert len(corrected.configs_) == 12


def test_a_source_of_another_kind_is_refused(predictor: LatencyPredictor):
    other = GEOMETRY.model_copy(update={"mlp_width": 640})
    with pytest.raises(PredictorError, match="same geometry"):
        LatencyPredictor(other, OTHER, "custom-1", source=predictor)
    with pytest.raises(PredictorError, match="scope full can't be transferred to encoder"):
        LatencyPredictor(GEOMETRY, OTHER, "custom-1", scope="encoder", source=predictor)
    unfitted = LatencyPredictor(GEOMETRY, TARGET, "custom-1")
    with pytest.raises(PredictorError, match="not fitted"):
        LatencyPredictor(GEOMETRY, OTHER, "custom-1", source=unfitted)


def test_a_target_is_no_source_of_itself_nor_by_way_of_another(ten: LatencyPredictor):
    for target in (OTHER, TARGET):  # that of `ten`, and that of its source
        with pytest.raises(PredictorError, match=rf"predictor of {OTHER.name} .* of this target"):
            LatencyPredictor(GEOMETRY, target, "custom-1", source=ten)


def test_the_curve_sets_transfer_beside_scratch(predictor: LatencyPredictor):
    configs = sampled(40, seed=61)
    curve = few_shot_curve(
        predictor, OTHER, configs, other_ms(configs, seed=61), sizes=(5, 10, 50), draws=1
    )
    found = {(point.measured, point.score.name): point for point in curve}
    assert set(found) == {(5, "transfer"), (10, "transfer"), (10, "scratch")}
    assert found[10, "transfer"].held_out == 30
    errors = {key: point.score.mape_percent for key, point in found.items()}
    assert errors[5, "transfer"] < errors[10, "scratch"]
    assert all(point.covered > 0.6 for point in curve)


def test_a_curve_of_too_few_rows_is_a_sentence(predictor: LatencyPredictor):
    configs = sampled(12, seed=1)
    with pytest.raises(PredictorError, match="12 subnets: measure at least 15"):
        few_shot_curve(predictor, OTHER, configs, other_ms(configs, seed=1))
