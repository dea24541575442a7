"""A profile is read without the errors of its sessions, which are learnt once and kept."""

import numpy as np
import pytest
from profile_rows import ANCHOR_MS, TARGET, expected_ms, profile_row, random_profile

from hwsearch.drift_share import CORRECTED
from hwsearch.predictor.sessions import learn_session_errors
from hwsearch.profiles import ProfileStore, ReferenceAnchor
from hwsearch.records import Measurement
from hwsearch.session_errors import freed_of


def profile():
    rows, _ = random_profile(0, common=0.02, scatter=0.01)
    return rows


def test_all_that_hangs_on_the_reference_is_freed_and_only_once():
    row = profile_row(6, np.exp(0.1))
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
    expected = expected_ms(rows)
    return lambda profile: learn_session_errors(profile.measurements, expected)


def test_a_profile_is_read_without_the_errors_that_were_learnt(store):
    rows = profile()
    learn = stored(store, rows)
    found = store.learn_corrections("fake", learn).measurements
    errors = learn_session_errors(rows, expected_ms(rows))
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
    rows = profile()
    chosen = [row.model_copy(update={"drawn": row.session_id in {"0", "1", "2"}}) for row in rows]
    older = [row for row in rows if row.session_id == "3"]  # of a version that did not tell
    others = [row for row in chosen if row.session_id != "3"]
    learn = stored(store, [*others, *older])
    found = store.learn_corrections("fake", learn).measurements
    freed = {row.session_id for row in found if row.drift.session_correction}
    assert freed == {"0", "1", "2", "3"}


def test_learning_that_was_interrupted_changes_nothing_and_is_done_again(store):
    rows = profile()
    learn = stored(store, rows)
    before = store.learn_corrections("fake", learn)
    store.append(profile_row(500, 1.0, session="new"))

    def interrupted(profile):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.learn_corrections("fake", interrupted)
    assert store.read("fake").measurements[:-1] == before.measurements
    other = {"0": {row.subnet_id: 0.5 for row in rows if row.session_id == "0"}}
    after = store.learn_corrections("fake", lambda profile: other)
    assert after.measurements[:-1] != before.measurements


def test_what_was_learnt_of_the_same_profile_is_not_learnt_again(store):
    rows = profile()
    learn = stored(store, rows)
    before = store.learn_corrections("fake", learn)
    assert store.learn_corrections("fake", lambda profile: pytest.fail("learnt again")) == before
