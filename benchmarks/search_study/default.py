"""The project's own search on the table, with a latency predictor fitted on a few measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwsearch.predictor.features import FeatureBuilder
from hwsearch.predictor.latency_predictor import LatencyPredictor
from hwsearch.records import Deployment
from hwsearch.search.deployments import DeploymentSpace
from hwsearch.search.sampler import SubnetSampler
from latency_study.sample import spread_rows
from search_study.table import SearchTable

Array = NDArray[np.float64]

MEASURED = 32  # members whose latency is measured before the search, as `hwsearch search` does
COVERAGE = 0.9


@dataclass(frozen=True)
class Predicted:
    """Latencies of all members as a fitted predictor has them, in milliseconds, both (n,)."""

    middle_ms: Array
    upper_ms: Array
    predictor: LatencyPredictor


def fitted_predictor(table: SearchTable, *, seed: int) -> LatencyPredictor:
    """A latency predictor of the restricted space, on a few of the table's latencies.

    The members are chosen much as `hwsearch profile` does: no latency tells which to measure.
    """
    rng = np.random.default_rng([seed, MEASURED])
    features = FeatureBuilder(table.geometry).matrix(table.subnets)
    rows = spread_rows(features, np.arange(len(features)), MEASURED, rng)
    predictor = LatencyPredictor(table.geometry, table.latency.target, table.supernet_id, seed=seed)
    latencies = [table.latencies_ms[row] for row in rows]
    return predictor.fit([table.subnets[row] for row in rows], latencies)


def predicted(table: SearchTable, predictor: LatencyPredictor) -> Predicted:
    """What a predictor says of all members."""
    return Predicted(
        predictor.predict(table.subnets), predictor.upper(table.subnets, COVERAGE), predictor
    )


def default_sampler(table: SearchTable, seed: int, limit_ms: float | None) -> SubnetSampler:
    """The project's sampler, with what a predictor says of the table's members."""
    upper_ms = predicted(table, fitted_predictor(table, seed=seed)).upper_ms

    def upper(deployments: Sequence[Deployment]) -> Array:
        return upper_ms[[table.rows[deployment.subnet] for deployment in deployments]]

    space = DeploymentSpace(subnets=table.restricted.space)
    return SubnetSampler(space, upper=upper, limit=limit_ms, seed=seed)
