"""How much of the drift subnets take, found again in profiles that were made by a known law."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from profile_rows import ANCHOR_MS, TARGET, profile_row

from hwsearch.drift_share import (
    ALL,
    CORRECTED,
    LEAST,
    MIN_SESSIONS,
    MOST,
    DriftShare,
    corrected_by,
    learn_drift_share,
    with_group_ms,
)
from hwsearch.errors import ProfileError
from hwsearch.profiles import ProfileStore, ReferenceAnchor
from hwsearch.records import Drift, Measurement

GROUP = 8


def measured(
    number,
    *,
    slowness,
    share,
    error=0.0,
    repeat=0,
    session="s",
    reference_error=0.0,
    resolution=64,
):
    """A subnet that really takes `number` + 1 ms, as a session would record it."""
    seen = slowness * float(np.exp(reference_error))
    return profile_row(
        number,
        slowness**share * np.exp(error) / seen,
        around=1.1 * seen,
        group=seen,
        resolution=resolution,
        session=session,
        repeat=repeat,
    )


def profile(share, *, seed=0, groups=8, drift=0.05, common=0.005, scatter=0.005, reference=0.0):
    """Each group in two sessions, each at a speed of its own and with an error of its own."""
    rng = np.random.default_rng(seed)
    rows = []
    for repeat in (0, 1):
        for group in range(groups):
            slowness = float(np.exp(drift * rng.standard_normal()))
            error, reference_error = rng.standard_normal(2) * (common, reference)
            rows += [
                measured(
                    number,
                    slowness=slowness,
                    share=share,
                    error=error + scatter * rng.standard_normal(),
                    repeat=repeat,
                    session=f"{repeat}-{group}",
                    reference_error=reference_error,
                )
                for number in range(GROUP * group, GROUP * (group + 1))
            ]
    return rows


def mixed_profile(share, by_resolution, *, seed=0, groups=12, common=0.005, scatter=0.005):
    """As `profile`; half of each group has 64 px, half 256 px, around a share at 128 px."""
    rng = np.random.default_rng(seed)
    rows = []
    for repeat in (0, 1):
        for group in range(groups):
            slowness, error = float(np.exp(0.05 * rng.standard_normal())), rng.standard_normal()
            for number in range(GROUP * group, GROUP * (group + 1)):
                resolution = 256 if number % 2 else 64
                rows.append(
                    measured(
                        number,
                        slowness=slowness,
                        share=share + by_resolution * float(np.log(resolution / 128)),
                        error=common * error + scatter * rng.standard_normal(),
                        repeat=repeat,
                        session=f"{repeat}-{group}",
                        resolution=resolution,
                    )
                )
    return rows


def mean_error(rows, share=ALL):
    """Of latencies against the truth, by their logarithms."""
    latencies = [corrected_by(row, share).latency_ms() for row in rows]
    true = [row.subnet.layers[0].mlp_width for row in rows]
    return float(np.abs(np.log(np.array(latencies) / true)).mean())


@settings(deadline=None, max_examples=20)
@given(share=st.floats(0.4, 1.6), seed=st.integers(0, 2**32 - 1))
def test_the_share_is_found_where_the_machine_changed_between_the_repeats(share, seed):
    rows = profile(share, seed=seed, groups=12)
    found = learn_drift_share(rows)
    assert abs(found.share - share) < 0.12 + 0.3 * abs(share - 1)  # the prior draws it towards 1
    assert mean_error(rows, found) < mean_error(rows) + 0.001


@settings(deadline=None, max_examples=20)
@given(by_resolution=st.floats(-0.6, 0.6), seed=st.integers(0, 2**32 - 1))
def test_subnets_of_each_resolution_get_the_share_that_they_take(by_resolution, seed):
    rows = mixed_profile(0.9, by_resolution, seed=seed)
    found = learn_drift_share(rows)
    assert found.resolution == pytest.approx(128)
    assert found.by_resolution == pytest.approx(by_resolution, abs=0.12)
    for resolution in (64, 256):
        expected = 0.9 + by_resolution * float(np.log(resolution / 128))
        assert found.at(resolution) == pytest.approx(expected, abs=0.2)
    plain = DriftShare(share=found.share, reach=found.reach)
    assert mean_error(rows, found) < mean_error(rows, plain) + 0.001


def test_a_single_resolution_tells_nothing_of_others():
    found = learn_drift_share(profile(0.6))
    assert found.by_resolution == 0
    assert found.at(1024) == found.at(64) == found.share


def test_no_share_is_negative_and_none_is_beyond_belief():
    share = DriftShare(
        share=1.0, reach=1.0, by_resolution=2.0, resolution=128, resolutions=(16, 1024)
    )
    assert (share.at(16), share.at(128), share.at(1024)) == (LEAST, 1.0, MOST)


def test_beyond_the_resolutions_that_were_repeated_the_share_is_that_of_the_nearest():
    found = learn_drift_share(mixed_profile(0.9, -0.5))
    assert found.at(64) > found.at(128) > found.at(256)
    assert (found.at(16), found.at(1024)) == (found.at(64), found.at(256))


def test_latencies_of_a_machine_in_another_state_come_out_right():
    found = learn_drift_share(profile(0.6))
    later = [measured(number, slowness=1.1, share=0.6) for number in range(20)]
    assert mean_error(later) > 0.035
    assert mean_error(later, found) < 0.015


def test_a_reference_that_wanders_all_by_itself_is_not_followed():
    rows = profile(1.0, groups=20, drift=0.0, reference=0.03)
    found = learn_drift_share(rows)
    assert found.share < 0.3
    assert mean_error(rows, found) < 0.5 * mean_error(rows)


def test_beyond_what_was_seen_all_of_the_drift_is_taken():
    """What the reference's own error teaches at a quiet machine says nothing of a busy one."""
    found = learn_drift_share(profile(1.0, groups=20, drift=0.0, reference=0.01))
    assert found.reach < 0.1
    busy = [measured(number, slowness=2.0, share=1.0) for number in range(20)]
    assert mean_error(busy, found) <= found.reach


