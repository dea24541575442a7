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

OCCASIONS = 4  # so often is measured what lies closely within its limit
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
    upper bound with `CONFIDENCE`, for a limit that the mean just keeps is missed half the time. By
    what share latencies scatter is pooled, for each target, over all that was measured repeatedly;
    later rounds add to what is known of it, so that earlier figures may still move a little. What
    could not be run on one occasion stays infinite.
    """
    measured: dict[Deployment, list[NDArray[np.float64]]] = defaultdict(list)
    for one in rounds:
        for deployment, row in zip(one.deployments, one.table, strict=True):
            measured[deployment].append(row)
    means = {deployment: np.mean(rows, axis=0) for deployment, rows in measured.items()}
    timed = {one: rows for one, rows in measured.items() if not np.isinf(rows).any()}
    squares = [((rows / means[one] - 1) ** 2).sum(axis=0) for one, rows in timed.items()]
    freedom = sum(len(rows) - 1 for rows in timed.values())
    if not freedom:
        return {deployment: tuple(mean.tolist()) for deployment, mean in means.items()}
    spread = np.sqrt(np.sum(squares, axis=0) / freedom)
    bound = 1 + stdtrit(freedom, CONFIDENCE) * spread / math.sqrt(OCCASIONS)
    often = {deployment for deployment, rows in measured.items() if len(rows) >= OCCASIONS}
    return {
        deployment: tuple((mean * bound if deployment in often else mean).tolist())
        for deployment, mean in means.items()
    }
