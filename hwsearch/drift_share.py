"""How much of the reference's drift the subnets of a profile take, learnt from repeats.

A session corrects its latencies as if all models were slowed down by one share when the machine is.
They aren't quite: a model that waits for memory is slowed by other things than one that computes.
Such an error is common to all subnets of a session, for they are held against one reference, so
that no number of rounds takes it out; two measurements of one subnet while the machine was in
different states show it.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
from pydantic import NonNegativeFloat

from hwsearch.records import Drift, Measurement, Record

CORRECTED = ("encoder_ms", "decoder_ms", "low_ms", "high_ms")  # fields that hang on the reference

LEAST, MOST = 0.0, 2.0
MIN_SESSIONS = 3  # one session's common error and a share of its drift look alike
# What is believed before any repeat is seen: by how much the share differs from 1, and by how much
# two sessions differ otherwise, the latter with the weight of some sessions.
SHARE_DEVIATION = 0.3
NOISE_DEVIATION, NOISE_SESSIONS = 0.015, 4
_PASSES = 20


class DriftShare(Record):
    """The power of the reference's slowness that latencies are divided by; 1 is all of it.

    Beyond `reach`, the most that the logarithm of the slowness differed between repeats, nothing is
    known of the share, and all of the drift is taken.
    """

    share: float = 1.0
    reach: NonNegativeFloat = 0.0

    def correction(self, drift: Drift) -> float:
        """The logarithm of what latencies that were corrected for all of a drift are short of."""
        return (1 - self.share) * min(max(_log_slowness(drift), -self.reach), self.reach)


ALL = DriftShare()


def learn_drift_share(measurements: Iterable[Measurement]) -> DriftShare:
    """The share of the drift that best explains by how much repeats differ.

    Of each subnet's measurements, one after the other, d is by how much the logarithm of the
    reference's slowness differs, and e by how much that of the latencies, corrected for all of it.
    The share is 1 + β, with β the posterior mean of e = β d + noise; its prior is normal about 0.
    Errors are common to a session, so that the mean of its pairs counts, and as one.

    The reference's own error is in d as well, and β takes it in: if all differences were the
    reference's own, the best share would be 0.

    Source: Bishop, Pattern Recognition and Machine Learning (2006), section 3.3.

    Args:
        measurements: of one profile, held against one anchor. Those that failed or are marked are
            left out.

    Returns:
        All of the drift, where fewer than `MIN_SESSIONS` sessions have repeats.
    """
    sessions: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for earlier, later in _pairs(measurements):
        if earlier.drift is None or later.drift is None:
            continue
        drift = _log_slowness(later.drift) - _log_slowness(earlier.drift)
        error = _log_latency(later) - _log_latency(earlier)
        sessions[later.session_id].append((drift, error))
    if len(sessions) < MIN_SESSIONS:
        return ALL
    products = math.fsum(np.mean([d * e for d, e in pairs]) for pairs in sessions.values())
    squares = math.fsum(np.mean([d * d for d, _ in pairs]) for pairs in sessions.values())
    beta = 0.0
    for _ in range(_PASSES):
        left = [np.mean([(e - beta * d) ** 2 for d, e in pairs]) for pairs in sessions.values()]
        believed = NOISE_SESSIONS * NOISE_DEVIATION**2
        noise = (float(np.sum(left)) + believed) / (len(left) + NOISE_SESSIONS)
        beta = products / (squares + noise / SHARE_DEVIATION**2)
    return DriftShare(
        share=min(max(1 + beta, LEAST), MOST),
        reach=max(abs(d) for pairs in sessions.values() for d, _ in pairs),
    )


def corrected_by(measurement: Measurement, share: DriftShare) -> Measurement:
    """A measurement corrected for another share of the drift than it was.

    `Drift.share_correction` tells what was done, so that doing it twice changes nothing.
    """
    if measurement.drift is None:
        return measurement
    correction = share.correction(measurement.drift)
    if correction == measurement.drift.share_correction:
        return measurement
    ratio = math.exp(correction - measurement.drift.share_correction)
    values = {name: getattr(measurement, name) for name in CORRECTED}
    return measurement.model_copy(
        update={
            **{name: None if ms is None else ratio * ms for name, ms in values.items()},
            "drift": measurement.drift.model_copy(update={"share_correction": correction}),
        }
    )


def with_group_ms(measurements: Iterable[Measurement]) -> list[Measurement]:
    """Fill in what lines of earlier versions lack: the reference's latency in their session."""
    rows = list(measurements)
    around: defaultdict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.drift is not None:
            around[row.session_id].append(row.drift.around_ms)

    def filled(row: Measurement) -> Measurement:
        if row.drift is None or row.drift.group_ms is not None:
            return row
        group_ms = float(np.median(around[row.session_id]))
        drift = row.drift.model_copy(update={"group_ms": group_ms})
        return row.model_copy(update={"drift": drift})

    return [filled(row) for row in rows]


def _log_slowness(drift: Drift) -> float:
    return math.log((drift.group_ms or drift.around_ms) / drift.anchor_ms)


def _log_latency(measurement: Measurement) -> float:
    corrected = 0.0 if measurement.drift is None else measurement.drift.share_correction
    return math.log(measurement.latency_ms()) - corrected


def _pairs(measurements: Iterable[Measurement]) -> Iterator[tuple[Measurement, Measurement]]:
    """Each subnet's usable measurements, one and the next; of a repeat number the last counts."""
    repeats: defaultdict[str, dict[int, Measurement]] = defaultdict(dict)
    for row in measurements:
        if row.error is None and not row.drifted:
            repeats[row.subnet_id].pop(row.repeat, None)  # the later one comes later
            repeats[row.subnet_id][row.repeat] = row
    for rows in repeats.values():
        yield from itertools.pairwise(rows.values())
