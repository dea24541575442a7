"""Random interleaved rounds of a group of subjects, the reference before and after each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from hwsearch.profiler.pair import Clock, Pair, Slice, time_pair
from hwsearch.profiler.settings import SessionSettings
from hwsearch.profiler.timer import Floats, garbage_kept, relative_half_width


@dataclass(frozen=True)
class ReferenceTrack:
    """The reference's turns in the order of time: clock in seconds, latency in ms, shapes (n,)."""

    at: Floats
    ms: Floats

    def around(self, at: Floats) -> Floats:
        """The reference's latency at other times, on the straight line between its turns."""
        return np.interp(at, self.at, self.ms)


@dataclass(frozen=True)
class GroupTimes:
    """What the rounds of one group gave: slices by subject, failures by subject, the reference."""

    slices: dict[int, list[Slice]]
    failures: dict[int, Exception]
    reference: ReferenceTrack


@dataclass(frozen=True)
class Corrected:
    """A subject's turns as multiples of the reference around them, shapes (turns,)."""

    encoder: Floats
    decoder: Floats
    around_ms: Floats

    @property
    def full(self) -> Floats:
        """Encoder plus decoder, turn by turn."""
        return self.encoder + self.decoder


def correct(slices: list[Slice], reference: ReferenceTrack) -> Corrected:
    """Divide each turn's median by the reference's latency at the middle of the turn.

    What slows both alike falls out. The turns of a subject lie at random places of the rounds, so
    that their median also sheds what hit only one of the two.
    """
    around = reference.around(np.array([piece.at for piece in slices]))
    return Corrected(
        encoder=np.array([piece.encoder_ms for piece in slices]) / around,
        decoder=np.array([piece.decoder_ms for piece in slices]) / around,
        around_ms=around,
    )


def run_rounds(
    pairs: Mapping[int, Pair],
    *,
    reference: Pair,
    settings: SessionSettings,
    rng: np.random.Generator,
    clock: Clock,
    on_round: Callable[[int, int], None],
) -> GroupTimes:
    """Time warm pairs in rounds until each is steady, failed, or the group's time is used up.

    In each round every pair gets one turn, in a new random order; the reference has its turn
    between rounds. After `min_rounds`, pairs whose corrected median is steady leave the rounds.

    Args:
        pairs: the group by the subjects' numbers.
        reference: the pair that shows the machine's drift.
        settings: when to stop.
        rng: of the orders and the bootstrap.
        clock: seconds that only go forward.
        on_round: told after each round how many are done, and how many pairs go on.

    Raises:
        Exception: whatever the reference's runner raises; the pairs' errors are in the result.
    """
    slices: dict[int, list[Slice]] = {number: [] for number in pairs}
    failures: dict[int, Exception] = {}
    active = list(pairs)
    with garbage_kept():
        edges = [time_pair(reference, clock)]
        start = clock()
        for done in range(1, settings.max_rounds + 1):
            for number in rng.permutation(active).tolist():
                try:
                    slices[number].append(time_pair(pairs[number], clock))
                except Exception as error:  # noqa: BLE001 - whatever it is, it becomes a record
                    failures[number] = error
            edges.append(time_pair(reference, clock))
            active = [number for number in active if number not in failures]
            if done >= settings.min_rounds:
                active = _unsteady(active, slices, edges, settings, rng)
                if clock() - start >= settings.budget_s:
                    break
            on_round(done, len(active))
            if not active:
                break
    return GroupTimes(slices=slices, failures=failures, reference=_track(edges))


def _unsteady(
    active: list[int],
    slices: dict[int, list[Slice]],
    edges: list[Slice],
    settings: SessionSettings,
    rng: np.random.Generator,
) -> list[int]:
    track = _track(edges)
    return [
        number
        for number in active
        if relative_half_width(correct(slices[number], track).full, rng=rng)
        > settings.relative_half_width
    ]


def _track(edges: list[Slice]) -> ReferenceTrack:
    return ReferenceTrack(
        at=np.array([edge.at for edge in edges]), ms=np.array([edge.full_ms for edge in edges])
    )
