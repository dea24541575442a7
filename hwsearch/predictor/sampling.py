"""Which subnets to measure before any latency is known: all sizes, and of each what tells most."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.stats import qmc

from hwsearch.predictor.features import SCHEMA, FeatureBuilder
from hwsearch.predictor.information import most_informative, relative_costs
from hwsearch.records import SamGeometry, SubnetConfig
from hwsearch.space import SearchSpace

DRAWS = 1024
DRAWS_PER_SAMPLE = 8
NEIGHBOURS = 8


def stratified_sample(
    space: SearchSpace,
    geometry: SamGeometry,
    count: int,
    *,
    seed: int = 0,
    neighbours: int = NEIGHBOURS,
) -> list[SubnetConfig]:
    """The largest and the smallest subnet, and others spread evenly over log-MACs.

    A uniform draw crowds the middle of the space, where the many combinations are, and a
    predictor fitted on it would have to extrapolate. So many more subnets are drawn than needed,
    and sizes are filled one after the other, in the order of van der Corput's sequence between the
    extremes' log-MACs: of the few subnets nearest to the next point, the one is taken from which
    most is to be learnt. Each point halves a gap, so that the first subnets of a sample cover the
    sizes as all of them do: a smaller sample of the same seed is the beginning of a larger one, up
    to `DRAWS` / `DRAWS_PER_SAMPLE` subnets.

    Args:
        space: where the subnets come from.
        geometry: the full encoder's sizes.
        count: how many distinct subnets; fewer are returned if the space has no more.
        seed: source of the draw.
        neighbours: of how many subnets of about the wanted size the most informative one is taken;
            with one, size alone decides.

    Returns:
        Distinct subnets, the extremes first.
    """
    extremes = list(dict.fromkeys([space.largest, space.smallest]))
    rng = np.random.default_rng(seed)
    drawn = (space.sample(rng) for _ in range(max(DRAWS, DRAWS_PER_SAMPLE * count)))
    configs = list(dict.fromkeys([*extremes, *drawn]))
    features = FeatureBuilder(geometry).matrix(configs)
    rows = relative_costs(features, features)
    sizes = np.log(features[:, SCHEMA.places(["macs"])[0]])
    least, most = sizes[len(extremes) - 1], sizes[0]
    chosen = list(range(len(extremes)))
    free = np.arange(len(configs)) >= len(extremes)
    wanted = max(min(count, len(configs)) - len(extremes), 0)
    shares = qmc.Halton(d=1, scramble=False).random(wanted + 1)[1:, 0]  # the first one is zero
    for goal in least + shares * (most - least):
        distances = np.where(free, np.abs(sizes - goal), np.inf)
        nearest = np.argsort(distances, kind="stable")[: min(neighbours, free.sum())]
        place = most_informative(rows, chosen, nearest.tolist())
        free[place] = False
        chosen.append(place)
    return [configs[place] for place in chosen[: max(count, 0)]]


@lru_cache
def typical_subnet(space: SearchSpace, geometry: SamGeometry) -> SubnetConfig:
    """A subnet in the middle of all costs: the machine's changes act on it as on most.

    How much a change of the machine slows a subnet down hangs on what it spends its time with.
    Of `DRAWS` subnets, the one that is nearest to their middle in the logarithms of all costs, each
    in its own spread, is returned. It hangs on the space's choices, not on which layers matter.
    """
    in_order = space.model_copy(update={"removal_order": tuple(sorted(space.removal_order))})
    rng = np.random.default_rng(0)
    configs = list(dict.fromkeys(in_order.sample(rng) for _ in range(DRAWS)))
    costs = FeatureBuilder(geometry).matrix(configs)[:, SCHEMA.places(SCHEMA.operators)]
    logs = np.log(np.maximum(costs, 1))
    spread = logs.std(axis=0)
    apart = (logs - np.median(logs, axis=0)) / np.where(spread > 0, spread, 1)
    return configs[int(np.argmin(np.square(apart).sum(axis=1)))]
