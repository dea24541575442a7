"""Times work on a GPU by the GPU's own clock, the way trtexec does.

Two runs are in flight: the next is enqueued before the last one is waited for, so that the GPU
never waits for the host between them. An event before and one after each run, on the same stream,
give the time that the GPU took. Source of the procedure, its constants and its formula for
percentiles: trtexec, in NVIDIA's TensorRT repository (samples/common/sampleInference.cpp and
sampleReporting.cpp).
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from hwsearch.errors import UsageError
from hwsearch.runtime.runner import Seconds

WARMUP_S = 0.2
LEAST_S = 3.0
LEAST_RUNS = 10
IN_FLIGHT = 2
_UNSTEADY = 0.025  # standard deviation as a share of the mean
_HOST_BOUND = 0.8  # median of enqueuing as a share of the GPU's median

Clock = Callable[[], float]


class Event(Protocol):
    """A mark on a stream, as `torch.cuda.Event(enable_timing=True)` makes it."""

    def record(self) -> None:
        """Mark this point of the current stream."""
        ...

    def synchronize(self) -> None:
        """Wait until the GPU has passed the mark."""
        ...

    def elapsed_time(self, end_event: Any) -> float:  # noqa: ANN401 - an event of its own class
        """Milliseconds from this mark to a later one."""
        ...


@dataclass(frozen=True)
class RunTimes:
    """Seconds of runs one after the other, shape (n,): on the GPU, and of enqueuing them."""

    gpu: Seconds
    enqueue: Seconds


@dataclass(frozen=True)
class TimingSummary:
    """What trtexec reports of runs, in milliseconds of GPU time.

    `warnings` says in sentences why the figures may not be those of the engine.
    """

    runs: int
    min_ms: float
    max_ms: float
    mean_ms: float
    median_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    enqueue_median_ms: float
    warnings: tuple[str, ...]


def time_runs(
    enqueue: Callable[[], None],
    *,
    new_event: Callable[[], Event],
    done: Callable[[int, float], bool],
    clock: Clock = time.perf_counter,
) -> RunTimes:
    """Enqueue runs, two in flight, until `done` says so.

    Args:
        enqueue: puts one run on the current stream, and does not wait for it.
        new_event: makes an event that tells the time.
        done: given the number of finished runs and the seconds since the start.
        clock: the host's seconds, that only go forward.
    """
    gpu: list[float] = []
    enqueuing: list[float] = []
    flying: deque[tuple[Event, Event]] = deque()

    def land() -> None:
        start, end = flying.popleft()
        end.synchronize()
        gpu.append(start.elapsed_time(end) / 1e3)

    begin = clock()
    while not done(len(gpu) + len(flying), clock() - begin):
        start, end = new_event(), new_event()
        start.record()
        before = clock()
        enqueue()
        enqueuing.append(clock() - before)
        end.record()
        flying.append((start, end))
        if len(flying) == IN_FLIGHT:
            land()
    while flying:
        land()
    return RunTimes(gpu=np.array(gpu), enqueue=np.array(enqueuing))


def exactly(n: int) -> Callable[[int, float], bool]:
    """Ends `time_runs` after `n` runs.

    Raises:
        UsageError: `n` is less than 1.
    """
    if n < 1:
        raise UsageError(f"{n} runs can't be timed: ask for at least 1.")
    return lambda runs, _seconds: runs >= n


def time_alone(
    enqueue: Callable[[], None],
    *,
    new_event: Callable[[], Event],
    warmup_s: float = WARMUP_S,
    least_s: float = LEAST_S,
    least_runs: int = LEAST_RUNS,
    clock: Clock = time.perf_counter,
) -> RunTimes:
    """Warm up, then time runs until there are enough of them and they took long enough.

    For an engine that has the GPU to itself; a session of several subjects interleaves them.
    """
    time_runs(enqueue, new_event=new_event, done=lambda _, s: s >= warmup_s, clock=clock)
    return time_runs(
        enqueue,
        new_event=new_event,
        done=lambda runs, seconds: runs >= least_runs and seconds >= least_s,
        clock=clock,
    )


def percentile(values: Seconds, percent: float) -> float:
    """The value that `percent` of all values, shape (n,), do not exceed, by trtexec's formula.

    It is computed in single precision, as there: that decides where the product is a whole number.
    """
    one, share = np.float32(1), np.float32(percent) / np.float32(100)
    excluded = int((one - share) * np.float32(values.size))
    return float(np.sort(values)[max(values.size - 1 - excluded, 0)])


def summarise_runs(times: RunTimes) -> TimingSummary:
    """Put runs into trtexec's figures, with its warnings."""
    ms, enqueue_ms = times.gpu * 1e3, times.enqueue * 1e3
    mean, median = float(ms.mean()), float(np.median(ms))
    enqueue_median = float(np.median(enqueue_ms))
    spread = float(ms.std()) / mean if mean else math.inf
    warnings = []
    if spread > _UNSTEADY:
        warnings.append(
            f"GPU times spread by {100 * spread:.1f} % of their mean: lock the clocks, or leave "
            "the GPU alone."
        )
    if enqueue_median > _HOST_BOUND * median:
        warnings.append(
            f"Enqueuing takes {enqueue_median:.3f} ms of {median:.3f} ms: the host limits the "
            "speed, not the GPU."
        )
    return TimingSummary(
        runs=ms.size,
        min_ms=float(ms.min()),
        max_ms=float(ms.max()),
        mean_ms=mean,
        median_ms=median,
        p90_ms=percentile(ms, 90),
        p95_ms=percentile(ms, 95),
        p99_ms=percentile(ms, 99),
        enqueue_median_ms=enqueue_median,
        warnings=tuple(warnings),
    )
