"""Profiles that are stopped, and profiles of two search spaces."""

import math
from contextlib import contextmanager

import pytest
from listener import Listener
from tiny import GEOMETRY, randomised_sam, tiny_supernet

from hwsearch import profiles
from hwsearch.drift_share import CORRECTED, DriftShare
from hwsearch.errors import ProfileError
from hwsearch.profiler.session import SessionSettings, measure
from hwsearch.profiles import ProfileStore, ReferenceAnchor, held_against
from hwsearch.progress import SilentProgress
from hwsearch.records import Measurement, Target
from hwsearch.space import default_space
from hwsearch.supernet.supernet import Supernet
from hwsearch.workflow import timing
from hwsearch.workflow.timing import Stopwatch

TARGET = Target(
    device="cpu", device_name="test", runtime="onnxruntime", runtime_version="1", threads=1
)
QUICK = SessionSettings(
    warmup_s=0.0,
    min_rounds=2,
    max_rounds=2,
    group_size=2,
    slice_s=0.0,
    budget_s=0.1,
    max_drift=1e9,
    max_half_width=1e9,
)


class StopsInTheSecondGroup(SilentProgress):
    """Interrupts when the second group is about to be exported."""

    groups = 0

    @contextmanager
    def task(self, description, total):
        if description == "exporting":
            self.groups += 1
            if self.groups == 2:
                raise KeyboardInterrupt
        with super().task(description, total) as advance:
            yield advance


def stopwatch(folder, *, supernet=None, progress=None):
    return Stopwatch(
        supernet or tiny_supernet(),
        ProfileStore(folder, TARGET),
        QUICK,
        progress or SilentProgress(),
    )


def failing(on_measurement):
    """Receives measurements and hands on failures."""
    latencies = dict.fromkeys(CORRECTED) | {"drift": None}
    failure = {**latencies, "error": "memory ran out"}
    return lambda row: on_measurement(row.model_copy(update=failure))


def test_a_profile_that_is_stopped_keeps_its_groups_and_its_anchor(tmp_path):
    supernet = tiny_supernet()
    configs = [
        supernet.space.largest,
        supernet.space.smallest,
        *supernet.space.neighbours(supernet.space.largest),
    ][:4]
    with pytest.raises(KeyboardInterrupt):
        stopwatch(tmp_path, progress=StopsInTheSecondGroup()).measure_all(configs)
    resumed = stopwatch(tmp_path)
    kept = resumed.profile.measurements
    assert len(kept) == QUICK.group_size
    anchor = resumed.store.reference(supernet.id)
    assert anchor.subnet_id == resumed.reference.id
    assert {row.drift.anchor_ms for row in kept} == {anchor.anchor_ms}
    missing = [config for config in configs if config.id not in resumed.profile.measured_ids]
    resumed.measure_all(missing)
    rows = resumed.profile.measurements
    assert sorted(row.subnet_id for row in rows) == sorted(config.id for config in configs)
    assert {row.drift.anchor_ms for row in rows} == {anchor.anchor_ms}


@pytest.mark.parametrize("has_it", [True, False])
def test_a_space_joins_a_profile_if_it_has_its_reference(tmp_path, has_it):
    first = stopwatch(tmp_path)
    first.measure_all([first.supernet.space.largest])
    resolution = first.reference.resolution
    assert resolution < GEOMETRY.image_size
    resolutions = (resolution, GEOMETRY.image_size) if has_it else (GEOMETRY.image_size,)
    space = default_space(GEOMETRY, resolutions=resolutions, min_depth=2)
    other = stopwatch(tmp_path, supernet=Supernet(randomised_sam(0), GEOMETRY, space))
    if has_it:
        other.measure_all([space.smallest])
        assert len(other.profile.measurements) == 2
    else:
        with pytest.raises(ProfileError, match="another --workspace"):
            other.measure_all([space.smallest])


def test_a_profile_keeps_to_the_reference_of_earlier_versions(tmp_path):
    """They took all layers at the lowest resolution."""
    watch = stopwatch(tmp_path)
    space = watch.supernet.space
    earlier = space.largest.model_copy(update={"resolution": space.resolutions[0]})
    assert watch.reference != earlier
    anchor = ReferenceAnchor(subnet_id=earlier.id, anchor_ms=5.0)
    watch.store.agree_on_reference(watch.supernet.id, anchor)
    assert watch.reference == earlier
    (row,) = watch.measure_all([space.smallest])
    assert (row.drift.anchor_ms, row.drift.reference_id) == (5.0, earlier.id)


