from __future__ import annotations

import numpy as np
import pytest

from hwsearch.drift_share import corrected_by, learn_drift_share, with_correction
from hwsearch.profiler.noise import noise_floor
from hwsearch.records import Drift, LayerConfig, Measurement, SubnetConfig, Target

TARGET = Target(device="cpu", device_name="Fake", runtime="onnxruntime", runtime_version="1")


def measurement(
    number: int,
    ms: float | None,
    *,
    repeat: int = 0,
    drifted: bool = False,
    error: str | None = None,
) -> Measurement:
    subnet = SubnetConfig(
        resolution=64, layers=(LayerConfig(index=0, mlp_width=number + 1, heads=1),)
    )
    return Measurement(
        supernet_id="fake",
        subnet_id=subnet.id,
        subnet=subnet,
        target=TARGET,
        session_id="s",
        repeat=repeat,
        encoder_ms=ms,
        decoder_ms=None if ms is None else ms / 10,
        drifted=drifted,
        error=error,
    )


@pytest.mark.parametrize("repeats", [2, 3])
def test_it_is_the_error_of_a_predictor_that_knows_the_truth(repeats: int) -> None:
    rng = np.random.default_rng(0)
    subnets, spread = 1500, 0.03
    truth = rng.uniform(10, 200, subnets)
    measured = truth * (1 + spread * rng.normal(size=(repeats, subnets)))
    records = [
        measurement(number, measured[repeat, number], repeat=repeat)
        for repeat in range(repeats)
        for number in range(subnets)
    ]
    mape_percent = 100 * np.mean(np.abs(truth - measured[0]) / measured[0])
    assert noise_floor(records) == pytest.approx(mape_percent, rel=0.05)


def test_one_pair_by_hand() -> None:
    records = [measurement(0, 90.0), measurement(0, 110.0, repeat=1)]
    assert noise_floor(records) == pytest.approx(20 / 2**0.5)
    assert noise_floor(records, scope="decoder") == pytest.approx(20 / 2**0.5)


def test_failed_and_single_measurements_are_left_out() -> None:
    records = [
        measurement(0, 90.0),
        measurement(1, 90.0),
        measurement(1, None, repeat=1, error="burst"),
    ]
    assert noise_floor(records) is None


def test_drifted_measurements_count_only_where_there_are_no_others() -> None:
    drifted = [measurement(0, 90.0), measurement(0, 110.0, repeat=1, drifted=True)]
    assert noise_floor(drifted) == pytest.approx(20 / 2**0.5)
    steady = [measurement(1, 100.0), measurement(1, 100.0, repeat=1)]
    assert noise_floor([*drifted, *steady]) == 0


def test_the_last_of_equal_repeats_counts() -> None:
    records = [measurement(0, 500.0), measurement(0, 100.0), measurement(0, 100.0, repeat=1)]
    assert noise_floor(records) == 0


def test_a_share_of_the_drift_that_repeats_told_does_not_flatter_them() -> None:
    """The drift means nothing here: a share learnt from a few sessions fits their errors alone."""
    flattered, honest, expected = [], [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        rows = []
        for session in range(8):
            drift, error = np.exp(0.05 * rng.standard_normal()), 0.02 * rng.standard_normal()
            for number in range(4):
                ms = 10 * np.exp(error + 0.001 * rng.standard_normal())
                # Of each session the second pass measures one, so that no two meet twice.
                again, group = divmod(session, 4)
                subnet = 4 * number + group if again else 4 * group + number
                row = measurement(subnet, ms, repeat=again)
                slowness = Drift(around_ms=drift, anchor_ms=1.0, group_ms=drift)
                rows.append(
                    row.model_copy(update={"drift": slowness, "session_id": f"session {session}"})
                )
        share = learn_drift_share(rows)
        learnt = [corrected_by(row, share) for row in rows]
        later = Drift(around_ms=np.exp(0.05 * rng.standard_normal()), anchor_ms=1.0)
        new = rows[0].model_copy(update={"drift": later})
        wrong = corrected_by(new, share).latency_ms() / new.latency_ms()
        error = np.log(wrong) + 0.02 * rng.standard_normal(2000)
        expected.append(100 * np.abs(error).mean())
        honest.append(noise_floor(learnt))
        flattered.append(
            noise_floor(
                [
                    row.model_copy(
                        update={"drift": row.drift.model_copy(update={"share_correction": 0.0})}
                    )
                    for row in learnt
                ]
            )
        )
    assert np.mean(flattered) < 0.95 * np.mean(expected)
    assert np.mean(honest) == pytest.approx(np.mean(expected), rel=0.1)


def test_measurements_freed_of_their_sessions_errors_are_taken_as_they_are() -> None:
    """Another share would not belong to these errors, which were learnt under this one."""
    rows = []
    for number in range(4):
        for repeat in (0, 1):
            slow = 1.2 if repeat else 0.9
            drift = Drift(around_ms=slow, anchor_ms=1.0, group_ms=slow)
            row = measurement(number, 100.0 + 2 * repeat, repeat=repeat)
            rows.append(row.model_copy(update={"drift": drift, "session_id": f"{repeat} {number}"}))
    share = learn_drift_share(rows)
    freed = [
        with_correction(corrected_by(row, share), "session_correction", 0.01 * (row.repeat or 0))
        for row in rows
    ]
    ratio = freed[1].latency_ms() / freed[0].latency_ms()
    expected = 100 * abs(ratio - 1) / ((1 + ratio) / 2) / 2**0.5
    assert share.share != 1
    assert noise_floor(freed) == pytest.approx(expected, rel=0.01)
