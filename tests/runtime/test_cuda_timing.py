"""Timing on a GPU's clock, on a machine whose clocks only work moves."""

import numpy as np
import pytest
from gpu_machine import Machine, times

from hwsearch.errors import UsageError
from hwsearch.runtime.cuda_timing import (
    RunTimes,
    exactly,
    percentile,
    summarise_runs,
    time_alone,
    time_runs,
)


def timed(machine: Machine, n: int) -> RunTimes:
    of = times(machine)
    return time_runs(of.enqueue, new_event=of.new_event, done=exactly(n), clock=of.clock)


def test_two_in_flight_hide_the_host():
    machine = Machine(run_s=2e-3, enqueue_s=5e-4)
    found = timed(machine, 6)
    assert machine.most_flying == 2
    # Only before the first run, the GPU had to wait until it was enqueued.
    np.testing.assert_allclose(found.gpu, [2.5e-3] + 5 * [2e-3])
    np.testing.assert_allclose(found.enqueue, 6 * [5e-4])
    assert machine.host == pytest.approx(5e-4 + 6 * 2e-3), "all runs were waited for"


def test_a_slow_host_shows():
    machine = Machine(run_s=1e-3, enqueue_s=3e-3)
    summary = summarise_runs(timed(machine, 20))
    assert summary.median_ms > 2
    assert [warning for warning in summary.warnings if "the host limits the speed" in warning]


@pytest.mark.parametrize("n", [0, -1])
def test_no_runs_can_not_be_timed(n: int):
    with pytest.raises(UsageError, match=f"{n} runs can't be timed"):
        exactly(n)


@pytest.mark.parametrize(("run_s", "runs"), [(0.1, 30), (1.0, 10), (0.01, 300)])
def test_alone_it_takes_three_seconds_and_ten_runs(run_s: float, runs: int):
    machine = Machine(run_s=run_s, enqueue_s=0.0)
    of = times(machine)
    found = time_alone(of.enqueue, new_event=of.new_event, clock=of.clock)
    assert runs <= found.gpu.size <= runs + 2  # two are in flight when the time is up
    warm = machine.host - found.gpu.sum()
    assert warm + 1e-9 >= 0.2
    assert warm <= 0.2 + 2 * run_s + 1e-9


@pytest.mark.parametrize(
    ("n", "percent", "place"),
    [
        (10, 50, 4),
        (10, 90, 8),
        (10, 99, 9),
        (100, 99, 99),
        (101, 99, 99),
        (200, 99, 198),
        (1, 90, 0),
        (3, 0, 0),
    ],
)
def test_percentiles_are_those_of_trtexec(n: int, percent: float, place: int):
    values = np.random.default_rng(0).permutation(n).astype(float)
    assert percentile(values, percent) == place


def test_the_summary():
    gpu = np.array([1.0, 2.0, 3.0, 6.0]) / 1e3
    summary = summarise_runs(RunTimes(gpu=gpu, enqueue=np.full(4, 1e-4)))
    assert (summary.runs, summary.min_ms, summary.max_ms) == (4, 1, 6)
    assert (summary.mean_ms, summary.median_ms) == (3, 2.5)
    assert (summary.p90_ms, summary.enqueue_median_ms) == (6, pytest.approx(0.1))
    assert len(summary.warnings) == 1
    assert "spread by 62.4 % of their mean" in summary.warnings[0]


def test_steady_runs_have_no_warning():
    times_ = RunTimes(gpu=np.full(20, 1e-3), enqueue=np.full(20, 1e-5))
    assert summarise_runs(times_).warnings == ()
