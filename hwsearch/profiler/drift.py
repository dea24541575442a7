"""Takes the machine's changing speed out of turns that were measured one after the other.

The model: the logarithm of a call's latency is the level of its model (a subnet's encoder or
decoder), plus the machine's slowness at that time, plus an excess that is small unless a
neighbour's burst hit this very call. Levels and slowness are found by turns, each as a low quantile
of what the other leaves over:

- The slowness of a turn is taken over all calls of this turn and of those next to it, whoever had
  them. It follows drift, and bursts that last for some turns; a short burst does not lift it.
  (A line between the reference's turns, a round apart, misses what happens within a round.)
- A level is taken over the model's calls less the slowness. Calls that a burst hit do not lift it.

Chosen by simulation against true latencies: machines that are quiet, drift, or slow down to 1/1.8
in bursts of 20 ms to 15 s; 10 rounds of 8 subnets. Without the one machine that no estimator copes
with (busy two thirds of the time in bursts of 0.1 s), the mean error is 0.65 % (1.15 % where calls
scatter by 2 % of their own). Dividing each turn's median by the line between the reference's turns
gives 1.33 % (2.03 %), the median in place of the low quantile 0.86 % (1.56 %). A tenth in place of
a fifth is better on bursts (0.45 %) and worse in scatter (1.25 %).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hwsearch.profiler.pair import Slice
from hwsearch.profiler.timer import Floats

_QUANTILE = 0.2
_REACH = 2  # turns to either side that tell the slowness of a turn
_PASSES = 6  # two are almost enough
_COVERAGE = 0.95
_REFERENCE = -1


@dataclass(frozen=True)
class Estimate:
    """A subject's latency as a multiple of the reference's.

    Attributes:
        encoder: the encoder's part of the multiple.
        decoder: the decoder's.
        low: lower end of the 95 % bootstrap interval of both parts together.
        high: its upper end.
        disagreement: how far what the first half of the turns says and what the second says lie
            apart, as a share.
    """

    encoder: float
    decoder: float
    low: float
    high: float
    disagreement: float

    @property
    def full(self) -> float:
        """Encoder plus decoder."""
        return self.encoder + self.decoder

    @property
    def relative_half_width(self) -> float:
        """Half the width of the interval, as a share of the estimate."""
        return (self.high - self.low) / 2 / self.full


@dataclass(frozen=True)
class SteadyCalls:
    """The calls of one subject in ms, as they were had the machine kept its best speed.

    Attributes:
        encoder: shape (turns, calls in a turn).
        decoder: the same of the decoder.
        slowness: how many times its best the machine took during each turn, shape (turns,).
    """

    encoder: Floats
    decoder: Floats
    slowness: Floats

    @property
    def encoder_ms(self) -> float:
        """The encoder's level."""
        return float(_low_quantile(self.encoder.reshape(1, -1))[0])

    @property
    def decoder_ms(self) -> float:
        """The decoder's level."""
        return float(_low_quantile(self.decoder.reshape(1, -1))[0])

    @property
    def full_ms(self) -> float:
        """Encoder plus decoder."""
        return self.encoder_ms + self.decoder_ms

    @property
    def median_ms(self) -> float:
        """Median over the turns of the turns' medians."""
        turns = np.median(self.encoder, axis=1) + np.median(self.decoder, axis=1)
        return float(np.median(turns))

    @property
    def wander(self) -> float:
        """How much slower than at its fastest the machine became, as a share."""
        return float(self.slowness.max() / self.slowness.min() - 1)

    def turns(self, chosen: slice) -> SteadyCalls:
        """A part of the turns."""
        return SteadyCalls(self.encoder[chosen], self.decoder[chosen], self.slowness[chosen])

    def resampled_ms(self, rng: np.random.Generator, resamples: int) -> Floats:
        """`full_ms` of samples of whole turns, drawn with replacement, shape (resamples,)."""
        turns = len(self.slowness)
        draws = rng.integers(turns, size=(resamples, turns))
        encoder, decoder = (
            _low_quantile(part[draws].reshape(resamples, -1))
            for part in (self.encoder, self.decoder)
        )
        total: Floats = encoder + decoder
        return total


