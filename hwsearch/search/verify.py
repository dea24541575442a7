"""Measures what a search found, until what it reports was measured and holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from hwsearch.progress import Progress
from hwsearch.records import SubnetConfig
from hwsearch.search.objectives import Objectives
from hwsearch.search.pareto import pareto_front

BEST = 4  # this many of the most accurate subnets are measured in a round,
SPREAD = 3  # and this many along the rest of the front, so that what is reported has no gap
ROUNDS = 4


def verify_front(
    judged: Callable[[], Mapping[SubnetConfig, float]],
    *,
    objectives: Objectives,
    target_ms: float,
    measured_ms: Mapping[SubnetConfig, float],
    companions: Sequence[SubnetConfig],
    search_on: Callable[[int], None],
    progress: Progress,
) -> dict[SubnetConfig, float]:
    """Measure the best of the front; where one misses the target, correct, search on, repeat.

    Args:
        judged: gives the mIoU of every subnet tried so far.
        objectives: measures, predicts and corrects.
        target_ms: the latency that a pick may not exceed.
        measured_ms: subnets measured already, with their latencies.
        companions: subnets to be measured in the first round besides the picks.
        search_on: runs a few more trials; called with the round's number, from 1.
        progress: told what is measured.

    Returns:
        The latencies of all subnets measured, in milliseconds, those of `measured_ms` included.
    """
    known = dict(measured_ms)
    extra = [config for config in companions if config not in known]
    for number in range(1, ROUNDS + 1):
        front = feasible_front(
            judged(), objectives=objectives, target_ms=target_ms, measured_ms=known
        )
        picks = [config for config in _best_and_spread(front) if config not in known]
        batch = list(dict.fromkeys([*picks, *extra]))
        if not batch:
            break
        progress.log(f"Measuring {len(batch)} subnets of the front (round {number}).")
        latencies = [float(latency_ms) for latency_ms in objectives.measure(batch)]
        known.update(zip(batch, latencies, strict=True))
        objectives.refit(batch, latencies)
        missed = [config for config in picks if known[config] > target_ms]
        if not missed:
            break
        progress.log(f"{len(missed)} of {len(picks)} miss the target: the predictor is corrected.")
        extra = []
        if number < ROUNDS:
            search_on(number)
    return known


def _best_and_spread(front: Sequence[SubnetConfig]) -> list[SubnetConfig]:
    rest = front[BEST:]
    places = {round((number + 1) * len(rest) / (SPREAD + 1)) for number in range(SPREAD)}
    return [*front[:BEST], *(rest[place] for place in sorted(places) if place < len(rest))]


def feasible_front(
    judged: Mapping[SubnetConfig, float],
    *,
    objectives: Objectives,
    target_ms: float,
    measured_ms: Mapping[SubnetConfig, float],
) -> list[SubnetConfig]:
    """Undominated subnets within the target, the most accurate first.

    A measured latency counts where there is one; else the upper bound decides whether a subnet is
    within the target, and the prediction where it stands on the front.
    """
    configs = list(judged)
    if not configs:
        return []
    rows = zip(configs, objectives.predict(configs), objectives.upper(configs), strict=True)
    within = [
        (config, measured_ms.get(config, float(predicted_ms)))
        for config, predicted_ms, upper_ms in rows
        if measured_ms.get(config, float(upper_ms)) <= target_ms
    ]
    points = [(judged[config], latency_ms) for config, latency_ms in within]
    return [within[place][0] for place in reversed(pareto_front(points))]
