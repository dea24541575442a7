"""A session: many subnets timed in random groups, and one measurement given for each."""

from __future__ import annotations

import functools
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from hwsearch.errors import HwsearchError, ProfileError
from hwsearch.profiler.conditions import capture_conditions
from hwsearch.profiler.pair import Clock, OpenRunner, Pair, RunnerShelf, Subject, open_pair
from hwsearch.profiler.rounds import GroupTimes, ReferenceTrack, correct, run_rounds
from hwsearch.profiler.settings import SessionSettings
from hwsearch.profiler.timer import summarise, wander
from hwsearch.progress import Advance, Progress, SilentProgress
from hwsearch.records import Conditions, Drift, Measurement, Target
from hwsearch.runtime.open import open_runner as open_on_target
from hwsearch.runtime.runner import Runner

__all__ = ["SessionReport", "SessionSettings", "Subject", "measure"]

_LONGEST_REASON = 300


@dataclass(frozen=True)
class SessionReport:
    """What a session did.

    Attributes:
        session_id: the one in its measurements.
        anchor_ms: what the reference is held against, to be given to the profile's next session.
        measured: subjects with a latency.
        drifted: those of them that are marked, because their group's reference wandered.
        failed: subjects with an error.
        reference_ms: the reference's median in each group.
        wander: how far it went apart in each group, as a share (see `timer.wander`).
    """

    session_id: str
    anchor_ms: float | None
    measured: int
    drifted: int
    failed: int
    reference_ms: tuple[float, ...]
    wander: tuple[float, ...]


@dataclass(frozen=True)
class _Session:
    """What all groups of a session share."""

    session_id: str
    supernet_id: str
    target: Target
    repeat: int
    settings: SessionSettings
    rng: np.random.Generator
    open_runner: OpenRunner
    clock: Clock


def measure(
    subjects: Sequence[Subject],
    *,
    reference: Subject,
    target: Target,
    supernet_id: str,
    anchor_ms: float | None,
    settings: SessionSettings,
    on_measurement: Callable[[Measurement], None],
    repeat: int = 0,
    progress: Progress | None = None,
    open_runner: OpenRunner | None = None,
    clock: Clock = time.perf_counter,
) -> SessionReport:
    """Time subjects in random groups of `settings.group_size`, in interleaved rounds.

    A subject that fails becomes a measurement with an error, and the others go on. Measurements
    are handed over at the end of each group, so that an interruption loses one group. Peak memory
    is not measured: several models share one process, whose allocator keeps what it once had.

    Args:
        subjects: what to time.
        reference: the subject that shows the machine's drift; it stays open all the time.
        target: where and how to run.
        supernet_id: the profile that the measurements belong to.
        anchor_ms: the reference's median in the first session of the profile. None in that
            session: the reference's median in the first group is taken.
        settings: how long and how carefully to measure.
        on_measurement: gets each measurement; it may store it.
        repeat: 0, or the number of this re-measurement.
        progress: shows how far it is.
        open_runner: opens a model file; without it, the target's runtime does.
        clock: seconds that only go forward.

    Raises:
        ProfileError: the reference can't be run.
    """
    session = _Session(
        session_id=uuid.uuid4().hex[:12],
        supernet_id=supernet_id,
        target=target,
        repeat=repeat,
        settings=settings,
        rng=np.random.default_rng([settings.seed, repeat]),
        open_runner=open_runner or functools.partial(open_on_target, target),
        clock=clock,
    )
    order = session.rng.permutation(len(subjects))
    groups = [
        [subjects[number] for number in order[start : start + settings.group_size]]
        for start in range(0, len(subjects), settings.group_size)
    ]
    tracks: list[ReferenceTrack] = []
    measured: list[Measurement] = []
    progress = progress or SilentProgress()
    with ExitStack() as stack, progress.task("Timing subnets", len(subjects)) as advance:
        shelf = RunnerShelf(session.open_runner, stack)
        reference_pair = _open_reference(session, reference, shelf)
        for group in groups:
            conditions = capture_conditions()
            times = _time_group(
                session,
                group,
                reference=reference,
                reference_pair=reference_pair,
                lent=shelf.decoders,
                advance=advance,
            )
            tracks.append(times.reference)
            anchor_ms = anchor_ms or float(np.median(times.reference.ms))
            for number, subject in enumerate(group):
                measurement = _record(
                    session,
                    subject,
                    number=number,
                    times=times,
                    anchor_ms=anchor_ms,
                    conditions=conditions,
                )
                on_measurement(measurement)
                measured.append(measurement)
                advance(1, note=f"{measurement.subnet_id} {_outcome(measurement)}")
    return SessionReport(
        session_id=session.session_id,
        anchor_ms=anchor_ms,
        measured=sum(measurement.error is None for measurement in measured),
        drifted=sum(measurement.drifted for measurement in measured),
        failed=sum(measurement.error is not None for measurement in measured),
        reference_ms=tuple(float(np.median(track.ms)) for track in tracks),
        wander=tuple(wander(track.ms) for track in tracks),
    )


