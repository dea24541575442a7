"""The latency benchmark on a profile whose law is known."""

from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_supernet

from hwsearch.costs import encoder_macs
from hwsearch.errors import ProfileError
from hwsearch.predictor import crossvalidation
from hwsearch.predictor.sessions import learn_session_errors
from hwsearch.profiles import ProfileStore, ReferenceAnchor
from hwsearch.records import Drift, Measurement, SubnetConfig, Target
from latency_study import measured
from latency_study.measured import MeasuredSet

TARGET = Target(
    device="cpu", device_name="test", runtime="onnxruntime", runtime_version="1", threads=1
)
NET = tiny_supernet()


def law_ms(config: SubnetConfig) -> float:
    return 2 + encoder_macs(NET.geometry, config) / 1e6 + 0.5 * config.depth


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("profiles")
    store = ProfileStore(root, TARGET)
    rng = np.random.default_rng(0)
    drawn = dict.fromkeys(NET.space.sample(rng) for _ in range(400))
    for config in list(drawn)[:60]:
        for repeat in (0, 1):
            row = Measurement(
                supernet_id=NET.id,
                subnet_id=config.id,
                subnet=config,
                target=TARGET,
                session_id="s",
                repeat=repeat,
                encoder_ms=law_ms(config) * float(np.exp(0.01 * rng.standard_normal())),
                decoder_ms=1.0,
            )
            store.append(row)
    return root


@pytest.fixture
def data(profile: Path, monkeypatch: pytest.MonkeyPatch) -> MeasuredSet:
    monkeypatch.setattr(measured, "DRAWS", 1)
    monkeypatch.setattr(measured, "DEFAULT_DRAWS", 2)
    monkeypatch.setattr(measured, "LEARNING_START", 12)
    monkeypatch.setattr(crossvalidation, "REPEATS", 1)
    (found,) = measured.read_profiles(profile, NET.geometry)
    return found


def test_a_profile_comes_with_its_noise_floor(data: MeasuredSet):
    assert len(data.configs) == 60
    assert data.latencies_ms == pytest.approx([law_ms(c) + 1 for c in data.configs], rel=0.05)
    assert 0.3 < data.floor.percent < 1.5
    assert (data.floor.subnets, data.floor.sessions, data.floor.error) == (60, 1, None)
    assert data.floor_as_measured == data.floor  # nothing was freed of anything


def test_nobody_is_trained_and_judged_on_and_the_ends_are_trained_on(data: MeasuredSet):
    sizes = [encoder_macs(NET.geometry, config) for config in data.configs]
    for draw in range(3):
        train, test = measured.split(data, 20, held_out=30, draw=draw)
        assert len(set(train)) == 20
        assert len(set(test)) == 30
        assert not set(train) & set(test)
        assert {int(np.argmin(sizes)), int(np.argmax(sizes))} <= set(train.tolist())
        assert np.array_equal(test, measured.split(data, 10, held_out=30, draw=draw)[1])


def test_models_learn_the_law_and_the_constant_does_not(data: MeasuredSet):
    rows = {row["model"]: row for row in measured.evaluate(data, 20, held_out=30)}
    assert rows["default"]["mape"] < 4
    assert rows["constant"]["mape"] > 3 * rows["default"]["mape"]
    assert rows[measured.LEARNED]["mape"] < 5
    assert rows["constant"]["kendall_tau"] is None
    assert 0 <= rows["default"]["front_covered"] <= 100
    assert rows["sized_ridge"]["mape"] < rows["raw_mlp"]["mape"]
    assert rows["default"]["front_covered_error"] > 0
    as_measured = [rows[name] for name in (measured.AS_MEASURED, measured.JUDGED_AS_MEASURED)]
    assert as_measured[0]["mape"] == pytest.approx(as_measured[1]["mape"])
    for row in rows.values():
        assert row["noise_floor"] == data.floor.percent
        assert row["within_5"] <= row["within_10"]


def test_raw_columns_tell_all_configurations_apart(data: MeasuredSet):
    table = measured.raw_columns(NET.geometry, data.configs)
    assert len(np.unique(table, axis=0)) == len(data.configs)


def test_a_folder_without_profiles_is_refused(tmp_path: Path):
    with pytest.raises(ProfileError, match="no profile"):
        measured.read_profiles(tmp_path, NET.geometry)


def test_latencies_are_freed_of_the_errors_of_sessions_and_known_as_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = ProfileStore(tmp_path, TARGET)
    store.agree_on_reference(NET.id, ReferenceAnchor(subnet_id="r", anchor_ms=1.0))
    rng = np.random.default_rng(0)
    drawn = list(dict.fromkeys(NET.space.sample(rng) for _ in range(40)))[:20]
    errors = {"a": 0.1, "b": 0.0, "c": -0.05, "d": 0.02}
    repeated = [(3 - place % 4, 1, config) for place, config in enumerate(drawn[:8])]
    for number, repeat, config in [*((p % 4, 0, c) for p, c in enumerate(drawn)), *repeated]:
        session = sorted(errors)[number]
        row = Measurement(
            supernet_id=NET.id,
            subnet_id=config.id,
            subnet=config,
            target=TARGET,
            session_id=session,
            repeat=repeat,
            encoder_ms=law_ms(config) * float(np.exp(errors[session])),
            decoder_ms=0.001,
            drift=Drift(around_ms=1.0, anchor_ms=1.0, reference_id="r"),
        )
        store.append(row)
    taken_ms = {config.id: law_ms(config) for config in drawn}
    store.learn_corrections(
        NET.id, lambda profile: learn_session_errors(profile.measurements, taken_ms)
    )
    (data,) = measured.read_profiles(tmp_path, NET.geometry)
    law = np.array([law_ms(config) for config in data.configs])
    assert data.as_measured_ms == pytest.approx(
        [ms * np.exp(errors[sorted(errors)[place % 4]]) for place, ms in enumerate(law)], rel=1e-3
    )
    assert np.log(data.latencies_ms / law).std() < 0.02 * np.log(data.as_measured_ms / law).std()
    assert data.floor.percent < 0.2 * data.floor_as_measured.percent
    assert (data.floor.subnets, data.floor.sessions) == (8, 4)
    assert data.floor_as_measured.error > data.floor.error > 0
    monkeypatch.setattr(measured, "DRAWS", 0)
    monkeypatch.setattr(measured, "DEFAULT_DRAWS", 2)
    monkeypatch.setattr(crossvalidation, "REPEATS", 1)
    rows = {row["model"]: row for row in measured.evaluate(data, 9, held_out=8)}
    alike = rows[measured.JUDGED_AS_MEASURED]
    assert alike["mape"] > rows[measured.AS_MEASURED]["mape"] > rows["default"]["mape"]
    assert alike["noise_floor"] == data.floor_as_measured.percent
    assert rows[measured.AS_MEASURED]["noise_floor"] == data.floor.percent
