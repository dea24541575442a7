"""A session: many subnets timed in random groups, and one measurement given for each."""

from __future__ import annotations

import functools
import math
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np

from hwsearch.errors import ProfileError
from hwsearch.profiler.conditions import GpuWatch, capture_conditions
from hwsearch.profiler.failures import NoProcessError, NurseryError, reason
from hwsearch.profiler.findings import Origin, judge_group
from hwsearch.profiler.pair import Clock, Host, LocalHost, OpenRunner, Pair, Subject, open_pair
from hwsearch.profiler.remote import Worker
from hwsearch.profiler.rounds import GroupTimes, RoundState, run_rounds
from hwsearch.profiler.settings import SessionSettings, settings_for
from hwsearch.profiler.supervisor import Nursery
from hwsearch.profiler.timer import wander
from hwsearch.progress import Advance, Progress, SilentProgress
from hwsearch.records import Measurement, Target
from hwsearch.runtime.gpus import is_on_gpu
from hwsearch.runtime.hardware import available_memory_bytes

# The larger models of a group are opened first; so many times as much as the largest that is open
# may the next one take, since at one resolution models differ by their weights.
_GROWTH = 1.25

__all__ = ["SessionReport", "SessionSettings", "Subject", "measure"]


@dataclass(frozen=True)
class SessionReport:
    """What a session did.

    Attributes:
        session_id: the one in its measurements.
        anchor_ms: what the reference is held against, to be given to the profile's next session.
        measured: subjects with a latency.
        drifted: those of them that are marked as not to be trusted.
        failed: subjects with an error.
        rounds: how many each group had.
        half_width: the widest relative half-width of a corrected latency; None without any.
        reference_ms: the reference's median in each group.
        wander: how far it went apart in each group, as a share (see `timer.wander`).
        throttled_by: what held a GPU's clocks down meanwhile.
    """

    session_id: str
    anchor_ms: float | None
    measured: int
    drifted: int
    failed: int
    rounds: tuple[int, ...]
    half_width: float | None
    reference_ms: tuple[float, ...]
    wander: tuple[float, ...]
    throttled_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Session:
    """What all groups of a session share."""

    origin: Origin
    settings: SessionSettings
    rng: np.random.Generator
    new_host: Callable[[], Host]
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
    nursery: Nursery | None = None,
    open_runner: OpenRunner | None = None,
    clock: Clock = time.perf_counter,
) -> SessionReport:
    """Time subjects in random groups of `settings.group_size`, in interleaved rounds.

    A group has fewer where the machine's memory holds no more at the same time.

    Each subject, and the reference, has a worker process of its own. A subject that fails, by an
    error, a crash, a hang or a lack of memory, becomes a measurement with an error, and the others
    go on. Measurements are handed over at the end of each group, so that an interruption loses one
    group.

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
        nursery: gives the workers; without it, one is started for this session.
        open_runner: opens a model file in this process, unsupervised, in place of workers.
        clock: seconds that only go forward.

    Raises:
        ProfileError: the reference can't be run, or no workers can be had.
        DeviceError: this system has no worker processes.
    """
    settings = settings_for(target, settings)
    with ExitStack() as stack:
        if open_runner is not None:
            new_host: Callable[[], Host] = functools.partial(LocalHost, open_runner)
        else:
            nursery = nursery or stack.enter_context(Nursery.for_target(target))
            new_host = functools.partial(Worker, nursery, deadline_s=settings.deadline_s)
        session = _Session(
            origin=Origin(
                session_id=uuid.uuid4().hex[:12],
                supernet_id=supernet_id,
                target=target,
                repeat=repeat,
            ),
            settings=settings,
            rng=_generator(subjects, settings, repeat),
            new_host=new_host,
            clock=clock,
        )
        return _measure(
            session,
            subjects,
            reference=reference,
            anchor_ms=anchor_ms,
            on_measurement=on_measurement,
            progress=progress or SilentProgress(),
        )


