"""Measures what a search found, until what it reports was measured, holds, and stays the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from hwsearch.progress import Progress
from hwsearch.records import Deployment
from hwsearch.search.objectives import Limits, Objectives, at_best, what_counts
from hwsearch.search.pareto import pareto_front
from hwsearch.search.rounds import (
    MOST_OCCASIONS,
    OCCASIONS,
    Round,
    careful_ms,
    hopeful_ms,
    next_look,
    occasions,
    undecided,
)
from hwsearch.search.runnable import too_much

BEST = 4  # this many of the most accurate subnets are measured in a round,
SPREAD = 3  # and this many along the rest of the front, so that what is reported has no gap,
BOLD = 3  # and this many that may fit although their upper bound does not.
CONTENDERS = 3  # and again this many that would be the pick, and may fit though they were slower
NEWCOMERS = 5  # the last round in which something new may be measured
ROUNDS = NEWCOMERS - 1 + MOST_OCCASIONS
# Chance decides whether what is so near its limit is measured within it: it is measured again. A
# measurement of the search table scatters by 1.9 %, and a pick is the luckiest of many.
NEAR = 0.93
# A pick that leaves more than this share unused gets larger neighbours to compete with.
UNUSED = 0.03
STRETCHES = 3  # so often in a round, as long as none of them is more accurate

Accuracies = Mapping[Deployment, float]
Latencies = Mapping[Deployment, tuple[float, ...]]


def verify_front(
    judged: Callable[[], Mapping[Deployment, float]],
    *,
    objectives: Objectives,
    limits: Limits,
    rounds: Sequence[Round],
    keep: Callable[[Round], None],
    companions: Sequence[Deployment],
    search_on: Callable[[int], None],
    progress: Progress,
    stretch: Callable[[Accuracies, Deployment], Accuracies] | None = None,
) -> dict[Deployment, tuple[float, ...]]:
    """Measure, correct and search on until the best of the front is measured and stays the same.

    A round measures, side by side, those of the front that were not measured yet; more accurate
    ones that may turn out to fit, though their upper bound does not; and again, on `OCCASIONS` in
    all, what was measured closely within its limit, or beyond it, but so that it may truly fit and
    is more accurate than all that does. What would then be the pick, but keeps to its limit by less
    than it may be off, is measured on `MOST_OCCASIONS`. Where a pick misses its limit, more
    trials are run with the corrected predictor. The last rounds take nothing new, so that all that
    lies close to its limit is confirmed. What can't be run is not tried again, nor is what is
    larger still.

    Args:
        judged: gives the mIoU of every deployment tried so far.
        objectives: measures, predicts and corrects.
        limits: the latencies that a pick may not exceed, one a target.
        rounds: what was measured already, and the predictor corrected by: first what was measured
            before any trial, then the rounds of a verification that was interrupted.
        keep: stores a round, so that it can be gone on with after the next interruption.
        companions: deployments to be measured in the first round besides the picks.
        search_on: runs a few more trials; called with the round's number, from 1.
        progress: told what is measured.
        stretch: gives further deployments with their mIoU, where a pick leaves much of its limit
            unused; called with all that was judged and the pick.

    Returns:
        The latencies that count (`careful_ms`) of all that was measured, in milliseconds and one a
        target, those of `rounds` included; NaN where a target can't be measured, infinity where
        the device could not run it on one of its occasions.
    """
    done = list(rounds)
    known = careful_ms(done)
    if rounds and rounds[-1].missed and len(rounds) - 1 < NEWCOMERS:
        search_on(len(rounds) - 1)
    before = judged()
    others = [*known, *(one for measured in rounds for one in measured.beside)]
    stretched = {c: objectives.evaluate(c) for c in others if c not in before}
    extra = [config for config in companions if config not in known]
    changing = False
    for number in range(max(len(rounds), 1), ROUNDS + 1):
        beyond, tried = too_much(done), {**judged(), **stretched}
        found = {one: miou for one, miou in tried.items() if one in known or not beyond(one)}
        front = _decided_front(found, undecided(done), known, objectives=objectives, limits=limits)
        asks = number <= NEWCOMERS and front and _leaves_room(front[0], known, objectives, limits)
        beside = _stretched(stretch, found, front[0]) if stretch and asks else {}
        stretched |= beside
        found |= beside
        picks = [config for config in _best_and_spread(front) if config not in known]
        bold = _bold(found, front, known, objectives=objectives, limits=limits)
        if number > NEWCOMERS:
            changing |= bool(picks or bold)
            picks, bold = [], []
            found = {config: found[config] for config in known}
            front = _decided_front(
                found, undecided(done), known, objectives=objectives, limits=limits
            )
        again = _near_limit(front, known, occasions(done), limits)
        doubtful = _contenders(
            found, front, done, left=ROUNDS + 1 - number, objectives=objectives, limits=limits
        )
        batch = list(dict.fromkeys([*picks, *bold, *again, *doubtful, *extra]))
        if not batch:
            break
        progress.log(
            f"Measuring {len(batch)} subnets of the front (round {number})."
            if picks or bold or extra
            else f"Measuring {len(batch)} subnets again, which lie close to their limit (round "
            f"{number} of at most {ROUNDS})."
        )
        latencies = objectives.measure(batch)
        rows = map(tuple, latencies.tolist())
        measured = Round(latencies_ms=tuple(zip(batch, rows, strict=True)))
        known = careful_ms([*done, measured])
        if number <= NEWCOMERS:
            objectives.refit(batch, latencies)
        extra = []
        ran = [config for config in picks if math.inf not in known[config]]
        missed = [config for config in ran if not _fits(config, known, objectives, limits)]
        done.append(measured.model_copy(update={"missed": bool(missed), "beside": tuple(beside)}))
        keep(done[-1])
        if missed:
            progress.log(
                f"{len(missed)} of {len(picks)} miss the target: the predictor is corrected."
            )
            if number < NEWCOMERS:
                search_on(number)
    late = done[max(NEWCOMERS + 1, len(rounds)) :]
    if late:  # nothing more was chosen by the predictor, so that once is enough
        objectives.refit(
            [one for measured in late for one in measured.deployments],
            np.concatenate([measured.table for measured in late]),
        )
    if changing:
        progress.log(
            f"The front still changed after {NEWCOMERS} rounds: run the same search again."
        )
    return known


def feasible_front(
    judged: Mapping[Deployment, float],
    *,
    objectives: Objectives,
    limits: Limits,
    measured_ms: Latencies,
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
            predicted_ms[place] = what_counts(measured_ms[config], predicted_ms[place])
            bounds_ms[place] = what_counts(measured_ms[config], bounds_ms[place])
    within = np.flatnonzero(limits.met(bounds_ms))
    costs = limits.costs(predicted_ms)
    points = [(judged[configs[place]], costs[place]) for place in within]
    return [configs[within[place]] for place in reversed(pareto_front(points))]


def _decided_front(
    found: Accuracies,
    between_looks: Container[Deployment],
    known: Latencies,
    *,
    objectives: Objectives,
    limits: Limits,
) -> list[Deployment]:
    """`feasible_front` without what is between two looks, which is not to steer what follows."""
    decided = {one: miou for one, miou in found.items() if one not in between_looks}
    return feasible_front(decided, objectives=objectives, limits=limits, measured_ms=known)


def _stretched(
    stretch: Callable[[Accuracies, Deployment], Accuracies], found: Accuracies, pick: Deployment
) -> Accuracies:
    """Further deployments, until one is more accurate than the pick, or there are no more."""
    beside: dict[Deployment, float] = {}
    for _ in range(STRETCHES):
        new = stretch({**found, **beside}, pick)
        beside |= new
        if not new or max(new.values()) > found[pick]:
            break
    return beside


def _best_and_spread(front: Sequence[Deployment]) -> list[Deployment]:
    rest = front[BEST:]
    places = {round((number + 1) * len(rest) / (SPREAD + 1)) for number in range(SPREAD)}
    return [*front[:BEST], *(rest[place] for place in sorted(places) if place < len(rest))]


def _bold(
    found: Mapping[Deployment, float],
    front: Sequence[Deployment],
    known: Latencies,
    *,
    objectives: Objectives,
    limits: Limits,
) -> list[Deployment]:
    """Unmeasured ones that are more accurate than all of the front and may turn out to fit.

    A chance of one in ten is enough: to measure a subnet takes little of what a search takes.
    """
    least = found[front[0]] if front else -1.0
    better = [config for config in found if config not in known and found[config] > least]
    if not better:
        return []
    fits = limits.met(at_best(objectives, better, list(known.values())))
    return sorted(_where(better, fits), key=lambda config: -found[config])[:BOLD]


def _near_limit(
    front: Sequence[Deployment],
    known: Latencies,
    times: Mapping[Deployment, int],
    limits: Limits,
) -> list[Deployment]:
    """Those of the measured front that lie closely within a limit and are to be confirmed."""
    return [
        config
        for config in front
        if 0 < times[config] < OCCASIONS and _share(known[config], limits) > NEAR
    ]


def _contenders(
    found: Mapping[Deployment, float],
    front: Sequence[Deployment],
    rounds: Sequence[Round],
    *,
    left: int,
    objectives: Objectives,
    limits: Limits,
) -> list[Deployment]:
    """Measured ones that are more accurate than all of the front, and may truly fit.

    Of the rounds, `left` are left, which have to be enough for the next look at them.
    """
    least = found[front[0]] if front else -1.0
    times, hopeful = occasions(rounds), hopeful_ms(rounds)
    open_ = [
        one for one in found if one in hopeful and 0 < next_look(times[one]) - times[one] <= left
    ]
    better = [config for config in open_ if found[config] > least]
    if not better:
        return []
    table_ms = what_counts([hopeful[config] for config in better], objectives.upper(better))
    fits = limits.met(table_ms)
    return sorted(_where(better, fits), key=lambda config: -found[config])[:CONTENDERS]


def _leaves_room(
    config: Deployment, known: Latencies, objectives: Objectives, limits: Limits
) -> bool:
    if config not in known:
        return False
    latencies_ms = what_counts(known[config], objectives.upper([config])[0])
    return _share(latencies_ms, limits) < 1 - UNUSED


def _share(latencies_ms: ArrayLike, limits: Limits) -> float:
    """The largest share of a limit that is used, of the targets whose latency is known."""
    return float(np.nanmax(np.array(latencies_ms) / np.array(limits.latencies_ms)))


def _fits(config: Deployment, known: Latencies, objectives: Objectives, limits: Limits) -> bool:
    latencies_ms = what_counts(known[config], objectives.upper([config])[0])
    return bool(limits.met(latencies_ms)[0])


def _where(configs: Iterable[Deployment], chosen: Iterable[bool]) -> list[Deployment]:
    return [config for config, take in zip(configs, chosen, strict=True) if take]
