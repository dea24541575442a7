"""What a profile learns of its sessions' errors; latencies come from a law."""

import numpy as np
import pytest
from tiny import tiny_supernet

from hwsearch.costs import encoder_macs
from hwsearch.predictor import crossvalidation
from hwsearch.profiles import ProfileStore, ReferenceAnchor
from hwsearch.records import Drift, Measurement, Target
from hwsearch.workflow import profile
from hwsearch.workflow.adaptive import Goal, fitted
from hwsearch.workflow.profile import profile_supernet
from hwsearch.workflow.timing import Stopwatch
from hwsearch.workflow.workspace import Workspace

TARGET = Target(
    device="cpu", device_name="test", runtime="onnxruntime", runtime_version="1", threads=1
)
SUPERNET = tiny_supernet()
GROUP, COMMON, SCATTER = 6, 0.05, 0.005


def law_ms(config):
    return 1 + encoder_macs(SUPERNET.geometry, config) / 1e6 + 0.3 * config.depth


@pytest.fixture(autouse=True)
def sessions(monkeypatch: pytest.MonkeyPatch):
    """Ids of sessions, each of up to `GROUP` subnets and with an error that all of them share."""
    monkeypatch.setattr(crossvalidation, "REPEATS", 1)
    rng, ids = np.random.default_rng(0), []

    def measure_all(stopwatch, configs, *, repeat=None, drawn=False):
        stopwatch.store.agree_on_reference(
            SUPERNET.id, ReferenceAnchor(subnet_id="r", anchor_ms=1.0)
        )
        rows = []
        for place, config in enumerate(configs):
            if place % GROUP == 0:
                ids.append(f"session {len(ids)}")
                error = COMMON * rng.standard_normal()
            rows.append(
                Measurement(
                    supernet_id=SUPERNET.id,
                    subnet_id=config.id,
                    subnet=config,
                    target=TARGET,
                    session_id=ids[-1],
                    repeat=repeat or 0,
                    drawn=drawn,
                    encoder_ms=law_ms(config) * np.exp(error + SCATTER * rng.standard_normal()),
                    decoder_ms=0.01,
                    drift=Drift(around_ms=1.0, anchor_ms=1.0, reference_id="r"),
                )
            )
            stopwatch.store.append(rows[-1])
        return rows

    monkeypatch.setattr(Stopwatch, "measure_all", measure_all)
    return ids


def profiled(folder, *, samples=48, **options):
    profile_supernet(
        SUPERNET, target=TARGET, workspace=Workspace(folder), samples=samples, **options
    )
    return ProfileStore(Workspace(folder).profiles, TARGET).read(SUPERNET.id)


def error_of(row, *, as_measured=False):
    corrected = row.drift.session_correction if as_measured else 0.0
    return np.log(row.encoder_ms / law_ms(row.subnet)) - corrected


def test_a_profile_is_freed_of_what_its_sessions_have_in_common(tmp_path):
    rows = profiled(tmp_path).measurements
    before = np.std([error_of(row, as_measured=True) for row in rows])
    after = np.std([error_of(row) for row in rows])
    assert before > 0.7 * COMMON
    assert after < 0.6 * before


def test_what_was_chosen_to_teach_a_predictor_does_not_count_as_chance(tmp_path, sessions):
    goal = Goal(error_percent=0.01, max_samples=48 + 2 * GROUP)
    rows = profiled(tmp_path, goal=goal).measurements
    sample = {row.subnet_id for row in rows[:48]}
    chosen = [row for row in rows if row.subnet_id not in sample]
    assert len({row.subnet_id for row in chosen}) > GROUP
    assert all(row.drift.session_correction == 0 for row in chosen)
    assert any(row.drift.session_correction for row in rows)


def test_the_error_that_it_stops_at_is_that_of_the_latencies_it_leaves(tmp_path):
    summary = profile_supernet(
        SUPERNET,
        target=TARGET,
        workspace=Workspace(tmp_path),
        samples=48,
        goal=Goal(error_percent=50, max_samples=60),
    )
    left = ProfileStore(Workspace(tmp_path).profiles, TARGET).read(SUPERNET.id)
    assert any(row.drift.session_correction for row in left.measurements)
    assert summary.stopped_by == "asked error"
    assert summary.error_percent == fitted(SUPERNET, TARGET, left).cv_.mape_percent


def test_what_was_learnt_is_kept_when_another_sample_is_measured(tmp_path):
    before = {row.session_id for row in profiled(tmp_path).measurements}
    rows = profiled(tmp_path, samples=24, seed=1).measurements
    assert {row.session_id for row in rows} > before
    freed = {row.session_id for row in rows if row.drift.session_correction}
    assert freed >= before
    assert len(freed) > len(before)


def test_subnets_that_are_named_are_not_put_together_by_chance(tmp_path):
    before = {row.session_id for row in profiled(tmp_path).measurements}
    named = [SUPERNET.space.sample(np.random.default_rng(seed)) for seed in range(2 * GROUP)]
    rows = profiled(tmp_path, subnets=named).measurements
    assert all(row.drift.session_correction == 0 for row in rows if row.session_id not in before)
    assert {row.session_id for row in rows} > before


def test_a_run_that_was_interrupted_as_it_learnt_learns_when_it_is_run_again(
    tmp_path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        patch.setattr(profile, "fitted", interrupted)
        with pytest.raises(KeyboardInterrupt):
            profiled(tmp_path)
    count = len(ProfileStore(Workspace(tmp_path).profiles, TARGET).read(SUPERNET.id).measurements)
    rows = profiled(tmp_path).measurements
    assert len(rows) == count
    assert any(row.drift.session_correction for row in rows)


def interrupted(*_args):
    raise KeyboardInterrupt
