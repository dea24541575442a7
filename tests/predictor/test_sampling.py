"""Samples that cover the sizes, tell much of each, and go on where a smaller one ended."""

from math import comb

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import GEOMETRY, tiny_space

from hwsearch.costs import encoder_macs
from hwsearch.predictor.features import SCHEMA, FeatureBuilder
from hwsearch.predictor.information import relative_costs
from hwsearch.predictor.sampling import stratified_sample, typical_subnet
from hwsearch.space import default_space

SPACE = tiny_space()


def log_macs(configs) -> np.ndarray:
    return np.log([encoder_macs(GEOMETRY, config) for config in configs])


@settings(deadline=None, max_examples=3)
@given(fewer=st.integers(1, 40), more=st.integers(0, 40), seed=st.integers(0, 2**32 - 1))
def test_a_larger_sample_begins_with_the_smaller_one(fewer: int, more: int, seed: int):
    small = stratified_sample(SPACE, GEOMETRY, fewer, seed=seed)
    large = stratified_sample(SPACE, GEOMETRY, fewer + more, seed=seed)
    assert large[: len(small)] == small
    assert len(set(large)) == len(large) == fewer + more
    assert large[0] == SPACE.largest


def test_sizes_are_covered_evenly_where_a_uniform_draw_crowds_the_middle():
    def widest_gap(configs) -> float:
        return float(np.diff(np.sort(log_macs(configs))).max())

    rng = np.random.default_rng(0)
    sample = stratified_sample(SPACE, GEOMETRY, 16)
    uniform = [SPACE.sample(rng) for _ in range(14)]
    uniform += [SPACE.largest, SPACE.smallest]
    assert sample[1] == SPACE.smallest
    assert widest_gap(sample) < 0.75 * widest_gap(uniform)


def test_a_sample_leaves_new_subnets_less_uncertain_than_one_of_the_same_sizes_at_random():
    """By the variance of a linear model's predictions, worked out here by the textbook."""
    rng = np.random.default_rng(5)
    count = 30
    sample = stratified_sample(SPACE, GEOMETRY, count)
    pool = [SPACE.sample(rng) for _ in range(2000)]
    distances = np.abs(log_macs(pool)[:, None] - log_macs(sample)[None])
    alike = [pool[rng.choice(np.argsort(column)[:8])] for column in distances.T]
    unseen = [SPACE.sample(rng) for _ in range(200)]
    features = FeatureBuilder(GEOMETRY).matrix([*sample, *alike, *unseen])
    rows = relative_costs(features, features)

    def variance(measured: np.ndarray) -> float:
        inverse = np.linalg.inv(measured.T @ measured + 0.01 * np.eye(rows.shape[1]))
        new = rows[2 * count :]
        return float(np.mean(np.sum(new @ inverse * new, axis=1)))

    assert variance(rows[:count]) < 0.8 * variance(rows[count : 2 * count])


def test_by_size_alone_a_subnet_nearer_to_the_wanted_size_is_taken():
    """The first places between the extremes are a half, a quarter and three quarters."""

    def apart(neighbours: int) -> np.ndarray:
        sizes = log_macs(stratified_sample(SPACE, GEOMETRY, 5, neighbours=neighbours))
        most, least = sizes[:2]
        return np.abs(sizes[2:] - (least + np.array([1 / 2, 1 / 4, 3 / 4]) * (most - least)))

    assert np.all(apart(1) <= apart(8))
    assert np.any(apart(1) < 0.5 * apart(8))


def test_no_more_subnets_come_than_were_asked_for():
    assert stratified_sample(SPACE, GEOMETRY, 0) == []
    assert stratified_sample(SPACE, GEOMETRY, 1) == [SPACE.largest]


def test_a_small_space_is_taken_whole():
    space = default_space(
        GEOMETRY, resolutions=(128,), width_ratios=(1.0,), head_ratios=(1.0,), min_depth=2
    )
    found = stratified_sample(space, GEOMETRY, 1000)
    removable = sum(choices.removable for choices in space.layers)
    fixed = len(space.layers) - removable
    kept = [number for number in range(removable + 1) if fixed + number >= 2]
    assert len(set(found)) == len(found) == sum(comb(removable, number) for number in kept)


def test_the_typical_subnet_is_in_the_middle_of_all_costs():
    rng = np.random.default_rng(11)
    typical = typical_subnet(SPACE, GEOMETRY)
    assert SPACE.contains(typical)
    drawn = [SPACE.sample(rng) for _ in range(500)]
    names = ("macs", "params", "all_mlp_macs", "all_attention_macs", "all_weight_bytes")
    costs = FeatureBuilder(GEOMETRY).matrix([typical, *drawn])[:, SCHEMA.places(names)]
    below = np.mean(costs[1:] < costs[0], axis=0)
    assert np.all((below > 0.2) & (below < 0.8)), dict(zip(names, below, strict=True))
