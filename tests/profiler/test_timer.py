from __future__ import annotations

import gc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsearch.profiler.timer import (
    bootstrap_median,
    garbage_kept,
    summarise,
    wander,
)

latencies = st.lists(st.floats(1e-4, 10), min_size=1, max_size=60).map(np.array)


@given(latencies)
def test_the_interval_holds_the_median_and_lies_within_the_values(values: np.ndarray) -> None:
    low, high = bootstrap_median(values, rng=np.random.default_rng(0))
    assert values.min() <= low <= np.median(values) <= high <= values.max()


def test_the_interval_covers_the_true_median_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    true_median = 1.0  # of a log-normal, skewed as latencies are
    hits = 0
    for _ in range(400):
        low, high = bootstrap_median(rng.lognormal(0, 0.3, 30), rng=rng, resamples=400)
        hits += low <= true_median <= high
    assert 0.90 <= hits / 400 <= 0.99


def test_statistics_are_in_milliseconds() -> None:
    stats = summarise(np.arange(1, 102) / 1e3, rng=np.random.default_rng(0))
    assert (stats.p50_ms, stats.p90_ms, stats.p95_ms) == pytest.approx((51, 91, 96))
    assert (stats.mean_ms, stats.n) == (pytest.approx(51), 101)
    assert stats.std_ms == pytest.approx(np.std(np.arange(1, 102), ddof=1))
    assert stats.low_ms < 51 < stats.high_ms


def test_one_latency_has_statistics_too() -> None:
    stats = summarise(np.array([0.004]), rng=np.random.default_rng(0))
    assert (stats.p50_ms, stats.std_ms, stats.low_ms, stats.high_ms) == (4, 0, 4, 4)


def test_one_slow_run_is_no_wandering_but_a_new_speed_is() -> None:
    steady = np.full(9, 100.0)
    outlier = np.where(np.arange(9) == 4, 300.0, steady)
    slower = np.where(np.arange(9) >= 5, 130.0, steady)
    assert wander(outlier) == 0
    assert wander(slower) == pytest.approx(0.3)
    assert wander(np.array([100.0, 110.0])) == pytest.approx(10 / 105)


@pytest.mark.parametrize("was_on", [True, False])
def test_the_garbage_collector_is_left_as_it_was(was_on: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if was_on else gc.disable)()
        with garbage_kept():
            assert not gc.isenabled()
        assert gc.isenabled() == was_on
    finally:
        (gc.enable if before else gc.disable)()