@pytest.mark.parametrize(("sessions", "is_told"), [(MIN_SESSIONS - 1, False), (MIN_SESSIONS, True)])
def test_few_sessions_tell_nothing_for_each_has_an_error_that_its_subnets_share(sessions, is_told):
    assert (learn_drift_share(profile(0.3, groups=sessions)) != ALL) == is_told


def test_many_pairs_of_one_session_count_as_one():
    """A session of many subnets with a great error of its own does not outweigh the others."""
    rows = profile(1.0, groups=6)
    many = [
        measured(
            1000 + number,
            slowness=1 + 0.1 * repeat,
            share=1.0,
            error=-0.05 * repeat,
            repeat=repeat,
            session=f"great {repeat}",
        )
        for repeat in (0, 1)
        for number in range(200)
    ]
    assert abs(learn_drift_share([*rows, *many]).share - 1) < 0.35  # by the pairs it would be 0.5


def test_without_repeats_all_of_the_drift_is_taken():
    assert learn_drift_share([]) == ALL
    assert learn_drift_share([row for row in profile(0.5) if not row.repeat]) == ALL


def test_what_is_marked_or_failed_does_not_count():
    sound = profile(0.6)
    marked = [row.model_copy(update={"drifted": True}) for row in profile(1.6, seed=1)]
    nothing = dict.fromkeys(CORRECTED) | {"drift": None, "error": "crash"}
    failed = [row.model_copy(update=nothing) for row in profile(1.6, seed=2)]
    assert learn_drift_share([*marked, *sound, *failed]) == learn_drift_share(sound)


def test_of_a_repeat_that_was_done_again_the_last_counts():
    wrong = [row for row in profile(1.6, seed=1) if row.repeat]
    sound = profile(0.6)
    assert learn_drift_share([*wrong, *sound]) == learn_drift_share(sound)


