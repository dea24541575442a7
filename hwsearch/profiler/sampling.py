"""Which subnets to measure: sizes evenly covered, both extremes in."""

from __future__ import annotations

import numpy as np
from scipy.stats import qmc

from hwsearch.costs import encoder_macs
from hwsearch.records import SamGeometry, SubnetConfig
from hwsearch.space import SearchSpace

DRAWS = 1024
DRAWS_PER_SAMPLE = 8


def stratified_sample(
    space: SearchSpace, geometry: SamGeometry, count: int, *, seed: int = 0
) -> list[SubnetConfig]:
    """The largest and the smallest subnet, and others spread evenly over log-MACs.

    A uniform draw crowds the middle of the space, where the many combinations are, and a
    predictor fitted on it would have to extrapolate. So many more subnets are drawn than needed,
    and the sample takes, one after the other, the subnet nearest to the next point of van der
    Corput's sequence between the extremes' log-MACs. Each point halves a gap, so that the first
    subnets of a sample cover the sizes as all of them do: a smaller sample of the same seed is the
    beginning of a larger one, up to `DRAWS` / `DRAWS_PER_SAMPLE` subnets.

    Args:
        space: where the subnets come from.
        geometry: the full encoder's sizes.
        count: how many distinct subnets; fewer are returned if the space has no more.
        seed: source of the draw.

    Returns:
        Distinct subnets, the extremes first.
    """
    extremes = list(dict.fromkeys([space.largest, space.smallest]))[: max(count, 0)]
    rng = np.random.default_rng(seed)
    drawn = (space.sample(rng) for _ in range(max(DRAWS, DRAWS_PER_SAMPLE * count)))
    known = set(extremes)
    others = [config for config in dict.fromkeys(drawn) if config not in known]
    wanted = min(count - len(extremes), len(others))
    if wanted <= 0:
        return extremes
    macs = np.log([encoder_macs(geometry, config) for config in others])
    least, most = (
        float(np.log(encoder_macs(geometry, end))) for end in (space.smallest, space.largest)
    )
    free = np.ones(len(others), dtype=bool)
    chosen = []
    shares = qmc.Halton(d=1, scramble=False).random(wanted + 1)[1:, 0]  # the first one is zero
    for goal in least + shares * (most - least):
        nearest = int(np.argmin(np.where(free, np.abs(macs - goal), np.inf)))
        free[nearest] = False
        chosen.append(others[nearest])
    return extremes + chosen