def _open_reference(session: _Session, reference: Subject, shelf: RunnerShelf) -> Pair:
    try:
        return _open(session, reference, shelf)
    except Exception as error:
        raise _reference_error(reference, error) from error


def _time_group(
    session: _Session,
    group: Sequence[Subject],
    *,
    reference: Subject,
    reference_pair: Pair,
    lent: dict[str, Runner],
    advance: Advance,
) -> GroupTimes:
    pairs: dict[int, Pair] = {}
    failures: dict[int, Exception] = {}
    with ExitStack() as stack:
        shelf = RunnerShelf(session.open_runner, stack, lent=lent)
        for number, subject in enumerate(group):
            try:
                pairs[number] = _open(session, subject, shelf)
            except Exception as error:  # noqa: BLE001 - whatever it is, it becomes a record
                failures[number] = error
        try:
            times = run_rounds(
                pairs,
                reference=reference_pair,
                settings=session.settings,
                rng=session.rng,
                clock=session.clock,
                on_round=lambda done, left: advance(0, note=f"round {done}, {left} subnets left"),
            )
        except Exception as error:
            raise _reference_error(reference, error) from error
    return GroupTimes(times.slices, {**failures, **times.failures}, times.reference)


def _open(session: _Session, subject: Subject, shelf: RunnerShelf) -> Pair:
    return open_pair(
        subject,
        shelf,
        batch=session.target.batch,
        settings=session.settings,
        rng=session.rng,
        clock=session.clock,
    )


def _record(
    session: _Session,
    subject: Subject,
    *,
    number: int,
    times: GroupTimes,
    anchor_ms: float,
    conditions: Conditions,
) -> Measurement:
    measurement = functools.partial(
        Measurement,
        supernet_id=session.supernet_id,
        subnet_id=subject.subnet.id,
        subnet=subject.subnet,
        target=session.target,
        session_id=session.session_id,
        repeat=session.repeat,
        conditions=conditions,
    )
    failure = times.failures.get(number)
    if failure is not None:
        return measurement(error=_reason(failure))
    slices = times.slices[number]
    corrected = correct(slices, times.reference)
    return measurement(
        encoder=summarise(np.concatenate([turn.encoder for turn in slices]), rng=session.rng),
        decoder=summarise(np.concatenate([turn.decoder for turn in slices]), rng=session.rng),
        encoder_ms=anchor_ms * float(np.median(corrected.encoder)),
        decoder_ms=anchor_ms * float(np.median(corrected.decoder)),
        drift=Drift(around_ms=float(np.median(corrected.around_ms)), anchor_ms=anchor_ms),
        drifted=wander(times.reference.ms) > session.settings.max_drift,
    )


def _reason(error: Exception) -> str:
    """Whatever befell a subject, in one line."""
    if isinstance(error, HwsearchError):
        return str(error)
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first[:_LONGEST_REASON]}".rstrip(": ")


def _reference_error(reference: Subject, error: Exception) -> ProfileError:
    return ProfileError(
        f"The reference subnet {reference.subnet.id} can't be run, so nothing can be timed: "
        f"{_reason(error)}"
    )


def _outcome(measurement: Measurement) -> str:
    if measurement.error is not None:
        return "failed"
    return f"{measurement.latency_ms():.1f} ms" + (" (drifted)" if measurement.drifted else "")
