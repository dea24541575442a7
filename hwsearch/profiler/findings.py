"""From a group's turns to measurements, each marked where it is not to be trusted."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hwsearch.profiler.drift import Estimate, SteadyCalls, estimate, steady_calls
from hwsearch.profiler.failures import reason
from hwsearch.profiler.pair import Subject
from hwsearch.profiler.rounds import GroupTimes
from hwsearch.profiler.settings import SessionSettings
from hwsearch.profiler.timer import summarise
from hwsearch.records import Conditions, Drift, Measurement, Target

_DISAGREEMENT = 3  # that the halves of the turns may have, in times `max_half_width`


@dataclass(frozen=True)
class Origin:
    """What all measurements of a session have in common."""

    session_id: str
    supernet_id: str
    target: Target
    repeat: int


def judge_group(
    group: Sequence[Subject],
    times: GroupTimes,
    *,
    origin: Origin,
    conditions: Conditions,
    anchor_ms: float | None,
    reference_id: str,
    settings: SessionSettings,
    rng: np.random.Generator,
) -> tuple[float, list[Measurement]]:
    """Make a measurement of each subject's turns.

    A corrected latency is the subject's as a multiple of the reference's, times `anchor_ms`. It is
    in the scale of the reference's median at the machine's best speed in the first session.

    Args:
        group: the subjects.
        times: their turns, by their places in the group.
        origin: what all measurements of the session have in common.
        conditions: those of the group.
        anchor_ms: the reference's latency in the first session; None in that session.
        reference_id: which subnet the reference is.
        settings: what is to be trusted.
        rng: of the bootstrap.

    Returns:
        The anchor, found from this group if there was none, and the measurements.
    """
    timed = {number: turns for number, turns in times.slices.items() if turns}
    calls, reference = steady_calls(timed, times.reference)
    anchor_ms = anchor_ms or reference.median_ms
    slowness = {number: float(np.median(own.slowness)) for number, own in calls.items()}
    group_ms = reference.median_ms * float(np.median([*slowness.values()])) if slowness else None
    measurements = []
    for number, subject in enumerate(group):
        new = functools.partial(
            Measurement,
            session_id=origin.session_id,
            supernet_id=origin.supernet_id,
            target=origin.target,
            repeat=origin.repeat,
            subnet_id=subject.subnet.id,
            subnet=subject.subnet,
            conditions=conditions,
        )
        if number in times.failures:
            measurements.append(new(error=reason(times.failures[number])))
            continue
        turns = times.slices[number]
        found = estimate(calls[number], reference, rng=rng)
        around_ms = reference.median_ms * slowness[number]
        measurements.append(
            new(
                encoder=summarise(np.concatenate([turn.encoder for turn in turns]), rng=rng),
                decoder=summarise(np.concatenate([turn.decoder for turn in turns]), rng=rng),
                encoder_ms=anchor_ms * found.encoder,
                decoder_ms=anchor_ms * found.decoder,
                low_ms=anchor_ms * found.low,
                high_ms=anchor_ms * found.high,
                drift=Drift(
                    around_ms=around_ms,
                    anchor_ms=anchor_ms,
                    group_ms=group_ms,
                    reference_id=reference_id,
                ),
                drifted=_is_doubtful(found, calls[number], settings),
                memory_bytes=times.memory_bytes.get(number),
            )
        )
    return anchor_ms, measurements


def _is_doubtful(found: Estimate, calls: SteadyCalls, settings: SessionSettings) -> bool:
    return (
        found.relative_half_width > settings.max_half_width
        or found.disagreement > _DISAGREEMENT * settings.max_half_width
        or calls.wander > settings.max_drift
    )
