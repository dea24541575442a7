"""Steps from a deployment to others near it: down to a limit, or aside.

The limit is one of *cost*: the latency, or the share of several targets' limits that is used.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hwsearch.records import Deployment, SubnetConfig
from hwsearch.search.deployments import DeploymentSpace
from hwsearch.search.objectives import Cost

AT_ONCE = 16  # neighbours are predicted in lots of this many, until one of a lot will do


def shrink_to(
    space: DeploymentSpace,
    config: Deployment,
    *,
    cost: Cost,
    limit: float,
    rng: np.random.Generator,
) -> Deployment | None:
    """Shrink by random steps until the cost is within the limit; None if that can't be done.

    A step that suffices is preferred, and of such steps the gentlest.
    """
    current = float(cost([config])[0])
    while current > limit:
        for lot, costs in _neighbours_in_lots(space, config, cost=cost, rng=rng):
            faster = np.flatnonzero(costs < current)
            if faster.size:
                enough = faster[costs[faster] <= limit]
                step = enough[np.argmax(costs[enough])] if enough.size else faster[0]
                config, current = lot[step], float(costs[step])
                break
        else:
            return None
    return config


def mutate(
    space: DeploymentSpace, config: Deployment, *, steps: int, rng: np.random.Generator
) -> Deployment:
    """Walk `steps` random steps through the space."""
    for _ in range(steps):
        options = list(space.neighbours(config))
        if options:
            config = options[rng.integers(len(options))]
    return config


def fastest(space: DeploymentSpace, *, cost: Cost) -> Deployment:
    """The deployment that steepest descent from the smallest one ends at.

    The smallest leaves out the least important layers, not the most expensive ones, and
    window padding can make a lower resolution slower: so steps and exchanges of a kept layer for
    a dropped one are tried.
    """
    config = space.smallest
    current = float(cost([config])[0])
    while True:
        options = [*space.neighbours(config), *_exchanges(space, config)]
        if not options:
            return config
        costs = cost(options)
        step = int(np.argmin(costs))
        if costs[step] >= current:
            return config
        config, current = options[step], float(costs[step])


def _neighbours_in_lots(
    space: DeploymentSpace, config: Deployment, *, cost: Cost, rng: np.random.Generator
) -> Iterator[tuple[list[Deployment], NDArray[np.float64]]]:
    """The neighbours in random order with their costs; later lots only cost when asked for."""
    options = list(space.neighbours(config))
    order = rng.permutation(len(options))
    for start in range(0, len(options), AT_ONCE):
        lot = [options[place] for place in order[start : start + AT_ONCE]]
        yield lot, cost(lot)


def _exchanges(space: DeploymentSpace, deployment: Deployment) -> list[Deployment]:
    config = deployment.subnet
    kept = {layer.index: layer for layer in config.layers}
    removable = [choices for choices in space.subnets.layers if choices.removable]
    outside = [choices for choices in removable if choices.index not in kept]
    inside = [choices.index for choices in removable if choices.index in kept]
    exchanged = []
    for gone, choices in itertools.product(inside, outside):
        layers = {index: layer for index, layer in kept.items() if index != gone}
        layers[choices.index] = choices.smallest
        ordered = tuple(layers[index] for index in sorted(layers))
        subnet = SubnetConfig(resolution=config.resolution, layers=ordered)
        exchanged.append(Deployment(subnet=subnet, precision=deployment.precision))
    return exchanged