def test_a_profile_of_earlier_lines_keeps_to_their_reference_though_it_is_not_stored(tmp_path):
    watch = stopwatch(tmp_path)
    space = watch.supernet.space
    (row,) = watch.measure_all([space.smallest])
    older = row.model_copy(update={"drift": row.drift.model_copy(update={"reference_id": None})})
    watch.store.measurements_file(watch.supernet.id).write_text(older.to_json() + "\n")
    (watch.store.folder / "target.json").unlink()
    assert watch.reference == space.largest.model_copy(update={"resolution": space.resolutions[0]})
    watch.measure_all([space.largest])  # its lines name the reference, and the older one does not
    watch.measure_all([space.smallest])
    assert len(watch.profile.measurements) == 3


def test_supernets_of_one_space_share_a_profile_whatever_layers_matter(tmp_path):
    """Which layers go first hangs on the weights, which latencies do not hang on."""
    first = stopwatch(tmp_path)
    order = tuple(reversed(first.supernet.space.removal_order))
    space = first.supernet.space.model_copy(update={"removal_order": order})
    second = stopwatch(tmp_path, supernet=Supernet(randomised_sam(1), GEOMETRY, space))
    assert second.supernet.space.removal_order != first.supernet.space.removal_order
    first.measure_all([space.largest])
    second.measure_all([space.largest])
    assert [row.repeat for row in second.profile.measurements] == [0, 1]
    assert len({row.drift.reference_id for row in second.profile.measurements}) == 1


def test_a_profile_keeps_to_a_reference_that_is_typical_no_more(tmp_path):
    watch = stopwatch(tmp_path)
    largest = watch.supernet.space.largest
    anchor = ReferenceAnchor(subnet_id=largest.id, anchor_ms=5.0, subnet=largest)
    watch.store.agree_on_reference(watch.supernet.id, anchor)
    (row,) = watch.measure_all([largest])
    assert (row.drift.anchor_ms, row.drift.reference_id) == (5.0, largest.id)


def test_new_latencies_take_the_share_of_the_drift_that_the_profile_tells(tmp_path, monkeypatch):
    watch = stopwatch(tmp_path)
    smallest = watch.supernet.space.smallest
    watch.measure_all([smallest])

    def beside_a_slow_reference(subjects, *, on_measurement, **conditions):
        def keep(row):
            slow = row.drift.model_copy(update={"group_ms": 1.2 * row.drift.anchor_ms})
            on_measurement(row.model_copy(update={"drift": slow}))

        return measure(subjects, on_measurement=keep, **conditions)

    monkeypatch.setattr(timing, "measure", beside_a_slow_reference)
    share = DriftShare(share=0.5, reach=1.0)
    monkeypatch.setattr(profiles, "learn_drift_share", lambda rows: share)
    watch.store.learn_corrections(watch.supernet.id)
    (row,) = watch.measure_all([smallest])
    line = watch.store.measurements_file(watch.supernet.id).read_text().splitlines()[-1]
    stored = Measurement.from_json(line)
    assert row.latency_ms() == pytest.approx(1.2**0.5 * stored.latency_ms())
    assert watch.profile.measurements[-1] == row


def test_a_second_pass_over_a_subnet_is_a_repeat(tmp_path):
    watch = stopwatch(tmp_path)
    largest = watch.supernet.space.largest
    watch.measure_all([largest])
    watch.measure_all([largest])
    assert [row.repeat for row in watch.profile.measurements] == [0, 1]
    assert len(watch.latencies_ms([largest, largest])) == 2


def test_two_sessions_that_begin_an_empty_profile_hang_on_one_anchor(tmp_path, monkeypatch):
    """The second one finds the first one's anchor when its first line is to be written."""
    slower = stopwatch(tmp_path)
    largest = slower.supernet.space.largest
    measured = {}

    def measure_beside_another(subjects, *, on_measurement, **conditions):
        assert conditions["anchor_ms"] is None
        with monkeypatch.context() as patch:
            patch.setattr(timing, "measure", measure)
            (other,) = stopwatch(tmp_path).measure_all([largest])

        def of_another_anchor(row):
            measured["mine"] = held_against(row, 4 * other.drift.anchor_ms)
            measured["other"] = other
            on_measurement(measured["mine"])

        return measure(subjects, on_measurement=of_another_anchor, **conditions)

    monkeypatch.setattr(timing, "measure", measure_beside_another)
    (row,) = slower.measure_all([largest])
    mine, anchor_ms = measured["mine"], measured["other"].drift.anchor_ms
    assert row.drift.anchor_ms == anchor_ms == slower.store.reference(slower.supernet.id).anchor_ms
    for name in ("encoder_ms", "decoder_ms", "low_ms", "high_ms"):
        assert getattr(row, name) == pytest.approx(getattr(mine, name) / 4)
    assert row.encoder == mine.encoder  # raw figures stay
    assert slower.profile.measurements == (measured["other"], row)


