"""Racing stops what is surely worse, and keeps what full evaluation would keep."""

import numpy as np

from search_study.racing import Judgement, race, surely_less

VIEWS = 96


def judgement(level: float, latency_ms: float, seed: int) -> Judgement:
    noise = np.random.default_rng(seed).normal(0, 0.3, VIEWS)
    shared = np.random.default_rng(99).normal(3, 1, VIEWS)
    return Judgement(sums=shared + level + noise, latency_ms=latency_ms, seconds=1.0)


def test_a_subnet_far_behind_is_stopped_early_and_saves_the_rest():
    good, bad = judgement(0.0, 5.0, 1), judgement(-1.0, 6.0, 2)
    outcome = race([good, bad], batch=16, confidence=3.5)
    assert outcome.stopped == (None, 16)
    assert outcome.views_saved_percent == 100 * (VIEWS - 16) / (2 * VIEWS)
    assert (outcome.wrong, outcome.front_lost) == (0, 0)


def test_what_is_faster_is_never_stopped_by_what_is_slower():
    outcome = race([judgement(0.0, 5.0, 1), judgement(-1.0, 4.0, 2)], batch=16, confidence=3.5)
    assert outcome.stopped == (None, None)


def test_near_equals_are_judged_in_full():
    outcome = race([judgement(0.0, 5.0, 1), judgement(-0.01, 6.0, 2)], batch=16, confidence=3.5)
    assert outcome.stopped == (None, None)


def test_a_careless_rule_errs_and_says_so():
    """Equal subnets: by how little the views so far differ must not decide."""
    equals = [judgement(0.0, 5.0 + 0.01 * seed, seed) for seed in range(40)]
    careless = race(equals, batch=8, confidence=0.5)
    careful = race(equals, batch=8, confidence=4.0)
    assert careless.wrong > 0
    assert careless.front_lost > 0
    assert (careful.wrong, careful.front_lost) == (0, 0)


def test_doubt_vanishes_with_the_last_view():
    candidate, rival = np.zeros(10), np.r_[np.full(9, 0.1), -0.5]
    assert surely_less(candidate, rival, np.arange(10), confidence=100.0)
    assert not surely_less(rival, candidate, np.arange(10), confidence=0.0)
