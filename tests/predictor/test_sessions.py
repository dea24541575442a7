"""Errors that a session's subnets share, found again in profiles that were made by a known law."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from profile_rows import expected_ms, profile_row, random_profile

from hwsearch.drift_share import CORRECTED
from hwsearch.predictor.sessions import (
    MIN_SESSIONS,
    MOST_ROWS,
    _parts,
    learn_session_errors,
    told_by_others,
)
from hwsearch.session_errors import freed_of

COMMON, SCATTER = 0.02, 0.01
RESOLUTIONS = (64, 128, 256)


def errors_of(rows):
    expected = expected_ms(rows)
    return np.array([np.log(row.latency_ms() / expected[row.subnet_id]) for row in rows])


def freed(rows, expected=None):
    learnt = learn_session_errors(rows, expected or expected_ms(rows))
    return [freed_of(row, learnt) for row in rows]


def bent_profile(seed, bend, *, sessions=12, in_all=0.0):
    """Sessions that slow their subnets down the more, or the less, the larger these are.

    `bend` is the standard deviation of their slopes, in errors at the ends of the sizes, `in_all`
    one slope for all sessions.
    """
    rng = np.random.default_rng(seed)
    numbers = rng.permutation(8 * sessions)
    rows = []
    for session in range(sessions):
        slope = in_all + bend * rng.standard_normal()
        for number in numbers[8 * session : 8 * session + 8].tolist():
            size = 2 * np.log1p(number) / np.log(8 * sessions) - 1
            error = slope * size + SCATTER * rng.standard_normal()
            rows.append(profile_row(number, np.exp(error), session=str(session)))
    return rows


def test_latencies_are_freed_of_what_their_session_has_in_common():
    before, after = [], []
    for seed in range(15):
        rows, _ = random_profile(seed, common=COMMON, scatter=SCATTER)
        before.append(errors_of(rows).std())
        after.append(errors_of(freed(rows)).std())
    assert np.mean(before) == pytest.approx(np.hypot(COMMON, SCATTER), rel=0.15)
    assert np.mean(after) < 1.15 * SCATTER


def test_latencies_are_freed_of_what_a_session_does_to_subnets_of_a_size():
    before, after = [], []
    for seed in range(15):
        rows = bent_profile(seed, 0.03)
        before.append(errors_of(rows).std())
        after.append(errors_of(freed(rows)).std())
    assert np.mean(after) < 0.8 * np.mean(before)


def test_what_is_expected_wrongly_in_all_sessions_is_no_session_s_error():
    """A predictor that errs by size is told by what it errs by: latencies have to stay."""
    moved, kept = [], []
    for seed in range(15):
        rows = bent_profile(seed, 0.0, in_all=0.03)
        numbers = np.array([row.subnet.layers[0].mlp_width for row in rows])
        slope = np.polyfit(np.log(numbers), errors_of(rows), 1)[0]
        kept.append(np.polyfit(np.log(numbers), errors_of(freed(rows)), 1)[0] / slope)
        moved.append((errors_of(freed(rows)) - errors_of(rows)).std())
    assert np.mean(kept) == pytest.approx(1.0, abs=0.1)
    assert np.mean(moved) < 0.5 * SCATTER


def test_a_session_is_believed_as_far_as_its_subnets_agree():
    """The slope of the true errors on those learnt is one: neither too much nor too little."""
    learnt, true = [], []
    for seed in range(5):
        rows, errors = random_profile(seed, sessions=40, common=0.01, scatter=0.03, sizes=(3, 12))
        found = learn_session_errors(rows, expected_ms(rows))
        for session, error in enumerate(errors):
            learnt += found.get(str(session), {}).values()
            true += [error] * len(found.get(str(session), {}))
    assert np.polyfit(learnt, true, 1)[0] == pytest.approx(1.0, abs=0.15)
    assert np.corrcoef(learnt, true)[0, 1] > 0.5


def test_corrections_lie_on_the_side_that_the_others_of_a_session_do():
    rows, _ = random_profile(3, common=COMMON, scatter=SCATTER)
    found = learn_session_errors(rows, expected_ms(rows))
    for session in map(str, range(12)):
        own = [row for row in rows if row.session_id == session]
        told = np.array([found[session][row.subnet_id] for row in own])
        errors = errors_of(own)
        others = (errors.sum() - errors) / (len(errors) - 1)
        assert np.sign(told).tolist() == np.sign(others - errors_of(rows).mean()).tolist()
        assert (np.abs(told) < 1.3 * np.abs(errors).max()).all()


@settings(deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(2, 12))
def test_what_the_others_tell_is_found_without_taking_each_out(seed: int, n: int):
    """Beside the posterior of the others alone, by a solve for each case."""
    rng = np.random.default_rng(seed)
    root, noise = rng.standard_normal((n, n)), rng.uniform(0.1, 2.0)
    part, values = root @ root.T, rng.standard_normal(n)
    whole = part + 0.5 * np.ones((n, n)) + noise * np.eye(n)
    expected = []
    for case in range(n):
        others = np.arange(n) != case
        weights = np.linalg.solve(whole[np.ix_(others, others)], values[others])
        expected.append(part[case, others] @ weights)
    told = told_by_others(part, np.linalg.inv(whole), values)
    assert told == pytest.approx(np.array(expected), rel=1e-6, abs=1e-8)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 1000), own=st.floats(-0.02, 0.02))
def test_a_subnet_hardly_moves_its_own_correction(seed: int, own: float):
    """It has a part in the mean and the variances that all are judged by, which are clear here."""
    rows, _ = random_profile(seed, common=COMMON, scatter=SCATTER)

    def told(error: float) -> float:
        odd = rows[3].model_copy(update={"encoder_ms": rows[3].encoder_ms * float(np.exp(error))})
        changed = [*rows[:3], odd, *rows[4:]]
        found = learn_session_errors(changed, expected_ms(rows))
        return found.get("0", {}).get(odd.subnet_id, 0.0)

    assert abs(told(own) - told(0.0)) < 0.25 * abs(own) + 1e-4


@pytest.mark.parametrize("sessions", [MIN_SESSIONS - 1, MIN_SESSIONS])
def test_a_few_sessions_do_not_tell_how_much_they_differ(sessions: int):
    rows, _ = random_profile(0, sessions=sessions, common=0.1, scatter=SCATTER)
    assert bool(learn_session_errors(rows, expected_ms(rows))) == (sessions == MIN_SESSIONS)


def test_sessions_that_do_not_differ_seldom_have_errors():
    told = 0
    for seed in range(20):
        rows, _ = random_profile(seed, common=0.0, scatter=SCATTER)
        told += bool(learn_session_errors(rows, expected_ms(rows)))
    assert told <= 3


def test_what_a_few_sessions_tell_is_hardly_what_a_predictor_errs_by():
    """Three sessions, and a predictor that errs by as much as a measurement at the ends."""
    moved = []
    for seed in range(20):
        rows = bent_profile(seed, 0.0, sessions=MIN_SESSIONS, in_all=0.01)
        moved.append((errors_of(freed(rows)) - errors_of(rows)).std())
    assert np.mean(moved) < 0.3 * SCATTER


def test_errors_of_nothing_are_no_session_s():
    rows = [profile_row(n, 1.0, session=str(n % 4)) for n in range(16)]
    assert learn_session_errors(rows, expected_ms(rows)) == {}


@pytest.mark.parametrize("rows", [[500] * 5, [8] * 60 + [2] * 60, [200] * 8, [3] * 171])
def test_parts_are_about_as_large_as_is_learnt_from_at_once(rows):
    sessions = [[profile_row(0, 1.0)] * count for count in rows]
    parts = _parts(sessions)
    assert [session for part in parts for session in part] == sessions
    assert min(map(len, parts)) >= MIN_SESSIONS
    # A part is closed when it is full, unless it or what is left has too few sessions.
    at_least = MIN_SESSIONS * max(rows)
    assert max(sum(map(len, part[:-MIN_SESSIONS])) for part in parts) <= max(MOST_ROWS, at_least)


@pytest.mark.parametrize("in_each", [3, 40])
@pytest.mark.parametrize("resolutions", [(64,), RESOLUTIONS])
def test_more_rows_than_are_learnt_from_at_once_are_all_learnt(resolutions, in_each):
    rng = np.random.default_rng(0)
    rows = [
        profile_row(
            number,
            np.exp(0.05 * (-1) ** session + 0.001 * rng.standard_normal()),
            session=str(session),
            resolution=resolutions[number % len(resolutions)],
        )
        for session in range(MOST_ROWS // in_each + 1)
        for number in range(in_each * session, in_each * (session + 1))
    ]
    assert len(rows) > MOST_ROWS
    assert np.abs(errors_of(freed(rows))).max() < 0.02


def test_what_failed_is_marked_chosen_or_was_not_expected_tells_nothing():
    rows, _ = random_profile(0, common=COMMON, scatter=SCATTER)
    nothing = dict.fromkeys(CORRECTED) | {"drift": None, "error": "crash"}
    failed = profile_row(200, 2.0, session="0").model_copy(update=nothing)
    marked = profile_row(201, 2.0, session="0", drifted=True)
    chosen = profile_row(203, 2.0, session="0", drawn=False)
    unknown = profile_row(202, 2.0, session="0")
    expected = expected_ms([*rows, failed, marked, chosen])
    assert learn_session_errors([*rows, failed, marked, chosen, unknown], expected) == (
        learn_session_errors(rows, expected)
    )
