"""Random interleaved rounds of a group of subjects, the reference before and after each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np

from hwsearch.profiler.drift import estimate, steady_calls
from hwsearch.profiler.failures import NurseryError
from hwsearch.profiler.pair import Clock, Pair, Slice, time_pair
from hwsearch.profiler.settings import SessionSettings
from hwsearch.profiler.timer import garbage_kept, wander

_QUICK_RESAMPLES = 200  # to know when to stop; it falls between the turns and must be short


@dataclass(frozen=True)
class GroupTimes:
    """What the rounds of one group gave: turns, failures and memory by subject's number.

    `memory_bytes` is filled in by whoever opened the models.
    """

    slices: dict[int, list[Slice]]
    failures: dict[int, Exception]
    reference: list[Slice]
    rounds: int
    memory_bytes: dict[int, int | None] = field(default_factory=dict)

    @property
    def subjects(self) -> set[int]:
        """Numbers of the subjects that were opened, or could not be."""
        return self.slices.keys() | self.failures.keys()


@dataclass(frozen=True)
class RoundState:
    """How far a group is after a round.

    Attributes:
        done: rounds so far.
        left: subjects that go on.
        half_width: the widest relative half-width of any subject; None where all failed.
        drift: how far the reference wandered so far, as a share.
        seconds_left: the longest that the group may still take.
    """

    done: int
    left: int
    half_width: float | None
    drift: float
    seconds_left: float

    def __str__(self) -> str:
        width = "" if self.half_width is None else f"half-width {100 * self.half_width:.1f} %, "
        return (
            f"round {self.done}, {width}drift {100 * self.drift:.0f} %, {self.left} subnets left, "
            f"at most {self.seconds_left:.0f} s"
        )


def run_rounds(
    pairs: Mapping[int, Pair],
    *,
    reference: Pair,
    settings: SessionSettings,
    rng: np.random.Generator,
    clock: Clock,
    on_round: Callable[[RoundState], None],
    turn: Callable[[], AbstractContextManager[None]],
) -> GroupTimes:
    """Time warm pairs in rounds until each is steady, failed, or the group's time is used up.

    In each round every pair gets one turn, in a new random order; the reference has its turn
    between rounds. After `min_rounds`, pairs whose corrected latency is steady leave the rounds.

    Args:
        pairs: the group by the subjects' numbers.
        reference: the pair that shows the machine's drift.
        settings: when to stop.
        rng: of the orders and the bootstrap.
        clock: seconds that only go forward.
        on_round: told after each round how far the group is.
        turn: what each turn, of a pair or of the reference, runs within.

    Raises:
        Exception: whatever the reference's runner raises; the pairs' errors are in the result.
    """
    slices: dict[int, list[Slice]] = {number: [] for number in pairs}
    failures: dict[int, Exception] = {}
    widths: dict[int, float] = {}
    active = list(pairs)
    done = 0

    def timed(pair: Pair) -> Slice:
        with turn():
            return time_pair(pair, clock)

    with garbage_kept():
        edges = [timed(reference)]
        start = clock()
        while active and done < settings.max_rounds:
            done += 1
            for number in rng.permutation(active).tolist():
                try:
                    slices[number].append(timed(pairs[number]))
                except NurseryError:
                    raise
                except Exception as error:  # noqa: BLE001 - whatever it is, it becomes a record
                    failures[number] = error
                    widths.pop(number, None)
            edges.append(timed(reference))
            active = [number for number in active if number not in failures]
            widths |= _half_widths(active, slices, edges, rng)
            if done >= settings.min_rounds:
                active = [n for n in active if widths[n] > settings.relative_half_width]
            seconds = clock() - start
            seconds_left = _seconds_left(done, seconds, settings) if active else 0.0
            on_round(
                RoundState(
                    done=done,
                    left=len(active),
                    half_width=max(widths.values(), default=None),
                    drift=wander(np.array([edge.full_ms for edge in edges])),
                    seconds_left=seconds_left,
                )
            )
            if done >= settings.min_rounds and seconds >= settings.budget_s:
                break
    return GroupTimes(slices=slices, failures=failures, reference=edges, rounds=done)


def _half_widths(
    active: list[int],
    slices: Mapping[int, list[Slice]],
    reference: list[Slice],
    rng: np.random.Generator,
) -> dict[int, float]:
    timed = {number: turns for number, turns in slices.items() if turns}
    calls, steady = steady_calls(timed, reference)
    return {
        number: estimate(
            calls[number], steady, rng=rng, resamples=_QUICK_RESAMPLES
        ).relative_half_width
        for number in active
    }


def _seconds_left(done: int, seconds: float, settings: SessionSettings) -> float:
    """The longest that a group may go on, should its rounds stay as long as they were."""
    a_round = seconds / done
    least = max(settings.min_rounds - done, 0) * a_round
    most = (settings.max_rounds - done) * a_round
    return max(least, min(most, settings.budget_s - seconds))
