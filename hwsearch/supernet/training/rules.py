"""Which subnets a training step trains."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hwsearch.records import SubnetConfig
from hwsearch.space import SearchSpace

DrawSubnets = Callable[[np.random.Generator], list[SubnetConfig]]


def sandwich(
    space: SearchSpace, removal_probabilities: dict[int, float], random_subnets: int
) -> DrawSubnets:
    """The sandwich rule: largest, smallest and a few random subnets a step.

    From Universally Slimmable Networks (arXiv 1903.05134), section 3.2; random subnets leave out
    layers by their removal probabilities as in SuperSAM (arXiv 2501.08504). Without probabilities
    their depth is uniform.
    """

    def draw(rng: np.random.Generator) -> list[SubnetConfig]:
        between = [space.sample(rng, removal_probabilities or None) for _ in range(random_subnets)]
        return [space.largest, *between, space.smallest]

    return draw


def random_only(
    space: SearchSpace, removal_probabilities: dict[int, float], subnets: int
) -> DrawSubnets:
    """Random subnets alone, as one-shot methods before the sandwich rule trained."""
    return lambda rng: [space.sample(rng, removal_probabilities or None) for _ in range(subnets)]


def alone(config: SubnetConfig) -> DrawSubnets:
    """One subnet and no other: plain training of the full model, or fine-tuning of a pick."""
    return lambda rng: [config]
