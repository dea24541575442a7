"""New subnets near the best ones, ranked by the surrogate: where most trials go.

A sampler that starts from nothing learns too little of a space of millions in a hundred trials.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hwsearch.records import SubnetConfig
from hwsearch.search.moves import grow_to, mutate, shrink_to
from hwsearch.search.objectives import Predict
from hwsearch.search.surrogate import draw_scores
from hwsearch.space import SearchSpace

PARENTS = 5
POOL = 32
MOST_STEPS = 3


def propose(
    space: SearchSpace,
    judged: Mapping[SubnetConfig, float],
    *,
    upper: Predict,
    target_ms: float,
    rng: np.random.Generator,
) -> SubnetConfig | None:
    """The most promising of a pool of mutants of the best feasible subnets.

    Each mutant is one to three random steps away from its parent, then brought within the target
    and grown up to it.

    Args:
        space: where all subnets come from.
        judged: mIoU of the subnets tried so far; none of them is proposed again.
        upper: upper bounds of latencies in milliseconds.
        target_ms: what the upper bound may not exceed.
        rng: the source of all randomness.

    Returns:
        An untried feasible subnet, or None if no parent is feasible or no new mutant was found.
    """
    if not judged:
        return None
    bounds = upper(list(judged))
    feasible = [c for c, bound in zip(judged, bounds, strict=True) if bound <= target_ms]
    parents = sorted(feasible, key=lambda config: -judged[config])[:PARENTS]
    pool: dict[SubnetConfig, None] = {}
    for _ in range(POOL if parents else 0):
        parent = parents[rng.integers(len(parents))]
        mutant = mutate(space, parent, steps=int(rng.integers(1, MOST_STEPS + 1)), rng=rng)
        fitting = shrink_to(space, mutant, latency=upper, limit_ms=target_ms, rng=rng)
        if fitting is not None:
            grown = grow_to(space, fitting, latency=upper, limit_ms=target_ms, rng=rng)
            pool.update({config: None for config in (grown, fitting) if config not in judged})
    if not pool:
        return None
    candidates = list(pool)
    return candidates[int(np.argmax(draw_scores(space, judged, candidates, rng)))]
