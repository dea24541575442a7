"""What the correction makes of turns on machines whose true speed is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsearch.profiler.drift import estimate, steady_calls
from hwsearch.profiler.pair import Slice

REFERENCE = -1
LEVELS_S = {REFERENCE: (0.05, 0.01), 0: (0.02, 0.01), 1: (0.1, 0.01), 2: (0.3, 0.02)}
Slowness = Callable[[float, np.random.Generator], float]


def play(
    slowness: Slowness, *, rounds: int = 10, calls: int = 3, noise: float = 0.01, seed: int = 0
) -> tuple[dict[int, list[Slice]], list[Slice]]:
    """Rounds in random order on a machine that is `slowness(now)` times as slow as its best."""
    rng = np.random.default_rng(seed)
    turns: dict[int, list[Slice]] = {number: [] for number in LEVELS_S}
    now = 0.0

    def turn(number: int) -> None:
        nonlocal now
        start, parts = now, []
        for level in LEVELS_S[number]:
            taken = []
            for _ in range(calls):
                taken.append(level * slowness(now, rng) * (1 + noise * abs(rng.normal())))
                now += taken[-1]
            parts.append(np.array(taken))
        turns[number].append(Slice(encoder=parts[0], decoder=parts[1], at=(start + now) / 2))

    turn(REFERENCE)
    for _ in range(rounds):
        for number in rng.permutation([number for number in LEVELS_S if number != REFERENCE]):
            turn(int(number))
        turn(REFERENCE)
    return turns, turns.pop(REFERENCE)


def errors(slowness: Slowness, *, seed: int = 0) -> np.ndarray:
    subjects, reference = play(slowness, seed=seed)
    calls, steady = steady_calls(subjects, reference)
    rng = np.random.default_rng(0)
    return np.array(
        [
            estimate(calls[k], steady, rng=rng).full / (sum(LEVELS_S[k]) / sum(LEVELS_S[REFERENCE]))
            - 1
            for k in subjects
        ]
    )


MACHINES: dict[str, Slowness] = {
    "quiet": lambda now, rng: 1.0,
    "drifts": lambda now, rng: 1 + 0.2 * np.sin(now / 9),
    "bursts of some turns": lambda now, rng: 1.8 if now % 6 < 2 else 1.0,
    "a new speed": lambda now, rng: 1.6 if now > 9 else 1.0,
    "bursts of single calls": lambda now, rng: 1.8 if rng.random() < 0.3 else 1.0,
}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("seed", range(3))
def test_the_true_ratio_is_found(machine: str, seed: int) -> None:
    assert np.abs(errors(MACHINES[machine], seed=seed)).max() < 0.015


def test_calls_are_given_at_the_best_speed_of_the_machine() -> None:
    subjects, reference = play(MACHINES["a new speed"], noise=0.0)
    calls, steady = steady_calls(subjects, reference)
    assert steady.median_ms == pytest.approx(60)
    assert calls[1].encoder_ms == pytest.approx(100)
    assert calls[1].decoder_ms == pytest.approx(10)
    assert calls[1].wander == pytest.approx(0.6)
    assert {round(slowness, 6) for slowness in steady.slowness} == {1.0, 1.6}


def test_the_interval_covers_the_truth_mostly() -> None:
    hits = []
    for seed in range(25):
        subjects, reference = play(MACHINES["drifts"], noise=0.02, seed=seed)
        calls, steady = steady_calls(subjects, reference)
        rng = np.random.default_rng(seed)
        for number in subjects:
            found = estimate(calls[number], steady, rng=rng, resamples=200)
            truth = sum(LEVELS_S[number]) / sum(LEVELS_S[REFERENCE])
            hits.append(found.low <= truth <= found.high)
    assert np.mean(hits) > 0.75


def test_the_interval_narrows_with_the_rounds() -> None:
    widths = []
    for rounds in (5, 40):
        subjects, reference = play(MACHINES["quiet"], rounds=rounds, noise=0.05)
        calls, steady = steady_calls(subjects, reference)
        found = estimate(calls[1], steady, rng=np.random.default_rng(0))
        widths.append(found.relative_half_width)
    assert widths[1] < widths[0] / 2


def test_halves_that_do_not_agree_are_told() -> None:
    subjects, reference = play(MACHINES["quiet"])
    changed = [
        Slice(turn.encoder * (1.3 if place >= 5 else 1.0), turn.decoder, turn.at)
        for place, turn in enumerate(subjects[1])
    ]
    calls, steady = steady_calls({**subjects, 1: changed}, reference)
    rng = np.random.default_rng(0)
    assert estimate(calls[1], steady, rng=rng).disagreement == pytest.approx(0.27, abs=0.04)
    assert estimate(calls[2], steady, rng=rng).disagreement < 0.02


def test_more_calls_in_a_turn_do_not_make_a_model_look_faster() -> None:
    few, many = [], []
    for seed in range(80):
        rng = np.random.default_rng(seed)

        def turns(count: int, rng: np.random.Generator = rng) -> list[Slice]:
            return [
                Slice(0.1 * np.exp(0.05 * rng.normal(size=count)), np.array([1e-6]), float(place))
                for place in range(6)
            ]

        calls, _ = steady_calls({0: turns(1), 1: turns(5)}, turns(5))
        few.append(calls[0].encoder_ms)
        many.append(calls[1].encoder_ms)
    assert np.mean(few) == pytest.approx(np.mean(many), rel=0.012)


@settings(max_examples=15)
@given(st.floats(0.01, 100), st.integers(1, 4), st.integers(1, 5))
def test_the_unit_does_not_matter_and_one_round_is_enough(
    factor: float, rounds: int, calls: int
) -> None:
    subjects, reference = play(MACHINES["quiet"], rounds=rounds, calls=calls)
    scaled = {
        number: [Slice(t.encoder * factor, t.decoder * factor, t.at) for t in turns]
        for number, turns in {**subjects, REFERENCE: reference}.items()
    }
    found = []
    for group, edges in (
        (subjects, reference),
        ({n: t for n, t in scaled.items() if n != REFERENCE}, scaled[REFERENCE]),
    ):
        steady, of_reference = steady_calls(group, edges)
        rng = np.random.default_rng(0)
        found.append([estimate(steady[n], of_reference, rng=rng, resamples=50) for n in group])
    for one, other in zip(*found, strict=True):
        assert other.full == pytest.approx(one.full)
        assert other.low == pytest.approx(one.low)
        assert one.low <= one.full <= one.high
