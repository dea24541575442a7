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
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeFloat, PositiveFloat

from hwsearch.records import Drift, Measurement, Record

Floats = NDArray[np.float64]
CORRECTED = ("encoder_ms", "decoder_ms", "low_ms", "high_ms")  # fields that hang on the reference

LEAST, MOST = 0.0, 2.0
MIN_SESSIONS = 3  # one session's common error and a share of its drift look alike
# What is believed before any repeat is seen: by how much the share differs from 1, and between
# resolutions e times as large, and by how much two measurements differ otherwise, the last with the
# weight of some sessions, or of some pairs.
SHARE_DEVIATION, BY_RESOLUTION_DEVIATION = 0.3, 0.5
NOISE_DEVIATION, NOISE_SESSIONS, NOISE_PAIRS = 0.015, 4, 8
_PASSES = 20


class DriftShare(Record):
    """The power of the reference's slowness that latencies are divided by; 1 is all of it.

    It is `share` at `resolution` pixels, and `by_resolution` more at e times as many; between
    `LEAST` and `MOST` anyway, and beyond the `resolutions` of the repeats as at their ends. Beyond
    `reach`, the most that the logarithm of the slowness differed between repeats, nothing is known
    of the share, and all of the drift is taken.
    """

    share: float = 1.0
    reach: NonNegativeFloat = 0.0
    by_resolution: float = 0.0
    resolution: PositiveFloat = 1.0
    resolutions: tuple[PositiveFloat, PositiveFloat] = (1.0, 1.0)

    def at(self, resolution: float) -> float:
        """The share that subnets of a resolution take."""
        low, high = self.resolutions
        seen = min(max(resolution, low), high)
        share = self.share + self.by_resolution * math.log(seen / self.resolution)
        return min(max(share, LEAST), MOST)

    def correction(self, drift: Drift, resolution: float) -> float:
        """The logarithm of what latencies that were corrected for all of a drift are short of."""
        known = min(max(_log_slowness(drift), -self.reach), self.reach)
        return (1 - self.at(resolution)) * known


ALL = DriftShare()


class _Pair(NamedTuple):
    """Two measurements of a subnet: by how much the logarithms of slowness and latency differ."""

    drift: float
    error: float
    resolution: int


def learn_drift_share(measurements: Iterable[Measurement]) -> DriftShare:
    """The share of the drift that best explains by how much repeats differ.

    Of each subnet's measurements, one after the other, d is by how much the logarithm of the
    reference's slowness differs, and e by how much that of the latencies, corrected for all of it.
    With z, the logarithm of the resolution over the repeats' mean of it, e = (β + γ z) d + noise,
    and the share is 1 + β + γ z. Errors are common to a session. So β is found from the means of
    the sessions' pairs, and γ from how pairs differ from these means: each by its posterior mean,
    with a normal prior about 0, in turns.

    The reference's own error is in d as well, and β takes it in: if all differences were the
    reference's own, the best share would be 0.

    Source: Bishop, Pattern Recognition and Machine Learning (2006), section 3.3.

    Args:
        measurements: of one profile, held against one anchor. Those that failed or are marked are
            left out.

    Returns:
        All of the drift, where fewer than `MIN_SESSIONS` sessions have repeats.
    """
    sessions: defaultdict[str, list[_Pair]] = defaultdict(list)
    for earlier, later in _pairs(measurements):
        if earlier.drift is None or later.drift is None:
            continue
        sessions[later.session_id].append(
            _Pair(
                drift=_log_slowness(later.drift) - _log_slowness(earlier.drift),
                error=_log_latency(later) - _log_latency(earlier),
                resolution=later.subnet.resolution,
            )
        )
    if len(sessions) < MIN_SESSIONS:
        return ALL
    pairs = [
        np.array([(pair.drift, pair.error, math.log(pair.resolution)) for pair in found])
        for found in sessions.values()
    ]
    every = [pair for found in sessions.values() for pair in found]
    seen = [pair.resolution for pair in every]
    centre = float(np.log(seen).mean())
    beta = gamma = 0.0
    for _ in range(_PASSES):
        before = beta, gamma
        beta = _common(pairs, [gamma * d * (z - centre) for d, _, z in (p.T for p in pairs)])
        gamma = _by_resolution(pairs, beta, centre)
        if np.allclose(before, (beta, gamma), rtol=0, atol=1e-9):
            break
    return DriftShare(
        share=1 + beta,
        reach=max(abs(pair.drift) for pair in every),
        by_resolution=gamma,
        resolution=math.exp(centre),
        resolutions=(min(seen), max(seen)),
    )


def _common(pairs: Sequence[Floats], known: Sequence[Floats]) -> float:
    """β, from what of the errors is not known by the resolution; each session counts as one."""
    drifts = [found[:, 0] for found in pairs]
    errors = [found[:, 1] - one for found, one in zip(pairs, known, strict=True)]
    products = math.fsum(np.mean(d * e) for d, e in zip(drifts, errors, strict=True))
    squares = math.fsum(np.mean(d * d) for d in drifts)
    beta = 0.0
    for _ in range(_PASSES):
        left = [np.mean((e - beta * d) ** 2) for d, e in zip(drifts, errors, strict=True)]
        believed = NOISE_SESSIONS * NOISE_DEVIATION**2
        noise = (float(np.sum(left)) + believed) / (len(left) + NOISE_SESSIONS)
        beta = products / (squares + noise / SHARE_DEVIATION**2)
    return beta


def _by_resolution(pairs: Sequence[Floats], beta: float, centre: float) -> float:
    """γ, from how the pairs of each session differ from their mean."""
    errors, slopes = [], []
    for drift, error, log_resolution in (found.T for found in pairs):
        left, slope = error - beta * drift, drift * (log_resolution - centre)
        errors.append(left - left.mean())
        slopes.append(slope - slope.mean())
    e, x = np.concatenate(errors), np.concatenate(slopes)
    free = len(e) - len(pairs)
    gamma = 0.0
    for _ in range(_PASSES):
        believed = NOISE_PAIRS * NOISE_DEVIATION**2
        noise = (float(((e - gamma * x) ** 2).sum()) + believed) / (free + NOISE_PAIRS)
        gamma = float(e @ x) / (float(x @ x) + noise / BY_RESOLUTION_DEVIATION**2)
    return gamma


def corrected_by(measurement: Measurement, share: DriftShare) -> Measurement:
    """A measurement corrected for another share of the drift than it was.

    `Drift.share_correction` tells what was done, so that doing it twice changes nothing.
    """
    if measurement.drift is None:
        return measurement
    correction = share.correction(measurement.drift, measurement.subnet.resolution)
    return with_correction(measurement, "share_correction", correction)


def with_correction(
    measurement: Measurement,
    name: Literal["share_correction", "session_correction"],
    correction: float,
) -> Measurement:
    """A measurement with another value of one of its drift's corrections, which are logarithms."""
    if measurement.drift is None or correction == getattr(measurement.drift, name):
        return measurement
    ratio = math.exp(correction - getattr(measurement.drift, name))
    values = {field: getattr(measurement, field) for field in CORRECTED}
    return measurement.model_copy(
        update={
            **{field: None if ms is None else ratio * ms for field, ms in values.items()},
            "drift": measurement.drift.model_copy(update={name: correction}),
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
    drift = measurement.drift
    corrected = 0.0 if drift is None else drift.share_correction + drift.session_correction
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
