"""What the search is given: how to judge, predict and measure a deployment, and the limits.

The search itself knows neither networks nor runtimes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwsearch.errors import UsageError
from hwsearch.records import Deployment

Evaluate = Callable[[Deployment], float]
Latencies = Callable[[Sequence[Deployment]], NDArray[np.float64]]  # (n, targets)
Cost = Callable[[Sequence[Deployment]], NDArray[np.float64]]  # (n,)
Refit = Callable[[Sequence[Deployment], NDArray[np.float64]], None]


@dataclass(frozen=True, kw_only=True)
class Objectives:
    """The callables that a search needs. All latencies have a column for each target.

    Attributes:
        evaluate: mIoU of one deployment on the search's split, 0 to 1.
        predict: predicted latencies in milliseconds, shape (n, targets).
        upper: one-sided upper bounds of the latencies in milliseconds, shape (n, targets).
        measure: measured latencies in milliseconds, shape (n, targets), comparable with all others
            that it gave. NaN where a target can't be measured, never in the first column; infinity
            where a deployment can't be run.
        refit: takes new measurements, shape (n, targets), so that `predict` and `upper` answer
            better from then on; what is not finite tells nothing.
    """

    evaluate: Evaluate
    predict: Latencies
    upper: Latencies
    measure: Latencies
    refit: Refit


@dataclass(frozen=True)
class Limits:
    """The latency that no pick may exceed, in milliseconds, one for each target.

    Where a single number has to stand for the latencies on all targets, it is their *cost*: with
    one target the latency itself, with several the largest share of its limit that is used.

    Raises:
        UsageError: there is no limit, or one is no positive number.
    """

    latencies_ms: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.latencies_ms or not all(0 < limit < math.inf for limit in self.latencies_ms):
            listed = ", ".join(f"{limit:g} ms" for limit in self.latencies_ms) or "none"
            raise UsageError(f"A search needs a positive latency for each target, not {listed}.")

    @property
    def cost(self) -> float:
        """The cost that a deployment may have at most."""
        return self.latencies_ms[0] if len(self.latencies_ms) == 1 else 1.0

    def costs(self, latencies_ms: ArrayLike) -> NDArray[np.float64]:
        """Costs of latencies of shape (n, targets), shape (n,)."""
        table = self._table(latencies_ms)
        scale = self.latencies_ms if len(self.latencies_ms) > 1 else (1.0,)
        costs: NDArray[np.float64] = np.max(table / np.array(scale), axis=1)
        return costs

    def excess_ms(self, latencies_ms: ArrayLike) -> NDArray[np.float64]:
        """By how much each limit is exceeded; negative where there is room. (n, targets)."""
        excess: NDArray[np.float64] = self._table(latencies_ms) - np.array(self.latencies_ms)
        return excess

    def met(self, latencies_ms: ArrayLike) -> NDArray[np.bool_]:
        """Whether every limit is kept, shape (n,)."""
        kept: NDArray[np.bool_] = np.all(self.excess_ms(latencies_ms) <= 0, axis=1)
        return kept

    def cost_of(self, latencies: Latencies) -> Cost:
        """A function from deployments to the costs of their latencies."""
        return lambda deployments: self.costs(latencies(deployments))

    def _table(self, latencies_ms: ArrayLike) -> NDArray[np.float64]:
        return np.asarray(latencies_ms, dtype=np.float64).reshape(-1, len(self.latencies_ms))


def at_best(
    objectives: Objectives, deployments: Sequence[Deployment], measured_ms: ArrayLike
) -> NDArray[np.float64]:
    """What deployments may turn out to take: less than that with a chance of one in ten.

    The bound holds nine times in ten, and errors are taken to go as far down as up, in the
    logarithm of the latency. Where nothing is measured only the bound counts.

    Args:
        objectives: predicts both.
        deployments: n deployments.
        measured_ms: earlier measurements, (m, targets): where all are NaN, nothing is measurable.

    Returns:
        Milliseconds, (n, targets).
    """
    predicted_ms = objectives.predict(deployments)
    measured = np.asarray(measured_ms, dtype=np.float64).reshape(-1, predicted_ms.shape[1])
    only_bounds = np.isnan(measured).all(axis=0) & (len(measured) > 0)
    upper_ms = objectives.upper(deployments)
    optimistic_ms = predicted_ms * (predicted_ms / upper_ms)
    counted: NDArray[np.float64] = np.where(only_bounds, upper_ms, optimistic_ms)
    return counted


def what_counts(measured_ms: ArrayLike, upper_ms: ArrayLike) -> NDArray[np.float64]:
    """The measured latencies, and the upper bounds where nothing was measured (NaN)."""
    measured = np.asarray(measured_ms, dtype=np.float64)
    counted: NDArray[np.float64] = np.where(np.isnan(measured), np.asarray(upper_ms), measured)
    return counted
