from collections.abc import Sequence

import numpy as np
import pytest
from laboratory import Lab, Law

from hwsearch.records import Deployment
from hwsearch.search.deployments import DeploymentSpace
from hwsearch.search.moves import fastest, grow_to, mutate, shrink_to
from hwsearch.search.propose import propose
from hwsearch.search.start import informed_start
from hwsearch.search.surrogate import draw_scores


@pytest.mark.parametrize("limit_ms", [7.0, 12.0, 20.0])
def test_shrinking_meets_the_limit(space: DeploymentSpace, lab: Lab, limit_ms: float):
    rng = np.random.default_rng(0)
    for _ in range(20):
        config = space.sample(rng)
        fitting = shrink_to(space, config, cost=lab.cost, limit=limit_ms, rng=rng)
        assert fitting is not None
        assert space.contains(fitting)
        assert lab.cost([fitting])[0] <= limit_ms
        if lab.cost([config])[0] <= limit_ms:
            assert fitting == config


def test_shrinking_below_the_smallest_is_impossible(space: DeploymentSpace, lab: Lab):
    rng = np.random.default_rng(0)
    assert shrink_to(space, space.largest, cost=lab.cost, limit=1.0, rng=rng) is None


def test_growing_leaves_no_room_for_another_step(space: DeploymentSpace, lab: Lab):
    rng = np.random.default_rng(0)
    grown = grow_to(space, space.smallest, cost=lab.cost, limit=15.0, rng=rng)
    latency_ms = lab.cost([grown])[0]
    steps_ms = lab.cost(list(space.neighbours(grown)))
    assert latency_ms <= 15.0
    assert latency_ms >= 0.99 * 15.0 or not ((steps_ms > latency_ms) & (steps_ms <= 15.0)).any()


def test_a_mutant_is_at_most_its_steps_away(space: DeploymentSpace):
    rng = np.random.default_rng(0)
    near = set(space.neighbours(space.largest))
    assert all(mutate(space, space.largest, steps=1, rng=rng) in near for _ in range(20))


def test_the_fastest_exchanges_layers_that_the_smallest_keeps(
    space: DeploymentSpace, deployments: list[Deployment]
):
    dear_layers = {2: 9.0, 1: 1.0, 3: 4.0, 0: 1.0}

    def cost(configs: Sequence[Deployment]) -> np.ndarray:
        return np.array(
            [sum(dear_layers[i] for i in c.subnet.indices) + c.subnet.resolution for c in configs]
        )

    assert space.smallest.subnet.indices == (0, 2)
    found = fastest(space, cost=cost)
    assert cost([found])[0] == cost(deployments).min()


@pytest.mark.parametrize("target_ms", [10.0, 12.0, 18.0])
def test_the_start_is_feasible_but_for_the_extremes(
    space: DeploymentSpace, lab: Lab, target_ms: float
):
    start = informed_start(space, lab.upper_cost, target_ms)
    assert start[:2] == [space.largest, space.smallest]
    assert len(set(start)) == len(start) <= 16
    assert all(space.contains(config) for config in start)
    regular = lab.upper_cost(start[2:])
    assert len(regular) >= 2
    assert (regular <= target_ms).all()
    assert regular.max() > 0.85 * target_ms


def test_scores_learn_which_layer_matters(
    space: DeploymentSpace, law: Law, deployments: list[Deployment]
):
    miou, _ = law
    rng = np.random.default_rng(1)
    judged = {deployments[i]: miou(deployments[i]) for i in rng.permutation(len(deployments))[:60]}
    unseen = [config for config in deployments if config not in judged]
    scores = draw_scores(space, judged, unseen, rng)
    assert np.corrcoef(scores, [miou(config) for config in unseen])[0, 1] > 0.9


def test_proposals_are_new_feasible_and_repeatable(space: DeploymentSpace, lab: Lab, law: Law):
    miou, _ = law
    judged = {config: miou(config) for config in informed_start(space, lab.upper_cost, 12.0)}
    twice = [
        propose(space, judged, upper=lab.upper_cost, limit=12.0, rng=np.random.default_rng(seed))
        for seed in (3, 3)
    ]
    assert twice[0] == twice[1]
    assert twice[0] not in judged
    assert lab.upper_cost(twice[:1])[0] <= 12.0


def test_nothing_is_proposed_without_a_feasible_parent(space: DeploymentSpace, lab: Lab, law: Law):
    miou, _ = law
    judged = {space.largest: miou(space.largest)}
    rng = np.random.default_rng(0)
    assert propose(space, judged, upper=lab.upper_cost, limit=8.0, rng=rng) is None
    assert propose(space, {}, upper=lab.upper_cost, limit=8.0, rng=rng) is None