def steady_calls(
    slices: Mapping[int, Sequence[Slice]], reference: Sequence[Slice]
) -> tuple[dict[int, SteadyCalls], SteadyCalls]:
    """Take the machine's slowness out of a group's calls.

    Args:
        slices: the turns of each subject that had at least one.
        reference: the turns of the reference, one at least.

    Returns:
        What the calls would have taken at the machine's best speed: the subjects', by their
        numbers, and the reference's.
    """
    turns = sorted(
        [(turn.at, number, turn) for number, own in slices.items() for turn in own]
        + [(turn.at, _REFERENCE, turn) for turn in reference],
        key=lambda entry: entry[:2],
    )
    owners = np.array([number for _, number, _ in turns])
    parts = [
        _log_rows([turn.encoder for _, _, turn in turns]),
        _log_rows([turn.decoder for _, _, turn in turns]),
    ]
    slowness = _slowness(owners, parts)

    def calls(number: int) -> SteadyCalls:
        own = owners == number
        encoder, decoder = (_drop_padding(np.exp(p - slowness[:, None])[own] * 1e3) for p in parts)
        return SteadyCalls(encoder, decoder, np.exp(slowness[own]))

    return {number: calls(number) for number in slices}, calls(_REFERENCE)


def estimate(
    subject: SteadyCalls,
    reference: SteadyCalls,
    *,
    rng: np.random.Generator,
    resamples: int = 1000,
) -> Estimate:
    """Hold a subject's levels against the reference's.

    The interval is a percentile bootstrap over the turns of both; the slowness is taken as known.
    """
    ratios = subject.resampled_ms(rng, resamples) / reference.resampled_ms(rng, resamples)
    tail = (1 - _COVERAGE) / 2
    low, high = np.quantile(ratios, (tail, 1 - tail)).tolist()
    encoder, decoder = (ms / reference.full_ms for ms in (subject.encoder_ms, subject.decoder_ms))
    return Estimate(
        encoder=encoder,
        decoder=decoder,
        low=min(low, encoder + decoder),
        high=max(high, encoder + decoder),
        disagreement=_disagreement(subject, reference),
    )


def _disagreement(subject: SteadyCalls, reference: SteadyCalls) -> float:
    if min(len(subject.slowness), len(reference.slowness)) < 2:
        return 0.0
    first, second = (
        subject.turns(_half(subject, late)).full_ms
        / reference.turns(_half(reference, late)).full_ms
        for late in (False, True)
    )
    return abs(first - second) / min(first, second)


def _half(calls: SteadyCalls, late: bool) -> slice:
    middle = len(calls.slowness) // 2
    return slice(middle, None) if late else slice(middle)


def _slowness(owners: Floats, parts: Sequence[Floats]) -> Floats:
    """Logarithm of the machine's slowness in each turn, about 0 at its best, shape (turns,)."""
    turns = len(owners)
    offsets = np.arange(turns)[:, None] + np.arange(-_REACH, _REACH + 1)
    outside = (offsets < 0) | (offsets >= turns)
    near = offsets.clip(0, turns - 1)
    own_turns = [owners == number for number in np.unique(owners)]
    slowness = np.zeros(turns)
    for _ in range(_PASSES):
        excess = [part - _levels(part - slowness[:, None], own_turns)[:, None] for part in parts]
        windows = np.hstack(excess)[near]
        windows[outside] = np.inf
        slowness = _low_quantile(windows.reshape(turns, -1))
    best: Floats = slowness - _low_quantile(slowness.reshape(1, -1))
    return best


def _levels(rows: Floats, own_turns: Sequence[Floats]) -> Floats:
    levels = np.empty(len(rows))
    for own in own_turns:
        levels[own] = _low_quantile(rows[own].reshape(1, -1))
    return levels


def _log_rows(calls: Sequence[Floats]) -> Floats:
    """Logarithms of seconds, a row for each turn, the shorter ones filled up with infinity."""
    rows = np.full((len(calls), max(len(turn) for turn in calls)), np.inf)
    for row, turn in zip(rows, calls, strict=True):
        row[: len(turn)] = np.log(np.maximum(turn, 1e-9))
    return rows


def _drop_padding(rows: Floats) -> Floats:
    kept: Floats = rows[:, np.isfinite(rows).all(axis=0)]
    return kept


def _low_quantile(rows: Floats) -> Floats:
    """The low quantile of each row's finite values, median-unbiased for few of them.

    Source: Hyndman and Fan, Sample Quantiles in Statistical Packages (1996), definition 8. With
    the usual definition the quantile of five calls lies higher than that of 50, which would make
    long models seem slower: they get fewer calls.
    """
    ordered = np.sort(rows, axis=1)
    count = np.isfinite(ordered).sum(axis=1)
    place = np.clip(count * _QUANTILE + (_QUANTILE + 1) / 3 - 1, 0, count - 1)
    below = place.astype(int)
    above = np.minimum(below + 1, count - 1)
    every = np.arange(len(rows))
    share = place - below
    quantile: Floats = ordered[every, below] * (1 - share) + ordered[every, above] * share
    return quantile
