"""What a search reports: the records of its candidates, and the measured front among them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from hwsearch.costs import encoder_macs, encoder_params
from hwsearch.records import Deployment, SamGeometry
from hwsearch.results import Candidate, TargetLatency
from hwsearch.search.objectives import Limits, Objectives
from hwsearch.search.pareto import pareto_front


def described(
    mious: Mapping[Deployment, float],
    measured_ms: Mapping[Deployment, tuple[float, ...]],
    *,
    objectives: Objectives,
    geometry: SamGeometry,
) -> tuple[Candidate, ...]:
    """What is known of each deployment whose accuracy is, in the order of `mious`.

    Args:
        mious: accuracies.
        measured_ms: the latencies of those that were measured, one a target; NaN where a target
            can't be measured, infinity where a deployment can't be run.
        objectives: predict the others.
        geometry: the full encoder's sizes.
    """
    deployments = list(mious)
    predicted_ms, upper_ms = objectives.predict(deployments), objectives.upper(deployments)
    rows = []
    for place, deployment in enumerate(deployments):
        unmeasured = (None,) * predicted_ms.shape[1]
        first, *others = (
            TargetLatency(
                predicted_ms=float(predicted),
                upper_ms=float(upper),
                latency_ms=None if measured is None or not math.isfinite(measured) else measured,
            )
            for predicted, upper, measured in zip(
                predicted_ms[place],
                upper_ms[place],
                measured_ms.get(deployment, unmeasured),
                strict=True,
            )
        )
        rows.append(
            Candidate(
                subnet=deployment.subnet,
                precision=deployment.precision,
                params=encoder_params(geometry, deployment.subnet),
                macs=encoder_macs(geometry, deployment.subnet),
                miou=mious[deployment],
                predicted_ms=first.predicted_ms,
                upper_ms=first.upper_ms,
                latency_ms=first.latency_ms,
                runs=math.inf not in measured_ms.get(deployment, ()),
                further_targets=tuple(others),
            )
        )
    return tuple(rows)


def measured_front(candidates: Sequence[Candidate], limits: Limits) -> tuple[Candidate, ...]:
    """Measured candidates within the limits that no other such dominates, by ascending cost.

    Where a target can't be measured, the upper bound of the latency there counts.
    """
    measured = [row for row in candidates if row.latency_ms is not None and row.runs]
    latencies = np.array(
        [
            [
                row.latency_ms,
                *(
                    other.upper_ms if other.latency_ms is None else other.latency_ms
                    for other in row.further_targets
                ),
            ]
            for row in measured
        ],
        dtype=np.float64,
    )
    met = limits.met(latencies)
    within = [measured[place] for place in np.flatnonzero(met)]
    costs = limits.costs(latencies)[met].tolist()
    points = [(row.miou, cost) for row, cost in zip(within, costs, strict=True)]
    return tuple(within[place] for place in pareto_front(points))
