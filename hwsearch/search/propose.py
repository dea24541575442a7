"""The next deployment to judge: the one from which the front is expected to gain most.

Candidates are drawn around the front that is known and along the order of importance, ranked by
the surrogate, and the best of them are improved by steps, since the space is far too large to
rank all of it. A sampler that starts from nothing learns too little of such a space in a hundred
trials.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwsearch.records import Deployment
from hwsearch.search.deployments import DeploymentSpace
from hwsearch.search.improvement import expected_gains
from hwsearch.search.moves import mutate, shrink_to
from hwsearch.search.objectives import Cost
from hwsearch.search.pareto import pareto_front
from hwsearch.search.start import draw_regular
from hwsearch.search.steps import crossed, informed_steps
from hwsearch.search.surrogate import Surrogate, features, fit_surrogate

Array = NDArray[np.float64]

PARENTS = 12  # members of the front whose surroundings are looked at
MUTANTS, CROSSED, REGULAR, SAMPLED = 48, 24, 48, 24
MOST_STEPS = 3
BEST, CLIMBS = 6, 3  # so many candidates at a time are improved by steps, so often
MOST_STEPS_TRIED = 32  # of each of them
END_WEIGHT = 10.0  # of the accuracy at the limit, where all of the front below it weighs 1
RESCUES = 32  # draws that are shrunk where no candidate is left


def propose(
    space: DeploymentSpace,
    judged: Mapping[Deployment, float],
    *,
    upper: Cost,
    limit: float | None = None,
    pending: Sequence[Deployment] = (),
    rng: np.random.Generator,
) -> Deployment | None:
    """The untried deployment with the greatest expected gain.

    With a limit only what is within it is proposed, and the accuracy that is reached at the limit
    counts more than the rest of the front; without one the whole front counts.

    Args:
        space: where all deployments come from.
        judged: mIoU of the deployments tried so far; none of them is proposed again.
        upper: upper bounds of the cost, (n,).
        limit: what the upper bound may not exceed.
        pending: deployments that others are judging now. None of them is proposed, and their
            accuracies are taken to be what is expected of them.
        rng: the source of all randomness.

    Returns:
        An untried deployment within the limit, or None where nothing was judged or none was found.
    """
    if not judged:
        return None
    ranking = _Ranking.of(space, judged, upper=upper, limit=limit, pending=pending)
    tried = {*judged, *pending}
    ranked = ranking.ranked(one for one in _first_draws(space, ranking, rng) if one not in tried)
    for _ in range(CLIMBS):
        best = sorted(ranked, key=ranked.__getitem__, reverse=True)[:BEST]
        around = [step for one in best for step in _around(space, one, rng)]
        ranked |= ranking.ranked(
            one for one in dict.fromkeys(around) if one not in tried and one not in ranked
        )
    if ranked:
        return max(ranked, key=ranked.__getitem__)
    return None if limit is None else _rescued(space, tried, upper=upper, limit=limit, rng=rng)


@dataclass(frozen=True)
class _Ranking:
    """What is known when a proposal is made."""

    space: DeploymentSpace
    surrogate: Surrogate
    upper: Cost
    limit: float | None
    points: Array
    worst: tuple[float, float]
    end_weight: float
    front: tuple[Deployment, ...]

    @classmethod
    def of(
        cls,
        space: DeploymentSpace,
        judged: Mapping[Deployment, float],
        *,
        upper: Cost,
        limit: float | None,
        pending: Sequence[Deployment],
    ) -> _Ranking:
        tried = list(dict.fromkeys([*judged, *pending]))
        costs = upper(tried)
        inputs = features(space, tried, costs)
        accuracies = np.array(list(judged.values()))
        surrogate = fit_surrogate(inputs[: len(judged)], accuracies)
        if len(tried) > len(judged):
            expected, _ = surrogate.predict(inputs[len(judged) :])
            accuracies = np.r_[accuracies, expected]
            surrogate = fit_surrogate(inputs, accuracies)
        points = np.column_stack([accuracies, costs])
        greatest = float(costs.max()) if limit is None else limit
        within = points[costs <= greatest]
        places = np.flatnonzero(costs <= greatest)[pareto_front(within)]
        cheapest = float(costs.min())
        return cls(
            space=space,
            surrogate=surrogate,
            upper=upper,
            limit=limit,
            points=points,
            worst=(float(accuracies.min()), greatest),
            end_weight=0.0 if limit is None else END_WEIGHT * max(limit - cheapest, 0.0),
            front=tuple(tried[place] for place in places),
        )

    def ranked(self, candidates: Iterable[Deployment]) -> dict[Deployment, float]:
        """Expected gains of those candidates that are within the limit."""
        options = list(dict.fromkeys(candidates))
        if not options:
            return {}
        costs = self.upper(options)
        within = np.flatnonzero(costs <= self.worst[1])
        if self.limit is None:
            within = np.arange(len(options))
        options, costs = [options[place] for place in within], costs[within]
        if not options:
            return {}
        means, deviations = self.surrogate.predict(features(self.space, options, costs))
        gains = expected_gains(
            self.points,
            means=means,
            deviations=deviations,
            costs=costs,
            worst=self.worst,
            at_the_end=self.end_weight,
        )
        return dict(zip(options, gains.tolist(), strict=True))


def _first_draws(
    space: DeploymentSpace, ranking: _Ranking, rng: np.random.Generator
) -> Iterator[Deployment]:
    front = ranking.front
    chosen = rng.permutation(len(front))[:PARENTS]
    parents = [front[place] for place in {*chosen.tolist(), len(front) - 1}] if front else []
    for parent in parents:
        yield from informed_steps(space, parent)
    for _ in range(MUTANTS if parents else 0):
        parent = parents[rng.integers(len(parents))]
        yield mutate(space, parent, steps=int(rng.integers(1, MOST_STEPS + 1)), rng=rng)
    for _ in range(CROSSED if len(parents) > 1 else 0):
        one, other = rng.choice(len(parents), size=2, replace=False)
        yield crossed(space, parents[one], parents[other], rng=rng)
    for _ in range(REGULAR):
        yield draw_regular(space, rng)
    for _ in range(SAMPLED):
        yield space.sample(rng)


def _around(
    space: DeploymentSpace, deployment: Deployment, rng: np.random.Generator
) -> list[Deployment]:
    steps = [*space.neighbours(deployment), *informed_steps(space, deployment)]
    return [steps[place] for place in rng.permutation(len(steps))[:MOST_STEPS_TRIED]]


def _rescued(
    space: DeploymentSpace,
    tried: set[Deployment],
    *,
    upper: Cost,
    limit: float,
    rng: np.random.Generator,
) -> Deployment | None:
    """Any untried deployment within a limit so low that no candidate was."""
    for _ in range(RESCUES):
        fitting = shrink_to(space, space.sample(rng), cost=upper, limit=limit, rng=rng)
        if fitting is not None and fitting not in tried:
            return fitting
    return None
