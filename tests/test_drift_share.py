"""How much of the drift subnets take, found again in profiles that were made by a known law."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsearch.drift_share import CORRECTED, FULL, corrected_by, drift_share
from hwsearch.profiles import ProfileStore
from hwsearch.records import Drift, LayerConfig, Measurement, SubnetConfig, Target

TARGET = Target(device="cpu", device_name="Fake", runtime="onnxruntime", runtime_version="1.30.0")
ANCHOR_MS = 10.0
GROUP = 8


def measured(number, *, slowness, share, noise=0.0, repeat=0, session="s", **changes):
    """A subnet that really takes `number` + 1 ms, as a session would record it."""
    subnet = SubnetConfig(
        resolution=64, layers=(LayerConfig(index=0, mlp_width=number + 1, heads=1),)
    )
    raw_ms = (number + 1) * slowness**share * np.exp(noise)
    corrected = float(raw_ms / slowness)
    return Measurement(
        supernet_id="fake",
        subnet_id=subnet.id,
        subnet=subnet,
        target=TARGET,
        session_id=session,
        repeat=repeat,
        encoder_ms=0.8 * corrected,
        decoder_ms=0.2 * corrected,
        low_ms=0.99 * corrected,
        high_ms=1.01 * corrected,
        drift=Drift(around_ms=ANCHOR_MS * slowness, anchor_ms=ANCHOR_MS),
        **changes,
    )


def profile(share, *, seed=0, groups=6, drift=0.05, scatter=0.01):
    """Each group in two sessions, each session at a speed of its own."""
    rng = np.random.default_rng(seed)
    rows = []
    for repeat in (0, 1):
        for group in range(groups):
            slowness = float(np.exp(drift * rng.standard_normal()))
            for number in range(GROUP * group, GROUP * (group + 1)):
                noise = scatter * rng.standard_normal()
                session = f"{repeat}-{group}"
                rows.append(
                    measured(
                        number,
                        slowness=slowness,
                        share=share,
                        noise=noise,
                        repeat=repeat,
                        session=session,
                    )
                )
    return rows


@settings(deadline=None, max_examples=20)
@given(share=st.floats(0.4, 1.6), seed=st.integers(0, 2**32 - 1))
def test_the_share_is_found_where_the_machine_changed_between_the_repeats(share, seed):
    found = drift_share(profile(share, seed=seed, groups=8))
    assert abs(found - share) < 0.15 + 0.2 * abs(share - FULL)  # the prior draws it towards 1


def test_a_reference_that_is_slow_all_by_itself_is_not_followed():
    assert drift_share(profile(0.0, groups=20, drift=0.2)) < 0.1


def test_a_few_repeats_at_almost_one_speed_tell_next_to_nothing():
    """Two subnets in one session, which by chance differ just as the reference did."""
    rows = [
        measured(number, slowness=1 + 0.006 * repeat, share=0.0, repeat=repeat, session=f"{repeat}")
        for repeat in (0, 1)
        for number in (0, 1)
    ]
    assert drift_share(rows) == pytest.approx(FULL, abs=0.05)


def test_without_repeats_all_of_the_drift_is_taken():
    assert drift_share([]) == FULL
    assert drift_share(profile(0.5)[: 6 * GROUP]) == FULL


@pytest.mark.parametrize("changes", [{"drifted": True}, {"repeat": 0}])
def test_what_is_marked_or_measured_again_does_not_count(changes):
    """Measurements of a law of their own: left out, or replaced by the later ones of repeat 0."""
    wrong = [row.model_copy(update=changes) for row in profile(1.6, seed=1) if row.repeat]
    assert drift_share([*wrong, *profile(0.6)]) == drift_share(profile(0.6))


def test_the_corrected_latency_is_the_true_one_at_the_right_share():
    row = measured(6, slowness=1.3, share=0.7)
    assert row.latency_ms() < 0.95 * 7
    right = corrected_by(row, 0.7)
    assert right.latency_ms() == pytest.approx(7)
    for name in CORRECTED:
        assert getattr(right, name) / getattr(row, name) == pytest.approx(7 / row.latency_ms())
    assert corrected_by(row, FULL) == row


def test_a_failure_stays_as_it_is():
    row = measured(0, slowness=1.3, share=1.0)
    failed = row.model_copy(update=dict.fromkeys(CORRECTED) | {"drift": None, "error": "crash"})
    assert corrected_by(failed, 0.5) == failed


def test_a_profile_is_read_by_its_share_and_stored_without(tmp_path):
    store = ProfileStore(tmp_path, TARGET)
    rows = profile(0.6, scatter=0.001)
    for row in rows:
        store.append(row)
    found = store.read("fake")
    assert found.drift_share == drift_share(rows) < 0.8
    lines = store.measurements_file("fake").read_text().splitlines()
    assert [Measurement.from_json(line) for line in lines] == rows
    _, latencies = found.latencies()
    errors = np.abs(np.array(latencies) / np.arange(1, len(latencies) + 1) - 1)
    _, plain = type(found)(tuple(rows)).latencies()
    assert errors.mean() < 0.5 * np.abs(np.array(plain) / np.arange(1, len(plain) + 1) - 1).mean()
