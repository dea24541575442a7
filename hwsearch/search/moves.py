"""Steps from a subnet to others near it: down to a latency limit, up to it, or aside."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hwsearch.records import SubnetConfig
from hwsearch.search.objectives import Predict
from hwsearch.space import SearchSpace

CLOSE_ENOUGH = 0.99  # a subnet that uses this share of the limit needs no further growth
AT_ONCE = 16  # neighbours are predicted in lots of this many, until one of a lot will do


def shrink_to(
    space: SearchSpace,
    config: SubnetConfig,
    *,
    latency: Predict,
    limit_ms: float,
    rng: np.random.Generator,
) -> SubnetConfig | None:
    """Shrink by random steps until the latency is within the limit; None if that can't be done.

    A step that suffices is preferred, and of such steps the gentlest.
    """
    current_ms = float(latency([config])[0])
    while current_ms > limit_ms:
        for lot, costs in _neighbours_in_lots(space, config, latency=latency, rng=rng):
            faster = np.flatnonzero(costs < current_ms)
            if faster.size:
                enough = faster[costs[faster] <= limit_ms]
                step = enough[np.argmax(costs[enough])] if enough.size else faster[0]
                config, current_ms = lot[step], float(costs[step])
                break
        else:
            return None
    return config


def grow_to(
    space: SearchSpace,
    config: SubnetConfig,
    *,
    latency: Predict,
    limit_ms: float,
    rng: np.random.Generator,
) -> SubnetConfig:
    """Grow by random steps as long as the latency stays within the limit."""
    current_ms = float(latency([config])[0])
    while current_ms < CLOSE_ENOUGH * limit_ms:
        for lot, costs in _neighbours_in_lots(space, config, latency=latency, rng=rng):
            slower = np.flatnonzero((costs > current_ms) & (costs <= limit_ms))
            if slower.size:
                config, current_ms = lot[slower[0]], float(costs[slower[0]])
                break
        else:
            break
    return config


def mutate(
    space: SearchSpace, config: SubnetConfig, *, steps: int, rng: np.random.Generator
) -> SubnetConfig:
    """Walk `steps` random steps through the space."""
    for _ in range(steps):
        options = list(space.neighbours(config))
        if options:
            config = options[rng.integers(len(options))]
    return config


def fastest(space: SearchSpace, *, latency: Predict) -> SubnetConfig:
    """The subnet that steepest descent from the smallest one ends at.

    The smallest subnet leaves out the least important layers, not the most expensive ones, and
    window padding can make a lower resolution slower: so steps and exchanges of a kept layer for
    a dropped one are tried.
    """
    config = space.smallest
    current_ms = float(latency([config])[0])
    while True:
        options = [*space.neighbours(config), *_exchanges(space, config)]
        if not options:
            return config
        costs = latency(options)
        step = int(np.argmin(costs))
        if costs[step] >= current_ms:
            return config
        config, current_ms = options[step], float(costs[step])


def _neighbours_in_lots(
    space: SearchSpace, config: SubnetConfig, *, latency: Predict, rng: np.random.Generator
) -> Iterator[tuple[list[SubnetConfig], NDArray[np.float64]]]:
    """The neighbours in random order with their latencies; later lots only cost when asked for."""
    options = list(space.neighbours(config))
    order = rng.permutation(len(options))
    for start in range(0, len(options), AT_ONCE):
        lot = [options[place] for place in order[start : start + AT_ONCE]]
        yield lot, latency(lot)


def _exchanges(space: SearchSpace, config: SubnetConfig) -> list[SubnetConfig]:
    kept = {layer.index: layer for layer in config.layers}
    removable = [choices for choices in space.layers if choices.removable]
    outside = [choices for choices in removable if choices.index not in kept]
    inside = [choices.index for choices in removable if choices.index in kept]
    exchanged = []
    for gone, choices in itertools.product(inside, outside):
        layers = {index: layer for index, layer in kept.items() if index != gone}
        layers[choices.index] = choices.smallest
        ordered = tuple(layers[index] for index in sorted(layers))
        exchanged.append(SubnetConfig(resolution=config.resolution, layers=ordered))
    return exchanged
