"""Latencies without what a session has slowed its subnets by; `predictor.sessions` learns it."""

from __future__ import annotations

from collections.abc import Mapping

from hwsearch.drift_share import with_correction
from hwsearch.records import Measurement

# By session and subnet, the logarithm of how much too slow it came out, as the others of it tell.
SessionErrors = Mapping[str, Mapping[str, float]]


def freed_of(measurement: Measurement, errors: SessionErrors) -> Measurement:
    """A measurement without its session's error; one that is not told of stays as it was made.

    `Drift.session_correction` tells what was done, so that doing it twice changes nothing.
    """
    error = errors.get(measurement.session_id, {}).get(measurement.subnet_id, 0.0)
    return with_correction(measurement, "session_correction", -error)
