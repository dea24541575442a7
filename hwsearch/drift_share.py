"""How much of the reference's drift the subnets of a profile take, learnt from repeats.

A session corrects its latencies as if all models became slower by the same share when the machine
does. They don't quite: a model that waits for memory is slowed by other things than one that
computes. Such an error is common to all subnets of a group, for they are held against one
reference, so that no number of rounds takes it out; two measurements of one subnet while the
machine was in different states show it.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from hwsearch.records import Measurement

FULL = 1.0
LEAST, MOST = 0.0, 2.0
# What is believed before any repeat is seen: by how much the share differs from 1, and by how much
# two measurements of one subnet differ otherwise, the latter with the weight of some sessions.
SHARE_DEVIATION = 0.3
NOISE_DEVIATION, NOISE_SESSIONS = 0.015, 4
_PASSES = 20

CORRECTED = ("encoder_ms", "decoder_ms", "low_ms", "high_ms")  # fields that hang on the reference


def drift_share(measurements: Iterable[Measurement]) -> float:
    """By what power of the reference's slowness latencies are to be divided; 1 is all of it.

    Of each subnet's pairs of repeats, d is by how much the logarithm of the reference's slowness
    differs, and e by how much that of the latencies that were corrected for all of it. The share is
    1 + β, with β the posterior mean of e = β d + noise; its prior is normal about 0. Errors are
    shared within a session, so that all pairs of one count as one.

    Where the reference's own latency is uncertain, that is in d as well, and β takes it in: if all
    differences are the reference's own, the best share is 0.

    Source: Bishop, Pattern Recognition and Machine Learning (2006), section 3.3.

    Args:
        measurements: of one profile, held against one anchor, corrected for all of the drift. Those
            that failed or are marked are left out.
    """
    pairs = list(_pairs(measurements))
    drifts = np.array([_log_slowness(b) - _log_slowness(a) for a, b in pairs])
    errors = np.array([math.log(b.latency_ms() / a.latency_ms()) for a, b in pairs])
    if not np.any(drifts):
        return FULL
    sessions = len({later.session_id for _, later in pairs})
    squares, products = np.mean(drifts**2), np.mean(drifts * errors)
    beta = 0.0
    for _ in range(_PASSES):
        left = np.mean((errors - beta * drifts) ** 2)
        noise = sessions * left + NOISE_SESSIONS * NOISE_DEVIATION**2
        noise /= sessions + NOISE_SESSIONS
        beta = float(products / (squares + noise / SHARE_DEVIATION**2 / sessions))
    return min(max(FULL + beta, LEAST), MOST)


def corrected_by(measurement: Measurement, share: float) -> Measurement:
    """A measurement corrected for a share of the drift in place of all of it."""
    if measurement.drift is None or share == FULL:
        return measurement
    ratio = math.exp((FULL - share) * _log_slowness(measurement))
    values = {name: getattr(measurement, name) for name in CORRECTED}
    return measurement.model_copy(
        update={name: None if ms is None else ratio * ms for name, ms in values.items()}
    )


def _log_slowness(measurement: Measurement) -> float:
    if measurement.drift is None:
        return 0.0
    return math.log(measurement.drift.around_ms / measurement.drift.anchor_ms)


def _pairs(measurements: Iterable[Measurement]) -> Iterable[tuple[Measurement, Measurement]]:
    """Every two repeats of each subnet; of a repeat number the last measurement counts."""
    repeats: defaultdict[str, dict[int, Measurement]] = defaultdict(dict)
    for row in measurements:
        if row.error is None and not row.drifted and row.drift is not None:
            repeats[row.subnet_id][row.repeat] = row
    for rows in repeats.values():
        yield from itertools.combinations(rows.values(), 2)