@pytest.mark.parametrize(("times_failed", "is_told"), [(1, False), (2, True)])
def test_what_fails_gets_one_other_chance(tmp_path, monkeypatch, times_failed, is_told):
    """Memory that lacked for a moment is no reason to give a subnet up."""
    progress = Listener()
    watch = stopwatch(tmp_path, progress=progress)
    largest = watch.supernet.space.largest
    sessions = []

    def fail_at_first(subjects, *, on_measurement, **conditions):
        sessions.append(subjects)
        keep = failing(on_measurement) if len(sessions) <= times_failed else on_measurement
        return measure(subjects, on_measurement=keep, **conditions)

    monkeypatch.setattr(timing, "measure", fail_at_first)
    (latency_ms,) = watch.latencies_ms([largest])
    warning = f"Warning: Subnet {largest.id} could not be timed: memory ran out"
    assert (latency_ms == math.inf) == is_told == (warning in progress.lines)
    assert latency_ms > 0
    assert len(watch.profile.measurements) == 2


def test_what_failed_among_others_is_timed_alone(tmp_path, monkeypatch):
    """Eight models that are open at once may fill a memory that each of them would fit into."""
    watch = stopwatch(tmp_path)
    configs = [watch.supernet.space.largest, watch.supernet.space.smallest]
    sizes = []

    def measure_one_at_a_time(subjects, *, on_measurement, **conditions):
        sizes.append(len(subjects))
        keep = failing(on_measurement) if len(subjects) > 1 else on_measurement
        return measure(subjects, on_measurement=keep, **conditions)

    monkeypatch.setattr(timing, "measure", measure_one_at_a_time)
    assert all(map(math.isfinite, watch.latencies_ms(configs)))
    assert sizes == [2, 1, 1]


@pytest.mark.parametrize(
    ("course", "is_known"), [("mff", True), ("fmf", True), ("mmf", True), ("ff", False)]
)
def test_a_failure_takes_no_latency_s_place(tmp_path, monkeypatch, course, is_known):
    """m: marked, for the machine was restless; f: failed."""
    watch = stopwatch(tmp_path)
    attempts = iter(course)

    def restless(subjects, *, on_measurement, **conditions):
        def marked(row):
            on_measurement(row.model_copy(update={"drifted": True}))

        keep = failing(on_measurement) if next(attempts) == "f" else marked
        return measure(subjects, on_measurement=keep, **conditions)

    monkeypatch.setattr(timing, "measure", restless)
    (latency_ms,) = watch.latencies_ms([watch.supernet.space.largest])
    assert math.isfinite(latency_ms) == is_known
    assert list(attempts) == []


def at_usual_speed(monkeypatch, usual_ms, *, drifted=False):
    """Have the reference take so long beside what is timed from now on."""

    def measured(subjects, *, on_measurement, **conditions):
        def at_that_speed(row):
            # At its best the machine is faster: a typical turn takes longer than the anchor.
            speed = {"around_ms": usual_ms, "group_ms": usual_ms, "anchor_ms": 5.0}
            drift = row.drift.model_copy(update=speed)
            on_measurement(row.model_copy(update={"drift": drift, "drifted": drifted}))

        return measure(subjects, on_measurement=at_that_speed, **conditions)

    monkeypatch.setattr(timing, "measure", measured)


@pytest.mark.parametrize(("slowness", "is_told"), [(1.0, False), (3.0, True), (0.3, True)])
def test_another_speed_than_the_profile_s_is_told(tmp_path, monkeypatch, slowness, is_told):
    """Figures go on in the scale of the first session, which may be another machine's."""
    progress = Listener()
    watch = stopwatch(tmp_path, progress=progress)
    at_usual_speed(monkeypatch, 10.0)
    watch.latencies_ms([watch.supernet.space.smallest])
    assert not [line for line in progress.lines if "times what it took" in line]
    at_usual_speed(monkeypatch, slowness * 10.0)
    watch.latencies_ms([watch.supernet.space.largest])
    told = [line for line in progress.lines if f"took {slowness:.2f} times" in line]
    assert len(told) == (2 if is_told else 0)  # as it goes, and as a warning


def test_a_first_session_that_was_too_restless_is_none_to_go_by(tmp_path, monkeypatch):
    progress = Listener()
    watch = stopwatch(tmp_path, progress=progress)
    at_usual_speed(monkeypatch, 14.0, drifted=True)
    watch.measure_all([watch.supernet.space.smallest])
    at_usual_speed(monkeypatch, 10.0)
    watch.latencies_ms([watch.supernet.space.smallest, watch.supernet.space.largest])
    assert not [line for line in progress.lines if "times what it took" in line]
