"""Measuring on until a latency predictor is good enough; latencies come from a law."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from filelock import FileLock
from listener import Listener
from tiny import tiny_supernet

from hwsearch.costs import encoder_macs
from hwsearch.errors import ProfileError
from hwsearch.predictor import crossvalidation
from hwsearch.profiler.failures import no_answer
from hwsearch.profiler.session import SessionSettings
from hwsearch.profiles import ProfileStore
from hwsearch.records import Measurement, Target
from hwsearch.workflow.adaptive import Goal
from hwsearch.workflow.profile import profile_supernet
from hwsearch.workflow.timing import Stopwatch
from hwsearch.workflow.workspace import Workspace

TARGET = Target(
    device="cpu", device_name="test", runtime="onnxruntime", runtime_version="1", threads=1
)
SUPERNET = tiny_supernet()
GROUP = 4
HANGS = SUPERNET.space.smallest


@pytest.fixture
def noise(monkeypatch: pytest.MonkeyPatch):
    """Latencies by MACs and depth, with a share of noise that a test may set."""
    monkeypatch.setattr(crossvalidation, "REPEATS", 1)
    share = {
        "noise": 0.0,
        "hangs": lambda config: config == HANGS,
        "error": f"The worker process {no_answer(300)}.",
        "marks_repeats": False,
        "group_size": 0,
    }
    rng = np.random.default_rng(0)

    def measure_all(stopwatch, configs, *, repeat=None, drawn=False):
        rows = []
        share["group_size"] = stopwatch.settings.group_size
        for config in configs:
            law = 1 + encoder_macs(SUPERNET.geometry, config) / 1e6 + 0.3 * config.depth
            latencies = {
                "encoder_ms": law * float(np.exp(share["noise"] * rng.standard_normal())),
                "decoder_ms": 0.5,
            }
            row = Measurement(
                supernet_id=SUPERNET.id,
                subnet_id=config.id,
                subnet=config,
                target=TARGET,
                session_id="s",
                repeat=repeat or 0,
                drifted=bool(repeat and share["marks_repeats"]),
                **({"error": share["error"]} if share["hangs"](config) else latencies),
            )
            stopwatch.store.append(row)
            rows.append(row)
        return rows

    monkeypatch.setattr(Stopwatch, "measure_all", measure_all)
    return share


def profiled(folder, goal, *, samples=12, target=TARGET, progress=None):
    return profile_supernet(
        SUPERNET,
        target=target,
        workspace=Workspace(folder),
        samples=samples,
        goal=goal,
        settings=SessionSettings(group_size=GROUP),
        progress=progress,
    )


def times_measured(folder, target=TARGET):
    rows = ProfileStore(Workspace(folder).profiles, target).read(SUPERNET.id).measurements
    return Counter(row.subnet_id for row in rows if row.repeat == 0)


@pytest.mark.usefixtures("noise")
def test_a_goal_that_is_reached_measures_no_more(tmp_path):
    summary = profiled(tmp_path, Goal(error_percent=20, max_samples=60))
    assert summary.measured == 11  # one hangs
    assert summary.error_percent <= 20
    assert summary.stopped_by == "asked error"


def test_it_measures_on_to_the_most_and_nothing_twice(tmp_path, noise):
    noise["noise"] = 0.3
    unreachable = Goal(error_percent=1e-3, max_samples=22)
    # A noise floor of the same noise would do as well; without a second pass there is none.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hwsearch.workflow.adaptive.noise_floor", lambda rows: None)
        summary = profiled(tmp_path, unreachable)
    assert summary.measured == 21  # one hangs
    assert summary.stopped_by == "most samples"
    assert set(times_measured(tmp_path).values()) == {1}


@pytest.mark.usefixtures("noise")
def test_two_at_a_time_wait_for_each_other_and_measure_nothing_twice(tmp_path):
    folder = ProfileStore(Workspace(tmp_path).profiles, TARGET).folder
    folder.mkdir(parents=True)
    listeners = Listener(), Listener()
    deadline = time.monotonic() + 120
    with ThreadPoolExecutor(2) as pool:
        with FileLock(folder / ".measuring"):
            runs = [pool.submit(profiled, tmp_path, None, progress=one) for one in listeners]
            while not all(one.lines for one in listeners):
                assert time.monotonic() < deadline, [one.lines for one in listeners]
                time.sleep(0.01)
        summaries = [run.result(timeout=120) for run in runs]
    assert all("Another process measures" in one.lines[0] for one in listeners)
    assert [summary.measured for summary in summaries] == [11, 11]  # one hangs
    times = times_measured(tmp_path)
    assert {number for subnet, number in times.items() if subnet != HANGS.id} == {1}


@pytest.mark.usefixtures("noise")
def test_the_sample_has_no_more_than_the_most(tmp_path):
    profiled(tmp_path, Goal(error_percent=20, max_samples=10), samples=32)
    assert len(times_measured(tmp_path)) == 10


def test_an_error_at_the_noise_floor_will_do(tmp_path, noise):
    noise["noise"] = 0.05
    summary = profiled(tmp_path, Goal(error_percent=1e-3, max_samples=100))
    assert summary.measured < 100
    assert summary.error_percent <= summary.noise_floor_percent
    assert summary.stopped_by == "noise floor"


def test_it_goes_on_where_it_was(tmp_path, noise):
    noise["noise"] = 0.3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hwsearch.workflow.adaptive.noise_floor", lambda rows: None)
        profiled(tmp_path, Goal(error_percent=1e-3, max_samples=16))
        first = times_measured(tmp_path)
        summary = profiled(tmp_path, Goal(error_percent=1e-3, max_samples=20))
    assert first.keys() < times_measured(tmp_path).keys()
    assert set((times_measured(tmp_path) - Counter([HANGS.id])).values()) == {1}
    assert summary.measured == 19  # one hangs


@pytest.mark.usefixtures("noise")
def test_what_failed_is_tried_again_by_the_next_run_and_not_before(tmp_path):
    for run in (1, 2):
        profiled(tmp_path, None)
        counts = times_measured(tmp_path)
        assert counts[HANGS.id] == run
        assert all(count == 1 for subnet, count in counts.items() if subnet != HANGS.id)


def test_what_was_chosen_and_failed_is_tried_again_by_the_next_run(tmp_path, noise):
    """As where the first of its groups met a lack of memory, or was interrupted."""
    noise["noise"] = 0.3
    most = Goal(error_percent=1e-3, max_samples=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hwsearch.workflow.adaptive.noise_floor", lambda rows: None)
        profiled(tmp_path, None)
        sampled = times_measured(tmp_path).keys()
        noise["hangs"] = lambda config: config.id not in sampled
        assert profiled(tmp_path, most).measured == 12
        chosen = times_measured(tmp_path).keys() - sampled
        noise["hangs"] = lambda config: False
        assert profiled(tmp_path, most).measured == 20
    counts = times_measured(tmp_path)
    assert len(counts) == 20
    assert {counts[subnet] for subnet in chosen} == {2}


def test_on_a_gpu_what_failed_is_timed_alone(tmp_path, noise):
    """A group of workers may fill its memory, and nothing there tells beforehand."""
    gpu = Target(device="cuda", device_name="test", runtime="tensorrt", runtime_version="1")
    noise["hangs"] = lambda config: config.depth == 2 and noise["group_size"] > 1
    noise["error"] = "MemoryError: CUDA out of memory"
    summary = profiled(tmp_path, None, target=gpu)
    assert (summary.measured, summary.failed) == (12, 0)
    assert set(times_measured(tmp_path, gpu).values()) == {1, 2}


def test_on_a_gpu_what_hung_is_not_waited_for_again(tmp_path, noise):
    gpu = Target(device="cuda", device_name="test", runtime="tensorrt", runtime_version="1")
    noise["hangs"] = lambda config: config.depth == 2
    assert profiled(tmp_path, None, target=gpu).failed > 0
    assert set(times_measured(tmp_path, gpu).values()) == {1}


def test_a_goal_that_is_reached_tries_nothing_again(tmp_path, noise):
    noise["noise"] = 0.3
    noise["hangs"] = lambda config: times_measured(tmp_path).total() >= 12  # all but the sample
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hwsearch.workflow.adaptive.noise_floor", lambda rows: None)
        profiled(tmp_path, Goal(error_percent=1e-3, max_samples=20))
        counts = times_measured(tmp_path)
        assert len(counts) == 20
        assert profiled(tmp_path, Goal(error_percent=99, max_samples=20)).stopped_by
    assert times_measured(tmp_path) == counts


@pytest.mark.usefixtures("noise")
def test_too_few_for_a_predictor_has_no_error(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hwsearch.workflow.adaptive.LatencyPredictor.min_samples", 1000)
        assert profiled(tmp_path, Goal(error_percent=2, max_samples=20)).error_percent is None


@pytest.mark.usefixtures("noise")
def test_a_larger_sample_measures_none_of_the_smaller_one_again(tmp_path):
    profiled(tmp_path, None, samples=12)
    first = times_measured(tmp_path)
    summary = profiled(tmp_path, None, samples=16)
    assert summary.measured == 15  # one hangs
    assert first.keys() < times_measured(tmp_path).keys()
    assert set((times_measured(tmp_path) - Counter([HANGS.id])).values()) == {1}


@pytest.mark.usefixtures("noise")
def test_subnets_that_are_named_take_the_samples_place(tmp_path):
    rng = np.random.default_rng(3)
    named = list(dict.fromkeys(SUPERNET.space.sample(rng) for _ in range(9)))
    summary = profile_supernet(
        SUPERNET, target=TARGET, workspace=Workspace(tmp_path), samples=30, subnets=named
    )
    rows = ProfileStore(Workspace(tmp_path).profiles, TARGET).read(SUPERNET.id).measurements
    assert {row.subnet for row in rows} == set(named)
    assert {row.subnet for row in rows if row.repeat} == set(named[:2])
    assert summary.measured == len(named)


def test_a_goal_begins_with_as_many_as_a_predictor_needs(tmp_path, noise):
    noise["hangs"] = lambda config: False
    summary = profiled(tmp_path, Goal(error_percent=20, max_samples=60), samples=2)
    assert summary.error_percent is not None


def test_both_extremes_are_measured_twice(tmp_path, noise):
    noise["hangs"] = lambda config: False
    profiled(tmp_path, None)
    rows = ProfileStore(Workspace(tmp_path).profiles, TARGET).read(SUPERNET.id).measurements
    repeated = {row.subnet_id for row in rows if row.repeat}
    assert {SUPERNET.space.largest.id, SUPERNET.space.smallest.id} <= repeated


def test_a_profile_in_which_all_fails_ends_with_the_reason(tmp_path, noise):
    noise["hangs"] = lambda config: True
    with pytest.raises(ProfileError, match=r"None of 12 subnets .* the last one: .* no answer"):
        profiled(tmp_path, None)


def test_what_failed_says_why(tmp_path, noise):
    summary = profiled(tmp_path, None)
    assert (summary.failed, summary.last_error) == (1, noise["error"])


def test_marked_repeats_are_no_floor_to_stop_at(tmp_path, noise):
    noise["noise"] = noise["marks_repeats"] = 0.2
    summary = profiled(tmp_path, Goal(error_percent=1e-3, max_samples=16))
    assert summary.measured == 15  # one hangs
    assert summary.drifted == 0, "each has a figure to rely on"
    assert summary.noise_floor_percent > 1e-3  # that of a restless machine is still told
