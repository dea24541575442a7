"""What was measured on one occasion or several, and the latency that this allows to promise."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, ConfigDict
from scipy.special import stdtrit

from hwsearch.records import Deployment, Record

OCCASIONS = 4  # so often is measured what lies closely within its limit
DECIDING = 8  # and so often what would be the pick, as long as it is in doubt
CONFIDENCE = 0.9  # with which the mean of all occasions is below the figure that counts

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


def careful_ms(rounds: Iterable[Round]) -> dict[Deployment, tuple[float, ...]]:
    """The latency of each deployment that was measured, in milliseconds, one a target.

    It is the mean of its occasions. Once there were `OCCASIONS` of them it is the mean's one-sided
    upper bound with `CONFIDENCE`, for a limit that the mean just keeps is missed half the time.
    Until there were `DECIDING` the bound is that of a mean of `OCCASIONS`: with another look after
    each further one chance would let too many in. By what share latencies scatter is pooled, for
    each target, over all that was measured repeatedly; later rounds add to what is known of it, so
    that earlier figures may still move a little. What could not be run on one occasion stays
    infinite.
    """
    measured = _by_deployment(rounds)
    doubt = _doubt(measured.values())
    reliance = {one: _reliance(len(rows)) for one, rows in measured.items()}
    return {
        one: tuple((np.mean(rows, axis=0) * (1 + doubt * reliance[one])).tolist())
        for one, rows in measured.items()
    }


def hopeful_ms(rounds: Iterable[Round]) -> dict[Deployment, tuple[float, ...]]:
    """What each measured deployment may truly take: its mean's lower bound, as sure as the upper.

    Milliseconds, one a target; the mean itself as long as nothing was measured twice.
    """
    measured = _by_deployment(rounds)
    doubt = _doubt(measured.values())
    return {
        one: tuple((np.mean(rows, axis=0) * (1 - doubt / math.sqrt(len(rows)))).tolist())
        for one, rows in measured.items()
    }


def _by_deployment(rounds: Iterable[Round]) -> dict[Deployment, list[NDArray[np.float64]]]:
    measured: dict[Deployment, list[NDArray[np.float64]]] = defaultdict(list)
    for one in rounds:
        for deployment, row in zip(one.deployments, one.table, strict=True):
            measured[deployment].append(row)
    return measured


def _doubt(measured: Iterable[Sequence[NDArray[np.float64]]]) -> NDArray[np.float64] | float:
    """By what share a single measurement may be off to one side, one a target; 0 if unknown."""
    timed = [np.array(rows) for rows in measured if not np.isinf(rows).any()]
    freedom = sum(len(rows) - 1 for rows in timed)
    if not freedom:
        return 0.0
    squares = [((rows / rows.mean(axis=0) - 1) ** 2).sum(axis=0) for rows in timed]
    doubt: NDArray[np.float64] = stdtrit(freedom, CONFIDENCE) * np.sqrt(sum(squares) / freedom)
    return doubt


def _reliance(times: int) -> float:
    """The share of a measurement's doubt that the bound takes in after so many; 0 for no bound."""
    if times < OCCASIONS:
        return 0.0
    return 1 / math.sqrt(OCCASIONS if times < DECIDING else DECIDING)
