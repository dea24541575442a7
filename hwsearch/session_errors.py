"""What all subnets of a session came out too slow or too fast by, as the others of it tell.

A session holds its subnets against one reference, and whatever befalls that alone, or falls to its
share otherwise than to theirs, moves all of them together. No further round shows it. The subnets
themselves do: each was expected to take so long, by a predictor that had not seen it, and what all
of a session exceed that by is the session's error. In the words of experimental design, sessions
are blocks; that works where chance has put together what is in them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from hwsearch.drift_share import with_correction
from hwsearch.records import Measurement

Floats = NDArray[np.float64]
# By session and subnet, the logarithm of how much too slow it came out, as the others of it tell.
SessionErrors = Mapping[str, Mapping[str, float]]

MIN_SESSIONS = 3  # fewer don't tell how much sessions differ
_DIGITS = 6


def learn_session_errors(
    measurements: Iterable[Measurement], expected_ms: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """The error of each session, for each of its subnets as the others of it tell.

    With r = ln(measured / expected) = μ + s + e, where s belongs to the session and e to the
    measurement, the variances of both are those of the one-way layout with random effects, found by
    the method of moments, and a session's error is the posterior mean of s: the mean of r - μ over
    the other m subnets times σs² / (σs² + σe² / m). A subnet's own r is none of these, so that its
    correction does not flatter it; it has a small part in μ, in the variances and in what the
    others were expected to take.

    Source: Searle, Casella and McCulloch, Variance Components (1992), sections 3.6 and 7.4.

    Args:
        measurements: of sessions whose subnets chance put together. What failed or is marked tells
            nothing.
        expected_ms: what each subnet takes, by its id, as a predictor has it that did not see it.

    Returns:
        Of the sessions with two such subnets at least; none where they are fewer than
        `MIN_SESSIONS`, or differ by no more than their subnets do.
    """
    sessions: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for row in measurements:
        if row.error is None and not row.drifted and row.subnet_id in expected_ms:
            ratio = row.latency_ms() / expected_ms[row.subnet_id]
            sessions[row.session_id][row.subnet_id] = math.log(ratio)
    told = {session: found for session, found in sessions.items() if len(found) > 1}
    blocks = [np.array([*found.values()]) for found in told.values()]
    if len(blocks) < MIN_SESSIONS:
        return {}
    mean, between, within = _components(blocks)
    if between == 0:
        return {}

    def error(others: list[float]) -> float:
        sums = math.fsum(one - mean for one in others)
        return round(between * sums / (len(others) * between + within), _DIGITS)

    return {
        session: {
            subnet: error([other for name, other in found.items() if name != subnet])
            for subnet in found
        }
        for session, found in told.items()
    }


def freed_of(measurement: Measurement, errors: SessionErrors) -> Measurement:
    """A measurement without its session's error; one that is not told of stays as it was made.

    `Drift.session_correction` tells what was done, so that doing it twice changes nothing.
    """
    error = errors.get(measurement.session_id, {}).get(measurement.subnet_id, 0.0)
    return with_correction(measurement, "session_correction", -error)


def _components(blocks: list[Floats]) -> tuple[float, float, float]:
    """The common mean, and the variances between and within blocks."""
    sizes = np.array([len(block) for block in blocks])
    means = np.array([block.mean() for block in blocks])
    total, count = int(sizes.sum()), len(blocks)
    mean = float(sizes @ means) / total
    within = math.fsum(((block - block.mean()) ** 2).sum() for block in blocks) / (total - count)
    unlike = float(sizes @ (means - mean) ** 2) / (count - 1)
    between = (unlike - within) / ((total - float(sizes @ sizes) / total) / (count - 1))
    return mean, max(between, 0.0), within
