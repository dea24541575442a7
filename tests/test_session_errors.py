"""Errors that a session's subnets share, found again in profiles that were made by a known law."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from profile_rows import ANCHOR_MS, TARGET, profile_row

from hwsearch.drift_share import CORRECTED
from hwsearch.profiles import ProfileStore, ReferenceAnchor
from hwsearch.records import Measurement
from hwsearch.session_errors import MIN_SESSIONS, freed_of, learn_session_errors

COMMON, SCATTER = 0.02, 0.01


def measured(number, error, *, session="s", **more):
    """A subnet that really takes `number` + 1 ms, and was measured `error` longer, as a share."""
    return profile_row(number, np.exp(error), session=session, **more)


def profile(seed, *, sessions=12, common=COMMON, scatter=SCATTER, sizes=(8,)):
    """Sessions of subnets that chance put together, and what is common to each of them."""
    rng = np.random.default_rng(seed)
    errors = common * rng.standard_normal(sessions)
    rows, number = [], 0
    for session, error in enumerate(errors):
        for _ in range(sizes[session % len(sizes)]):
            own = error + scatter * rng.standard_normal()
            rows.append(measured(number, own, session=str(session)))
            number += 1
    return rows, errors


def truth(rows):
    return {row.subnet_id: float(row.subnet.layers[0].mlp_width) for row in rows}


def errors_of(rows):
    return np.array([np.log(row.latency_ms() / row.subnet.layers[0].mlp_width) for row in rows])


def test_latencies_are_freed_of_what_their_session_has_in_common():
    before, after = [], []
    for seed in range(30):
        rows, _ = profile(seed)
        learnt = learn_session_errors(rows, truth(rows))
        before.append(errors_of(rows).std())
        after.append(errors_of([freed_of(row, learnt) for row in rows]).std())
    assert np.mean(before) == pytest.approx(np.hypot(COMMON, SCATTER), rel=0.1)
    assert SCATTER < np.mean(after) < 1.12 * SCATTER


def test_a_session_is_believed_as_far_as_its_subnets_agree():
    """The slope of the true errors on those learnt is one: neither too much nor too little."""
    learnt, true = [], []
    for seed in range(10):
        rows, errors = profile(seed, sessions=100, common=0.01, scatter=0.03, sizes=(3, 12))
        found = learn_session_errors(rows, truth(rows))
        for session, error in enumerate(errors):
            learnt += found.get(str(session), {}).values()
            true += [error] * len(found.get(str(session), {}))
    assert np.polyfit(learnt, true, 1)[0] == pytest.approx(1.0, abs=0.1)
    assert np.corrcoef(learnt, true)[0, 1] > 0.5


def test_components_are_those_of_an_analysis_of_variance():
    """Two subnets a session, of which each tells the other's error: means squares by hand."""
    errors = {"a": (0.02, 0.04), "b": (-0.01, -0.03), "c": (0.0, 0.01)}
    rows = [
        measured(2 * number + place, error, session=session)
        for number, (session, pair) in enumerate(errors.items())
        for place, error in enumerate(pair)
    ]
    table = np.array([*errors.values()])
    mean, within = table.mean(), ((table - table.mean(1, keepdims=True)) ** 2).sum() / 3
    between = (2 * ((table.mean(1) - mean) ** 2).sum() / 2 - within) / 2
    found = learn_session_errors(rows, truth(rows))
    told = [row for session in errors for row in found[session].values()]
    expected = (table[:, ::-1] - mean) * between / (between + within)
    assert told == pytest.approx(expected.ravel(), abs=1e-6)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), own=st.floats(-0.5, 0.5))
def test_no_subnet_tells_of_itself(seed: int, own: float):
    """However wrong a measurement is, it is corrected by what the others show.

    How far sessions differ is told by all: the direction of the correction has to stay.
    """
    rows, _ = profile(seed)
    odd = rows[3].model_copy(update={"encoder_ms": rows[3].encoder_ms * float(np.exp(own))})
    others = np.mean(errors_of([*rows[:3], *rows[4:8]])) - np.mean(
        errors_of([*rows[:3], odd, *rows[4:]])
    )
    found = learn_session_errors([*rows[:3], odd, *rows[4:]], truth(rows))
    told = found.get("0", {}).get(odd.subnet_id, 0.0)
    assert abs(told) <= abs(others) + 1e-6
    assert told * others >= 0


