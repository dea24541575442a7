"""What a pick that leaves much of its limit unused has to compete with.

Proposals keep the upper bound of the latency within the limit, so that the last few percent of it
are seldom looked at. Here it is enough that a deployment may turn out to fit, since it is measured.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hwsearch.records import Deployment
from hwsearch.search.deployments import DeploymentSpace
from hwsearch.search.objectives import Cost
from hwsearch.search.steps import steps_around
from hwsearch.search.surrogate import features, fit_surrogate

MOST = 4  # deployments at a time
PARENTS, CLIMBS = 6, 3  # the most accurate, then the most promising are stepped from, so often
DOUBT = 2.0  # deviations by which the expectation may err


def challengers(
    space: DeploymentSpace,
    judged: Mapping[Deployment, float],
    pick: Deployment,
    *,
    upper: Cost,
    at_best: Cost,
    limit: float,
) -> list[Deployment]:
    """Untried deployments that may be more accurate than a pick, and may fit.

    All that two steps from it lead to is looked at, for a step that fits may lie behind one that
    does not, and so is what is a step from the most accurate of all, whatever they take; what
    promises most there is stepped from again. A deployment counts where its expected accuracy
    and `DOUBT` deviations reach beyond the pick's.

    Args:
        space: where all deployments come from.
        judged: mIoU of the deployments tried so far, the pick among them.
        pick: what they have to be better than.
        upper: upper bounds of the cost, (n,), by which the surrogate knows a size.
        at_best: what the cost may turn out to be, (n,).
        limit: what `at_best` may not exceed.

    Returns:
        At most `MOST`, by falling expectation.
    """
    tried = list(judged)
    known = features(space, tried, upper(tried))
    surrogate = fit_surrogate(known, np.array([judged[one] for one in tried]))
    expected: dict[Deployment, float] = {}
    hopeful: list[Deployment] = []
    best = sorted(tried, key=judged.__getitem__, reverse=True)[:PARENTS]
    parents = list(dict.fromkeys([pick, *_neighbourhood(space, [pick]), *best]))
    for _ in range(CLIMBS):
        steps = _neighbourhood(space, parents)
        new = [step for step in steps if step not in judged and step not in expected]
        fitting = _within(new, at_best, limit)
        if fitting:
            means, deviations = surrogate.predict(features(space, fitting, upper(fitting)))
            expected |= dict(zip(fitting, means.tolist(), strict=True))
            promising = means + DOUBT * deviations > judged[pick]
            hopeful += [fitting[place] for place in np.flatnonzero(promising)]
        parents = sorted(expected, key=expected.__getitem__, reverse=True)[:PARENTS]
    return sorted(hopeful, key=expected.__getitem__, reverse=True)[:MOST]


def _neighbourhood(space: DeploymentSpace, parents: list[Deployment]) -> list[Deployment]:
    """What is one step from any of these."""
    return list(dict.fromkeys(step for one in parents for step in steps_around(space, one)))


def _within(options: list[Deployment], cost: Cost, limit: float) -> list[Deployment]:
    if not options:
        return []
    return [options[place] for place in np.flatnonzero(cost(options) <= limit)]
