"""The next deployment to judge: the one from which the front is expected to gain most.

Candidates are drawn around the front that is known and along the order of importance, ranked by
the surrogate, and the best of them are improved by steps, since the space is far too large to
rank all of it. A sampler that starts from nothing learns too little of such a space in a hundred
trials.

Where the whole front is sought the surrogate is doubted now and then: what single choices are worth
depends on the others more than a few tens of trials can tell. Then a step from the front is taken
to lose only a share of what is expected, and the one that would gain most is judged. With a limit
what counts is the accuracy there, to which no step that loses adds.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
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
from hwsearch.search.steps import crossed, informed_steps, steps_around
from hwsearch.search.surrogate import Surrogate, features, fit_surrogate

Array = NDArray[np.float64]

PARENTS = 12  # members of the front whose surroundings are looked at
MUTANTS, CROSSED, REGULAR, SAMPLED = 48, 24, 48, 24
MOST_STEPS = 3
BEST, CLIMBS = 6, 3  # so many candidates at a time are improved by steps, so often
MOST_STEPS_TRIED = 32  # of each of them
END_WEIGHT = 10.0  # of the accuracy at the limit, where all of the front below it weighs 1
DOUBT = 0.2  # share of the proposals for the whole front that doubt the surrogate,
TRUST = 0.5  # and the share of a step's expected loss that they believe in
CERTAIN = 1e-6  # deviation of an accuracy that is taken for granted
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
    """The untried deployment with the greatest expected gain, by the surrogate or in doubt of it.

    With a limit only what is within it is proposed, and the accuracy that is reached at the limit
    counts more than the rest of the front; without one the whole front counts, and doubts come.

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
    doubting = limit is None and rng.random() < DOUBT
    if doubting and (hoped := ranking.hoped_for(tried)) is not None:
        return hoped
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
    front: Mapping[Deployment, float]

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
            front={tried[place]: float(accuracies[place]) for place in places},
        )

    def ranked(self, candidates: Iterable[Deployment]) -> dict[Deployment, float]:
        """Expected gains of those candidates that are within the limit."""
        options, costs = self._within(candidates)
        if not options:
            return {}
        means, deviations = self.surrogate.predict(features(self.space, options, costs))
        gains = self._gains(means, deviations, costs)
        return dict(zip(options, gains.tolist(), strict=True))

    def hoped_for(self, tried: Container[Deployment]) -> Deployment | None:
        """The step from the front that gains most if it loses but `TRUST` of what is expected."""
        parents: dict[Deployment, float] = {}  # the best one of each step
        for parent, accuracy in self.front.items():
            for step in steps_around(self.space, parent):
                if step not in tried:
                    parents[step] = max(accuracy, parents.get(step, 0.0))
        options, costs = self._within(parents)
        if not options:
            return None
        before = np.array([parents[option] for option in options])
        means, _ = self.surrogate.predict(features(self.space, options, costs))
        hopes = np.maximum(means, before + TRUST * (means - before))
        gains = self._gains(hopes, np.full(len(options), CERTAIN), costs)
        return options[int(np.argmax(gains))] if gains.max() > 0 else None

    def _within(self, candidates: Iterable[Deployment]) -> tuple[list[Deployment], Array]:
        options = list(dict.fromkeys(candidates))
        costs = self.upper(options) if options else np.empty(0)
        if self.limit is None:
            return options, costs
        places = np.flatnonzero(costs <= self.limit)
        return [options[place] for place in places], costs[places]

    def _gains(self, means: Array, deviations: Array, costs: Array) -> Array:
        return expected_gains(
            self.points,
            means=means,
            deviations=deviations,
            costs=costs,
            worst=self.worst,
            at_the_end=self.end_weight,
        )


def _first_draws(
    space: DeploymentSpace, ranking: _Ranking, rng: np.random.Generator
) -> Iterator[Deployment]:
    front = list(ranking.front)
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
    steps = steps_around(space, deployment)
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
