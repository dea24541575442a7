from collections.abc import Sequence

import numpy as np
import pytest
from laboratory import Lab

from hwsearch.records import Deployment
from hwsearch.search.deployments import DeploymentSpace
from hwsearch.search.moves import fastest, mutate, shrink_to


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
