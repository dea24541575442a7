from __future__ import annotations

import numpy as np
import pytest

from hwsearch.profiler.noise import noise_floor
from hwsearch.records import LayerConfig, Measurement, SubnetConfig, Target

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