def _measure(
    session: _Session,
    subjects: Sequence[Subject],
    *,
    reference: Subject,
    anchor_ms: float | None,
    on_measurement: Callable[[Measurement], None],
    progress: Progress,
) -> SessionReport:
    size = session.settings.group_size
    waiting = [subjects[number] for number in session.rng.permutation(len(subjects))]
    found: list[GroupTimes] = []
    measured: list[Measurement] = []
    throttled_by: set[str] = set()
    with ExitStack() as stack, progress.task("Timing subnets", len(subjects)) as advance:
        reference_host = stack.enter_context(session.new_host())
        reference_pair = _open_reference(session, reference, reference_host)
        while waiting:
            group = sorted(waiting[:size], key=lambda s: s.subnet.resolution, reverse=True)
            conditions = capture_conditions()
            with GpuWatch(session.origin.target) as watch:
                times = _time_group(
                    session,
                    group,
                    reference=reference,
                    reference_pair=reference_pair,
                    reference_host=reference_host,
                    advance=advance,
                    watch=watch,
                )
            found.append(times)
            opened = len(times.subjects)
            group, waiting = group[:opened], [*group[opened:], *waiting[size:]]
            gpu = watch.worst()
            throttled_by |= set(gpu.throttled_by if gpu else ())
            anchor_ms, measurements = judge_group(
                group,
                times,
                origin=session.origin,
                conditions=conditions.model_copy(update={"gpu": gpu}),
                anchor_ms=anchor_ms,
                reference_id=reference.subnet.id,
                settings=session.settings,
                rng=session.rng,
            )
            for measurement in measurements:
                on_measurement(measurement)
                measured.append(measurement)
                advance(1, note=f"{measurement.subnet_id} {_outcome(measurement)}")
    reference_ms = [np.array([turn.full_ms for turn in times.reference]) for times in found]
    return SessionReport(
        session_id=session.origin.session_id,
        anchor_ms=anchor_ms,
        measured=sum(measurement.error is None for measurement in measured),
        drifted=sum(measurement.drifted for measurement in measured),
        failed=sum(measurement.error is not None for measurement in measured),
        rounds=tuple(times.rounds for times in found),
        half_width=max((_half_width(m) for m in measured if m.error is None), default=None),
        reference_ms=tuple(float(np.median(ms)) for ms in reference_ms),
        wander=tuple(wander(ms) for ms in reference_ms),
        throttled_by=tuple(sorted(throttled_by)),
    )


def _generator(
    subjects: Sequence[Subject], settings: SessionSettings, repeat: int
) -> np.random.Generator:
    """One that draws other orders for other subjects, but the same for the same."""
    ids = [int(subject.subnet.id, 16) for subject in subjects]
    return np.random.default_rng([settings.seed, repeat, *ids])


def _open_reference(session: _Session, reference: Subject, host: Host) -> Pair:
    try:
        return _open(session, reference, host)
    except NurseryError:
        raise
    except Exception as error:
        raise _reference_error(reference, error) from error


def _time_group(
    session: _Session,
    group: Sequence[Subject],
    *,
    reference: Subject,
    reference_pair: Pair,
    reference_host: Host,
    advance: Advance,
    watch: GpuWatch,
) -> GroupTimes:
    """Time the first subjects of a group, all of them if the system has room for them."""
    pairs: dict[int, Pair] = {}
    failures: dict[int, Exception] = {}
    hosts: dict[int, Host] = {}

    def show(state: RoundState) -> None:
        advance(0, note=str(state))

    with ExitStack() as stack:
        for number, subject in enumerate(group):
            if number and _is_full(session.origin.target, [reference_host, *hosts.values()]):
                break
            advance(0, note=f"opening {subject.subnet.id}, {number + 1} of {len(group)}")
            try:
                hosts[number] = stack.enter_context(session.new_host())
            except NoProcessError:
                if not hosts:
                    raise
                break
            try:
                pairs[number] = _open(session, subject, hosts[number])
            except NurseryError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, it becomes a record
                failures[number] = error
        try:
            times = run_rounds(
                pairs,
                reference=reference_pair,
                settings=session.settings,
                rng=session.rng,
                clock=session.clock,
                on_round=show,
                turn=watch.turn,
            )
        except NurseryError:
            raise
        except Exception as error:
            raise _reference_error(reference, error) from error
        memory = {number: hosts[number].memory_bytes() for number in pairs}
    return replace(times, failures={**failures, **times.failures}, memory_bytes=memory)


def _is_full(target: Target, hosts: Sequence[Host]) -> bool:
    """Whether another model might take more main memory than there is beside the open ones."""
    if is_on_gpu(target):
        return False
    largest = max(host.memory_bytes() or 0 for host in hosts)
    return _GROWTH * largest > available_memory_bytes()


def _open(session: _Session, subject: Subject, host: Host) -> Pair:
    return open_pair(
        subject,
        host,
        batch=session.origin.target.batch,
        settings=session.settings,
        rng=session.rng,
        clock=session.clock,
    )


def _reference_error(reference: Subject, error: Exception) -> ProfileError:
    return ProfileError(
        f"The reference subnet {reference.subnet.id} can't be run, so nothing can be timed: "
        f"{reason(error)}"
    )


def _half_width(measurement: Measurement) -> float:
    """Of the interval of the corrected latency, as a share of the latency."""
    if measurement.low_ms is None or measurement.high_ms is None:
        return math.inf
    return (measurement.high_ms - measurement.low_ms) / 2 / measurement.latency_ms()


def _outcome(measurement: Measurement) -> str:
    if measurement.error is not None:
        return "failed"
    width = f"{measurement.latency_ms():.1f} ms ± {100 * _half_width(measurement):.1f} %"
    return width + (" (marked)" if measurement.drifted else "")
