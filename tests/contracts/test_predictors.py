"""What every latency model keeps to, candidates and baselines alike."""

import json

import numpy as np
import pytest

from hwsearch.costs import encoder_macs
from hwsearch.predictor.features import SCHEMA, FeatureBuilder
from hwsearch.predictor.models import LatencyModel, baselines
from hwsearch.predictor.transfer import transfer_candidates
from hwsearch.records import SamGeometry
from hwsearch.space import default_space

GEOMETRY = SamGeometry(
    model="custom",
    image_size=128,
    patch_size=16,
    embed_dim=64,
    depth=6,
    heads=4,
    mlp_width=256,
    window_size=3,
    global_layers=(1, 4),
    prompt_dim=32,
)
SPACE = default_space(GEOMETRY, resolutions=(64, 96, 128))
RNG = np.random.default_rng(0)
CONFIGS = [SPACE.sample(RNG) for _ in range(200)]
MACS = np.array([encoder_macs(GEOMETRY, config) for config in CONFIGS])
# The last column is what another target's predictor says: slower, and less so for large subnets.
FEATURES = np.column_stack([FeatureBuilder(GEOMETRY).matrix(CONFIGS), 2.5 * (0.5 + MACS / 2e7)])
LATENCIES = (0.3 + MACS / 2e7) * np.exp(0.02 * RNG.standard_normal(len(CONFIGS)))
TRAIN = slice(0, 40)

CANDIDATES = transfer_candidates(SCHEMA)  # which has those without a source in it
BASELINES = baselines(SCHEMA)

every_model = pytest.mark.parametrize(
    "model", [*CANDIDATES, *BASELINES], ids=lambda model: model.name
)


def fitted(model: LatencyModel, latencies: np.ndarray = LATENCIES):
    hyper = model.tune(FEATURES[TRAIN], latencies[TRAIN])
    return model.fit(FEATURES[TRAIN], latencies[TRAIN], hyper)


def test_names_are_distinct():
    names = [model.name for model in (*CANDIDATES, *BASELINES)]
    assert len(set(names)) == len(names)


@every_model
def test_predictions_are_positive_and_finite_and_one_a_row(model: LatencyModel):
    predictions = fitted(model).predict(FEATURES)
    assert predictions.shape == (len(CONFIGS),)
    assert predictions.dtype == np.float64
    assert (predictions > 0).all()
    assert np.isfinite(predictions).all()


@every_model
def test_the_unit_of_time_does_not_matter(model: LatencyModel):
    predictions = fitted(model).predict(FEATURES)
    in_microseconds = fitted(model, 1000 * LATENCIES).predict(FEATURES)
    # Trees choose among splits that tie by the last bits, hence the tolerance.
    assert np.allclose(in_microseconds, 1000 * predictions, rtol=1e-2)


@every_model
def test_stored_hyper_parameters_give_the_same_model(model: LatencyModel):
    hyper = model.tune(FEATURES[TRAIN], LATENCIES[TRAIN])
    restored = json.loads(json.dumps(hyper))
    first = model.fit(FEATURES[TRAIN], LATENCIES[TRAIN], hyper)
    second = model.fit(FEATURES[TRAIN], LATENCIES[TRAIN], restored)
    assert np.array_equal(first.predict(FEATURES), second.predict(FEATURES))


@every_model
def test_fitting_leaves_its_inputs_alone(model: LatencyModel):
    features, latencies = FEATURES[TRAIN].copy(), LATENCIES[TRAIN].copy()
    hyper = model.tune(features, latencies)
    model.fit(features, latencies, hyper).predict(features)
    assert np.array_equal(features, FEATURES[TRAIN])
    assert np.array_equal(latencies, LATENCIES[TRAIN])


@every_model
def test_rows_that_are_all_alike_do_no_harm(model: LatencyModel):
    """One resolution, one subnet: columns without variance, residuals of nothing."""
    features = np.repeat(FEATURES[:1], 10, axis=0)
    latencies = np.full(10, 5.0)
    hyper = model.tune(features, latencies)
    predictions = model.fit(features, latencies, hyper).predict(features)
    assert np.allclose(predictions, 5.0, rtol=1e-3)


@pytest.mark.parametrize("model", CANDIDATES, ids=lambda model: model.name)
def test_candidates_learn_what_40_noisy_rows_tell(model: LatencyModel):
    errors = np.abs(fitted(model).predict(FEATURES[40:]) / LATENCIES[40:] - 1)
    assert errors.mean() < 0.035
