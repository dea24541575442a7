"""Measures what a search found, until what it reports was measured and holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from hwsearch.progress import Progress
from hwsearch.records import Deployment
from hwsearch.search.objectives import Limits, Objectives
from hwsearch.search.pareto import pareto_front

BEST = 4  # this many of the most accurate subnets are measured in a round,
SPREAD = 3  # and this many along the rest of the front, so that what is reported has no gap
ROUNDS = 4


def verify_front(
    judged: Callable[[], Mapping[Deployment, float]],
    *,
    objectives: Objectives,
    limits: Limits,
    measured_ms: Mapping[Deployment, tuple[float, ...]],
    companions: Sequence[Deployment],
    search_on: Callable[[int], None],
    progress: Progress,
) -> dict[Deployment, tuple[float, ...]]:
    """Measure the best of the front; where one misses the target, correct, search on, repeat.

    Args:
        judged: gives the mIoU of every deployment tried so far.
        objectives: measures, predicts and corrects.
        limits: the latencies that a pick may not exceed, one a target.
        measured_ms: deployments measured already, with their latencies.
        companions: deployments to be measured in the first round besides the picks.
        search_on: runs a few more trials; called with the round's number, from 1.
        progress: told what is measured.

    Returns:
        The latencies of all that was measured, in milliseconds and one a target, those of
        `measured_ms` included.
    """
    known = dict(measured_ms)
    extra = [config for config in companions if config not in known]
    for number in range(1, ROUNDS + 1):
        front = feasible_front(judged(), objectives=objectives, limits=limits, measured_ms=known)
        picks = [config for config in _best_and_spread(front) if config not in known]
        batch = list(dict.fromkeys([*picks, *extra]))
        if not batch:
            break
        progress.log(f"Measuring {len(batch)} subnets of the front (round {number}).")
        latencies = objectives.measure(batch)
        known.update(zip(batch, map(tuple, latencies.tolist()), strict=True))
        objectives.refit(batch, latencies)
        missed = [config for config in picks if not limits.met(known[config]).all()]
        if not missed:
            break
        progress.log(f"{len(missed)} of {len(picks)} miss the target: the predictor is corrected.")
        extra = []
        if number < ROUNDS:
            search_on(number)
    return known


def _best_and_spread(front: Sequence[Deployment]) -> list[Deployment]:
    rest = front[BEST:]
    places = {round((number + 1) * len(rest) / (SPREAD + 1)) for number in range(SPREAD)}
    return [*front[:BEST], *(rest[place] for place in sorted(places) if place < len(rest))]


def feasible_front(
    judged: Mapping[Deployment, float],
    *,
    objectives: Objectives,
    limits: Limits,
    measured_ms: Mapping[Deployment, tuple[float, ...]],
) -> list[Deployment]:
    """Undominated deployments within the limits, the most accurate first.

    A measured latency counts where there is one; else the upper bound decides whether a deployment
    is within the limits, and the prediction where it stands on the front.
    """
    configs = list(judged)
    if not configs:
        return []
    predicted_ms = np.array(objectives.predict(configs))
    bounds_ms = np.array(objectives.upper(configs))
    for place, config in enumerate(configs):
        if config in measured_ms:
            predicted_ms[place] = bounds_ms[place] = measured_ms[config]
    within = np.flatnonzero(limits.met(bounds_ms))
    costs = limits.costs(predicted_ms)
    points = [(judged[configs[place]], costs[place]) for place in within]
    return [configs[within[place]] for place in reversed(pareto_front(points))]