def test_the_corrected_latency_is_the_true_one_at_the_right_share():
    row = measured(6, slowness=1.3, share=0.7)
    assert row.latency_ms() < 0.95 * 7
    right = corrected_by(row, DriftShare(share=0.7, reach=1.0))
    assert right.latency_ms() == pytest.approx(7)
    for name in CORRECTED:
        assert getattr(right, name) / getattr(row, name) == pytest.approx(7 / row.latency_ms())


def test_correcting_twice_is_correcting_once():
    row = measured(6, slowness=1.3, share=0.7)
    share = DriftShare(share=0.7, reach=1.0)
    once = corrected_by(row, share)
    assert corrected_by(once, share) == once
    assert corrected_by(once, ALL).latency_ms() == pytest.approx(row.latency_ms())


def test_a_failure_stays_as_it_is():
    row = measured(0, slowness=1.3, share=1.0)
    failed = row.model_copy(update=dict.fromkeys(CORRECTED) | {"drift": None, "error": "crash"})
    assert corrected_by(failed, DriftShare(share=0.5, reach=1.0)) == failed


def test_older_lines_take_the_median_of_their_session():
    def older(around_ms, session):
        row = measured(0, slowness=1.0, share=1.0, session=session)
        return row.model_copy(update={"drift": Drift(around_ms=around_ms, anchor_ms=ANCHOR_MS)})

    newer = measured(0, slowness=1.5, share=1.0, session="b")
    rows = with_group_ms([older(12, "a"), older(11, "a"), older(19, "a"), older(9, "c"), newer])
    assert [row.drift.group_ms for row in rows] == [12, 12, 12, 9, 15]


@pytest.fixture
def store(tmp_path):
    store = ProfileStore(tmp_path, TARGET)
    store.agree_on_reference("fake", ReferenceAnchor(subnet_id="r", anchor_ms=ANCHOR_MS))
    return store


def test_a_profile_is_read_by_the_share_that_was_last_learnt(store):
    rows = profile(0.6)
    for row in rows:
        store.append(row)
    plain = store.read("fake")
    assert plain.measurements == tuple(rows)
    share = store.learn_corrections("fake").drift_share
    assert share == learn_drift_share(rows)
    found = store.read("fake")
    assert found.drift_share == share
    assert found.measurements == tuple(corrected_by(row, share) for row in rows)
    store.append(measured(0, slowness=1.1, share=1.5, repeat=2, session="a search's"))
    assert store.read("fake").drift_share == share
    assert store.learn_corrections("fake").drift_share != share


def test_lines_are_stored_as_corrected_for_all_of_the_drift(store):
    rows = profile(0.6)
    for row in rows:
        store.append(corrected_by(row, DriftShare(share=0.6, reach=1.0)))
    lines = store.measurements_file("fake").read_text().splitlines()
    for line, row in zip(lines, rows, strict=True):
        stored = Measurement.from_json(line)
        assert stored.drift.share_correction == 0
        assert stored.latency_ms() == pytest.approx(row.latency_ms())


def test_joined_lines_of_another_anchor_teach_the_same(store):
    rows = profile(0.6)
    for row in rows:
        other = row.drift.model_copy(update={"anchor_ms": 2 * ANCHOR_MS})
        twice = {name: 2 * getattr(row, name) for name in CORRECTED}
        is_joined = row.session_id.endswith(("0", "3"))
        store.append(row.model_copy(update={**twice, "drift": other}) if is_joined else row)
    assert store.learn_corrections("fake").drift_share.share == pytest.approx(
        learn_drift_share(rows).share
    )


def test_lines_of_two_references_are_refused(store):
    row = measured(0, slowness=1.0, share=1.0)
    store.append(row)
    other = row.drift.model_copy(update={"reference_id": "typical"})
    store.append(row.model_copy(update={"drift": other}))
    with pytest.raises(ProfileError, match="different reference subnets"):
        store.read("fake")
