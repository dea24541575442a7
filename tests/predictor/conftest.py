"""A predictor fitted on 32 subnets of the synthetic law, shared by the tests."""

import pytest
from synthetic import GEOMETRY, TARGET, measured_ms, sampled

from hwsearch.predictor import crossvalidation
from hwsearch.predictor.latency_predictor import LatencyPredictor


@pytest.fixture(scope="session")
def predictor():
    configs = sampled(32, seed=1)
    return LatencyPredictor(GEOMETRY, TARGET, "custom-1").fit(configs, measured_ms(configs, seed=1))


@pytest.fixture
def one_repeat(monkeypatch: pytest.MonkeyPatch):
    """Cross-validate once instead of three times, where only time would be lost."""
    monkeypatch.setattr(crossvalidation, "REPEATS", 1)
