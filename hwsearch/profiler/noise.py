"""How well a perfect predictor could do: the spread between repeated measurements."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from hwsearch.drift_share import DriftShare, corrected_by, learn_drift_share
from hwsearch.records import Measurement, Scope


class RepeatError(NamedTuple):
    """What a repeated subnet tells of the noise floor, and in which session it was repeated last.

    Subnets that were repeated in one session share what that session was slowed by.
    """

    session_id: str
    percent: float


def noise_floor(measurements: Iterable[Measurement], *, scope: Scope = "full") -> float | None:
    """The MAPE in percent that a predictor of the true latencies would have on one measurement.

    For a subnet with the repeats a and b, |a − b| / ((a + b) / 2) / √2 is averaged over its pairs
    of repeats, and then over subnets. If a = t (1 + e) and b = t (1 + f) with independent errors
    of equal normal spread, e − f spreads √2 times as wide as e, so that the mean is that of |e|:
    the mean absolute percentage error of t against a single measurement. Errors that all repeats
    share are not in it.

    Of several measurements with the same repeat number the last counts; failed ones are left out.
    So are drifted ones, unless no subnet has two others: then they count, and the floor is that of
    a restless machine.

    Returns:
        Percent, or None where no subnet has two repeats.
    """
    errors = repeat_errors(measurements, scope=scope)
    return float(np.mean([error.percent for error in errors])) if errors else None


def repeat_errors(
    measurements: Iterable[Measurement], *, scope: Scope = "full"
) -> list[RepeatError]:
    """What each repeated subnet tells of the noise floor; their mean is the floor."""
    measured = [measurement for measurement in measurements if measurement.error is None]
    steady = _errors([row for row in measured if not row.drifted], scope)
    return steady or _errors(measured, scope)


def _errors(measured: Sequence[Measurement], scope: Scope) -> list[RepeatError]:
    repeats: defaultdict[str, dict[int, Measurement]] = defaultdict(dict)
    for measurement in measured:
        repeats[measurement.subnet_id][measurement.repeat] = measurement
    corrected = _without_their_sessions(measured)
    return [
        RepeatError(
            rows[max(rows)].session_id,
            float(
                np.mean(
                    [
                        100 * _spread(*(row.latency_ms(scope) for row in corrected(*pair)))
                        for pair in itertools.combinations(rows.values(), 2)
                    ]
                )
            ),
        )
        for rows in repeats.values()
        if len(rows) > 1
    ]


def _without_their_sessions(
    measured: Sequence[Measurement],
) -> Callable[[Measurement, Measurement], tuple[Measurement, Measurement]]:
    """Corrects two measurements as if there had been the other sessions alone.

    Where sessions are freed of their errors, what the share flatters repeats by is in these, and
    the other subnets of a session have told them: then measurements stay as they are.
    """
    drifts = [row.drift for row in measured if row.drift is not None]
    freed = any(drift.session_correction for drift in drifts)
    if freed or not any(drift.share_correction for drift in drifts):
        return lambda one, other: (one, other)

    @cache
    def share(left_out: frozenset[str]) -> DriftShare:
        return learn_drift_share(row for row in measured if row.session_id not in left_out)

    def corrected(one: Measurement, other: Measurement) -> tuple[Measurement, Measurement]:
        known = share(frozenset((one.session_id, other.session_id)))
        return corrected_by(one, known), corrected_by(other, known)

    return corrected


def _spread(a: float, b: float) -> float:
    return abs(a - b) / ((a + b) / 2) / math.sqrt(2)
