"""What was measured on one occasion or several, and the latency that this allows to promise."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, ConfigDict
from scipy.special import stdtrit

from hwsearch.records import Deployment, Record

OCCASIONS = 4  # after so many is decided on what lies closely within its limit,
MOST_OCCASIONS = 16  # and after so many on what would then be the pick, but is too close to tell.
# The mean is below the figure that counts with the one confidence and then with the other. For one
# deployment both together err in a tenth of the cases at most; most of it is left to the sharper
# look. The most accurate of several that lie at the limit errs more often.
FIRST_CONFIDENCE, LAST_CONFIDENCE = 0.97, 0.93

# JSON has neither NaN nor infinity; earlier versions wrote null for the former.
Latency = Annotated[float, BeforeValidator(lambda ms: math.nan if ms is None else ms)]


class Round(Record):
    """What was measured on one occasion: latencies in ms, one a target.

    They are NaN where a target can't be measured, and infinite where a deployment can't be run.

    `missed` tells whether a pick missed its limit, so that more trials followed. `beside` are the
    deployments that were judged for this round though they are no trials of the study.
    """

    model_config = ConfigDict(ser_json_inf_nan="strings")

    latencies_ms: tuple[tuple[Deployment, tuple[Latency, ...]], ...]
    missed: bool = False
    beside: tuple[Deployment, ...] = ()

    @property
    def deployments(self) -> list[Deployment]:
        """What was measured."""
        return [deployment for deployment, _ in self.latencies_ms]

    @property
    def table(self) -> NDArray[np.float64]:
        """Their latencies, (n, targets)."""
        return np.array([latencies_ms for _, latencies_ms in self.latencies_ms])


def occasions(rounds: Iterable[Round]) -> Counter[Deployment]:
    """How often each deployment was measured."""
    return Counter(deployment for measured in rounds for deployment in measured.deployments)


def next_look(times: int) -> int:
    """After how many occasions is decided on what was measured so often."""
    return OCCASIONS if times < OCCASIONS else MOST_OCCASIONS


def undecided(rounds: Iterable[Round]) -> set[Deployment]:
    """What is between the two looks: whatever its figures are by now, each look may err."""
    return {
        deployment
        for deployment, times in occasions(rounds).items()
        if OCCASIONS < times < MOST_OCCASIONS
    }


def careful_ms(rounds: Iterable[Round]) -> dict[Deployment, tuple[float, ...]]:
    """The latency of each deployment that was measured, in milliseconds, one a target.

    It is the mean of its occasions. From `OCCASIONS` of them on it is the mean's one-sided upper
    bound, for a limit that the mean just keeps is missed half the time. By what share latencies
    scatter is pooled, for each target, over all that was measured repeatedly; later rounds add to
    what is known of it, so that earlier figures may still move a little. What could not be run on
    one occasion stays infinite.
    """
    measured = _by_deployment(rounds)
    first = _doubt(measured.values(), FIRST_CONFIDENCE)
    last = _doubt(measured.values(), LAST_CONFIDENCE)

    def bound(times: int) -> NDArray[np.float64]:
        if times < OCCASIONS:
            return np.ones_like(last)
        return 1 + (first if times == OCCASIONS else last) / math.sqrt(times)

    return {one: _latencies_ms(rows, bound(len(rows))) for one, rows in measured.items()}


def hopeful_ms(rounds: Iterable[Round]) -> dict[Deployment, tuple[float, ...]]:
    """What each measured deployment may truly take, in milliseconds, one a target.

    Before `OCCASIONS` that is as far below its mean as bounds are above, and the mean itself as
    long as nothing was measured twice. From then on it is the mean: the occasions until the last
    look are many, and hardly spent well on what was slower than its limit so far.
    """
    measured = _by_deployment(rounds)
    doubt = _doubt(measured.values(), LAST_CONFIDENCE)

    def hope(times: int) -> NDArray[np.float64]:
        if times >= OCCASIONS:
            return np.ones_like(doubt)
        return 1 / (1 + doubt / math.sqrt(times))

    return {one: _latencies_ms(rows, hope(len(rows))) for one, rows in measured.items()}


def _latencies_ms(rows: NDArray[np.float64], factor: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple((rows.mean(axis=0) * factor).tolist())


def _by_deployment(rounds: Iterable[Round]) -> dict[Deployment, NDArray[np.float64]]:
    """Each deployment's latencies, (occasions, targets)."""
    measured: dict[Deployment, list[tuple[float, ...]]] = defaultdict(list)
    for one in rounds:
        for deployment, row in one.latencies_ms:
            measured[deployment].append(row)
    return {deployment: np.array(rows) for deployment, rows in measured.items()}


def _doubt(measured: Iterable[NDArray[np.float64]], confidence: float) -> NDArray[np.float64]:
    """By what share a measurement may be off to one side, one a target; 0 where nothing tells.

    What a target has no figure of on some occasion tells nothing of it, and what could not be run
    tells nothing at all. Deployments count as independent, though those of a round err in part
    together: where that is two fifths of their variance, the four occasions of eight tell as much
    of it as 14 free ones, not 24, and the quantile is 2.04 instead of 2.00.
    """
    timed = [rows for rows in measured if len(rows) > 1 and not np.isinf(rows).any()]
    if not timed:
        return np.zeros(1)
    squares = np.array([((rows / rows.mean(axis=0) - 1) ** 2).sum(axis=0) for rows in timed])
    known = np.isfinite(squares)
    freedom = (known * np.array([[len(rows) - 1] for rows in timed])).sum(axis=0)
    spread = np.sqrt(np.where(known, squares, 0.0).sum(axis=0) / np.maximum(freedom, 1))
    doubt: NDArray[np.float64] = stdtrit(np.maximum(freedom, 1), confidence) * spread
    return doubt