@pytest.mark.parametrize("sessions", [MIN_SESSIONS - 1, MIN_SESSIONS])
def test_a_few_sessions_do_not_tell_how_much_they_differ(sessions: int):
    rows, _ = profile(0, sessions=sessions, common=0.1)
    assert bool(learn_session_errors(rows, truth(rows))) == (sessions == MIN_SESSIONS)


def test_sessions_that_are_alike_are_left_as_they_are():
    rows = [
        measured(4 * session + place, error, session=str(session))
        for session in range(5)
        for place, error in enumerate((-0.01, 0.0, 0.0, 0.01))
    ]
    assert learn_session_errors(rows, truth(rows)) == {}


def test_what_failed_is_marked_or_was_not_expected_tells_nothing():
    rows, _ = profile(0)
    nothing = dict.fromkeys(CORRECTED) | {"drift": None, "error": "crash"}
    failed = measured(200, 0.5, session="0").model_copy(update=nothing)
    marked = measured(201, 0.5, session="0", drifted=True)
    unknown = measured(202, 0.5, session="0")
    expected = truth([*rows, failed, marked])
    assert learn_session_errors([*rows, failed, marked, unknown], expected) == (
        learn_session_errors(rows, expected)
    )


def test_all_that_hangs_on_the_reference_is_freed_and_only_once():
    row = measured(6, 0.1)
    errors = {"s": {row.subnet_id: 0.1}}
    once = freed_of(row, errors)
    assert once.latency_ms() == pytest.approx(7.0)
    for name in CORRECTED:
        assert getattr(once, name) / getattr(row, name) == pytest.approx(np.exp(-0.1))
    assert freed_of(once, errors) == once
    assert freed_of(once, {}).latency_ms() == pytest.approx(row.latency_ms())
    other = row.model_copy(update={"session_id": "another"})
    assert freed_of(other, errors) == other


@pytest.fixture
def store(tmp_path):
    store = ProfileStore(tmp_path, TARGET)
    store.agree_on_reference("fake", ReferenceAnchor(subnet_id="r", anchor_ms=ANCHOR_MS))
    return store


def stored(store, rows):
    for row in rows:
        store.append(row)
    return truth(rows)


def test_a_profile_is_read_without_the_errors_that_were_learnt(store):
    rows, _ = profile(0)
    expected = stored(store, rows)
    found = store.learn_corrections("fake", lambda profile: expected).measurements
    errors = learn_session_errors(rows, expected)
    assert found == store.read("fake").measurements
    assert found == tuple(freed_of(row, errors) for row in rows)
    assert found != tuple(rows)
    for row in found:  # what a search hands on
        store.append(row.model_copy(update={"repeat": 1}))
    lines = store.measurements_file("fake").read_text().splitlines()
    written = [Measurement.from_json(line) for line in lines]
    assert all(row.drift.session_correction == 0 for row in written)
    assert [row.latency_ms() for row in written] == pytest.approx(
        [row.latency_ms() for row in (*rows, *rows)]
    )


def test_only_sessions_that_chance_put_together_are_learnt_of(store):
    rows, _ = profile(0)
    chosen = [row.model_copy(update={"drawn": row.session_id in {"0", "1", "2"}}) for row in rows]
    older = [row for row in rows if row.session_id == "3"]  # of a version that did not tell
    others = [row for row in chosen if row.session_id != "3"]
    expected = stored(store, [*others, *older])
    found = store.learn_corrections("fake", lambda profile: expected).measurements
    freed = {row.session_id for row in found if row.drift.session_correction}
    assert freed == {"0", "1", "2", "3"}


def test_learning_that_was_interrupted_changes_nothing_and_is_done_again(store):
    rows, _ = profile(0)
    expected = stored(store, rows)
    before = store.learn_corrections("fake", lambda profile: expected)
    store.append(measured(500, 0.0, session="new"))

    def interrupted(profile):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.learn_corrections("fake", interrupted)
    assert store.read("fake").measurements[:-1] == before.measurements
    moved = {name: 1.1 * ms for name, ms in expected.items()} | {rows[0].subnet_id: 1.0}
    after = store.learn_corrections("fake", lambda profile: moved)
    assert after.measurements[:-1] != before.measurements


def test_what_was_learnt_of_the_same_profile_is_not_learnt_again(store):
    rows, _ = profile(0)
    expected = stored(store, rows)
    before = store.learn_corrections("fake", lambda profile: expected)
    assert store.learn_corrections("fake", lambda profile: pytest.fail("learnt again")) == before
