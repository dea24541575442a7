"""New deployments near the best ones, ranked by the surrogate: where most trials go.

A sampler that starts from nothing learns too little of a space of millions in a hundred trials.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hwsearch.records import Deployment
from hwsearch.search.deployments import DeploymentSpace
from hwsearch.search.moves import grow_to, mutate, shrink_to
from hwsearch.search.objectives import Cost
from hwsearch.search.surrogate import draw_scores

PARENTS = 5
POOL = 32
MOST_STEPS = 3


def propose(
    space: DeploymentSpace,
    judged: Mapping[Deployment, float],
    *,
    upper: Cost,
    limit: float,
    pending: Sequence[Deployment] = (),
    rng: np.random.Generator,
) -> Deployment | None:
    """The most promising of a pool of mutants of the best feasible deployments.

    Each mutant is one to three random steps away from its parent, then brought within the limit
    and grown up to it.

    Args:
        space: where all deployments come from.
        judged: mIoU of the deployments tried so far; none of them is proposed again.
        upper: upper bounds of the cost, (n,).
        limit: what the upper bound may not exceed.
        pending: what others are judging now; none of it is proposed.
        rng: the source of all randomness.

    Returns:
        An untried feasible deployment, or None if no parent is feasible or no new mutant was found.
    """
    if not judged:
        return None
    bounds = upper(list(judged))
    feasible = [c for c, bound in zip(judged, bounds, strict=True) if bound <= limit]
    parents = sorted(feasible, key=lambda config: -judged[config])[:PARENTS]
    tried = {*judged, *pending}
    pool: dict[Deployment, None] = {}
    for _ in range(POOL if parents else 0):
        parent = parents[rng.integers(len(parents))]
        mutant = mutate(space, parent, steps=int(rng.integers(1, MOST_STEPS + 1)), rng=rng)
        fitting = shrink_to(space, mutant, cost=upper, limit=limit, rng=rng)
        if fitting is not None:
            grown = grow_to(space, fitting, cost=upper, limit=limit, rng=rng)
            pool.update({config: None for config in (grown, fitting) if config not in tried})
    if not pool:
        return None
    candidates = list(pool)
    return candidates[int(np.argmax(draw_scores(space, judged, candidates, rng)))]
