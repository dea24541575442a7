from __future__ import annotations

import gc
import math
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeRunner, Machine, make_subject

from hwsearch.errors import ProfileError, UsageError
from hwsearch.profiler.pair import LocalHost
from hwsearch.profiler.session import SessionReport, SessionSettings, Subject, measure
from hwsearch.progress import SilentProgress
from hwsearch.records import Measurement, Target

TARGET = Target(
    device="cpu", device_name="Fake", runtime="onnxruntime", runtime_version="1", batch=2
)
SETTINGS = SessionSettings(warmup_s=0.2, max_drift=10.0, max_half_width=10.0)
REFERENCE_MS = 110.0


def run(
    machine: Machine,
    subjects: Sequence[Subject],
    reference: Subject,
    *,
    settings: SessionSettings = SETTINGS,
    anchor_ms: float | None = REFERENCE_MS,
    repeat: int = 0,
) -> tuple[SessionReport, list[Measurement]]:
    measurements: list[Measurement] = []
    report = measure(
        subjects,
        reference=reference,
        target=TARGET,
        supernet_id="fake",
        anchor_ms=anchor_ms,
        settings=settings,
        repeat=repeat,
        on_measurement=measurements.append,
        open_runner=machine.open,
        clock=machine.clock,
    )
    return report, measurements


@pytest.fixture
def reference(tmp_path: Path) -> Subject:
    return make_subject(tmp_path, 99)


def truth(subjects: Sequence[Subject], latencies_ms: Sequence[float]) -> dict[str, float]:
    return {s.subnet.id: ms for s, ms in zip(subjects, latencies_ms, strict=True)}


DRIFTS = {
    "ramp": lambda now: 1 + now / 40,
    "waves": lambda now: 1.3 + 0.3 * math.sin(now / 6),
    "step": lambda now: 1.0 if now < 6 else 1.5,
}


@pytest.mark.parametrize("drift", DRIFTS)
def test_correction_recovers_the_latency_from_a_drifting_machine(
    drift: str, tmp_path: Path, reference: Subject
) -> None:
    machine = Machine(slowness=DRIFTS[drift], noise=0.01)
    encoder_ms = [30.0, 60.0, 90.0, 150.0, 200.0, 250.0]
    subjects = [make_subject(tmp_path, k, encoder_s=ms / 1e3) for k, ms in enumerate(encoder_ms)]
    _, measurements = run(machine, subjects, reference, settings=replace(SETTINGS, group_size=3))

    true_ms = truth(subjects, [ms + 10 for ms in encoder_ms])
    corrected = np.array([m.latency_ms() / true_ms[m.subnet_id] for m in measurements])
    raw = np.array(
        [(m.encoder.p50_ms + m.decoder.p50_ms) / true_ms[m.subnet_id] for m in measurements]
    )
    assert np.abs(corrected - 1).max() < 0.02
    assert np.abs(raw - 1).max() > 0.1


def test_a_group_has_as_many_as_memory_holds(
    tmp_path: Path, reference: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine()
    subjects = [make_subject(tmp_path, k) for k in range(7)]
    each = 1 << 30

    def available() -> int:
        return 6 * each - len(machine.open_paths) // 2 * each  # an encoder and a decoder each

    monkeypatch.setattr("hwsearch.profiler.session.available_memory_bytes", available)
    monkeypatch.setattr("hwsearch.profiler.pair.LocalHost.memory_bytes", lambda host: each)
    report, measurements = run(machine, subjects, reference)
    assert len(report.rounds) == 2
    assert machine.most_open == 2 * 5
    assert sorted(m.subnet_id for m in measurements) == sorted(s.subnet.id for s in subjects)


def test_what_takes_most_is_opened_first(
    tmp_path: Path, reference: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolutions = [64, 64, 128, 64, 64, 128, 64, 128]
    subjects = [make_subject(tmp_path, k, resolution=r) for k, r in enumerate(resolutions)]
    takes = {s.encoder: s.subnet.resolution**4 for s in [*subjects, reference]}
    room = 2.5 * 128**4
    hosts: set[Host] = set()

    def left() -> float:
        return room - sum(host.memory_bytes() for host in hosts)

    class Host(LocalHost):
        taken = 0

        def open(self, path: Path) -> FakeRunner:
            if takes.get(path, 0) > left():
                raise RuntimeError("killed: out of memory")
            self.taken += takes.get(path, 0)
            hosts.add(self)
            return super().open(path)

        def memory_bytes(self) -> int:
            return self.taken

        def __exit__(self, *error: object) -> None:
            hosts.discard(self)
            super().__exit__(*error)

    monkeypatch.setattr("hwsearch.profiler.session.LocalHost", Host)
    monkeypatch.setattr("hwsearch.profiler.session.available_memory_bytes", left)
    report, measurements = run(Machine(), subjects, reference)
    assert {m.subnet_id: m.error for m in measurements} == {s.subnet.id: None for s in subjects}
    assert len(report.rounds) < len(subjects) / 2


def test_a_subject_that_memory_may_not_hold_is_tried_alone(
    tmp_path: Path, reference: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hwsearch.profiler.session.available_memory_bytes", lambda: 0)
    monkeypatch.setattr("hwsearch.profiler.pair.LocalHost.memory_bytes", lambda host: 1)
    machine = Machine()
    report, measurements = run(machine, [make_subject(tmp_path, k) for k in range(3)], reference)
    assert len(report.rounds) == len(measurements) == 3
    assert machine.most_open == 2 * 2


def test_without_drift_the_correction_changes_nothing(tmp_path: Path, reference: Subject) -> None:
    report, (measurement,) = run(Machine(), [make_subject(tmp_path, 0)], reference)
    assert measurement.encoder_ms == pytest.approx(100)
    assert measurement.decoder_ms == pytest.approx(10)
    assert measurement.drift.around_ms == pytest.approx(REFERENCE_MS)
    assert not measurement.drifted
    assert report.wander == (pytest.approx(0, abs=1e-9),)


def test_drift_that_is_followed_marks_nothing(tmp_path: Path, reference: Subject) -> None:
    machine = Machine(slowness=lambda now: 1 + 0.02 * now, noise=0.01)
    settings = SessionSettings(warmup_s=0.2, relative_half_width=1e-9, max_rounds=10)
    subjects = [make_subject(tmp_path, k, encoder_s=0.05 * (k + 1)) for k in range(4)]
    report, measurements = run(machine, subjects, reference, settings=settings)
    assert report.wander[0] > 0.15
    assert report.drifted == 0
    for k, subject in enumerate(subjects):
        (found,) = (m for m in measurements if m.subnet_id == subject.subnet.id)
        assert found.low_ms <= found.latency_ms() <= found.high_ms
        assert found.latency_ms() == pytest.approx(50 * (k + 1) + 10, rel=0.02)


def test_a_machine_that_becomes_far_slower_marks_the_measurement(
    tmp_path: Path, reference: Subject
) -> None:
    settings = replace(SETTINGS, max_drift=1.0, group_size=1, relative_half_width=1e-9)
    machine = Machine(slowness=lambda now: max(1.0, (now / 8) ** 2), noise=0.01)
    report, measurements = run(
        machine,
        [make_subject(tmp_path, k) for k in range(2)],
        reference,
        settings=replace(settings, max_rounds=12),
    )
    assert [m.drifted for m in measurements] == [False, True]
    assert (report.drifted, report.measured) == (1, 2)


def test_a_wide_interval_marks_the_measurement(tmp_path: Path, reference: Subject) -> None:
    drifted = {}
    for bound in (0.001, 10.0):
        settings = replace(SETTINGS, max_half_width=bound)
        report, (measurement,) = run(
            Machine(noise=0.3), [make_subject(tmp_path, 0)], reference, settings=settings
        )
        width = (measurement.high_ms - measurement.low_ms) / 2 / measurement.latency_ms()
        assert report.half_width == pytest.approx(width)
        assert 0.001 < width < 10
        drifted[bound] = measurement.drifted
    assert drifted == {0.001: True, 10.0: False}


def test_each_round_tells_how_far_it_is(tmp_path: Path, reference: Subject) -> None:
    machine, notes = Machine(), []

    class Listening(SilentProgress):
        @contextmanager
        def task(self, description, total):
            yield lambda amount=1, note="": notes.append(note)

    measure(
        [make_subject(tmp_path, k) for k in range(2)],
        reference=reference,
        target=TARGET,
        supernet_id="fake",
        anchor_ms=None,
        settings=replace(SETTINGS, budget_s=100.0),
        on_measurement=lambda measurement: None,
        progress=Listening(),
        open_runner=machine.open,
        clock=machine.clock,
    )
    assert [note.split(", ")[1] for note in notes[:2]] == ["1 of 2", "2 of 2"], "as they open"
    first, *_, last = [note for note in notes if note.startswith("round ")]
    assert first.startswith("round 1, half-width 0.0 %, drift 0 %, 2 subnets left, at most ")
    assert last.startswith(f"round {SETTINGS.min_rounds}, ")
    assert last.endswith("0 subnets left, at most 0 s")
    assert notes[-1].endswith(" ms ± 0.0 %")


def test_a_given_anchor_scales_the_latency(tmp_path: Path, reference: Subject) -> None:
    _, (measurement,) = run(Machine(), [make_subject(tmp_path, 0)], reference, anchor_ms=220.0)
    assert measurement.encoder_ms == pytest.approx(200)
    assert measurement.encoder.p50_ms == pytest.approx(100)
    assert measurement.drift.anchor_ms == 220


def test_the_first_session_makes_its_own_anchor(tmp_path: Path, reference: Subject) -> None:
    machine = Machine(slowness=lambda now: 2.0)
    report, measurements = run(
        machine,
        [make_subject(tmp_path, k) for k in range(3)],
        reference,
        settings=replace(SETTINGS, group_size=1),
        anchor_ms=None,
    )
    assert report.anchor_ms == pytest.approx(2 * REFERENCE_MS)
    assert {m.drift.anchor_ms for m in measurements} == {report.anchor_ms}


@pytest.mark.parametrize("fails", ["open", "infer", "turn 2", "turn 5"])
def test_one_failing_subject_leaves_the_others(
    fails: str, tmp_path: Path, reference: Subject
) -> None:
    subjects = [
        make_subject(tmp_path, 0),
        make_subject(tmp_path, 1, fails=fails),
        make_subject(tmp_path, 2),
    ]
    report, measurements = run(Machine(), subjects, reference)
    outcome = {m.subnet_id: m for m in measurements}
    failed = outcome.pop(subjects[1].subnet.id)
    assert failed.error == "RuntimeError: tensor"
    assert failed.encoder_ms is None
    assert failed.conditions is not None
    assert [m.encoder_ms for m in outcome.values()] == [pytest.approx(100)] * 2
    assert (report.measured, report.failed) == (2, 1)


def test_a_missing_file_is_an_error_record(tmp_path: Path, reference: Subject) -> None:
    subject = make_subject(tmp_path, 0)
    subject.decoder.unlink()
    _, (measurement,) = run(Machine(), [subject], reference)
    assert "decoder-0.onnx" in measurement.error


@pytest.mark.parametrize("fails", ["open", "turn 6"])
def test_a_failing_reference_ends_the_session(tmp_path: Path, fails: str) -> None:
    machine = Machine()
    with pytest.raises(ProfileError, match=r"nothing can be timed: RuntimeError: tensor$"):
        run(machine, [make_subject(tmp_path, 0)], make_subject(tmp_path, 99, fails=fails))
    assert not machine.open_paths


def test_an_interruption_loses_the_current_group_only(tmp_path: Path, reference: Subject) -> None:
    machine = Machine()
    subjects = [make_subject(tmp_path, k, fails="turn 5", interrupt=k > 2) for k in range(5)]
    fine = [make_subject(tmp_path, k) for k in range(5, 8)]
    measurements: list[Measurement] = []
    with pytest.raises(KeyboardInterrupt):
        measure(
            [*subjects, *fine],
            reference=reference,
            target=TARGET,
            supernet_id="fake",
            anchor_ms=None,
            settings=replace(SETTINGS, group_size=2, seed=1),
            on_measurement=measurements.append,
            open_runner=machine.open,
            clock=machine.clock,
        )
    assert len(measurements) in (2, 4, 6)
    assert not machine.open_paths
    assert gc.isenabled()


def subject_order(machine: Machine) -> list[str]:
    """Encoders in the order of their turns, without the reference and the warm-up's single runs."""
    stems = [stem for stem, n in machine.turns if stem.startswith("encoder") and n > 1]
    turns = [stem for k, stem in enumerate(stems) if k == 0 or stems[k - 1] != stem]
    return [stem for stem in turns if stem != "encoder-99"]


def test_rounds_are_random_but_seeded(tmp_path: Path, reference: Subject) -> None:
    subjects = [make_subject(tmp_path, k, encoder_s=0.02) for k in range(6)]
    orders = []
    for seed in (0, 0, 1):
        machine = Machine()
        run(machine, subjects, reference, settings=replace(SETTINGS, seed=seed, slice_s=0.1))
        orders.append(subject_order(machine))
    same, again, other = orders
    assert same == again
    assert same != other
    rounds = [tuple(same[start : start + 6]) for start in range(0, len(same), 6)]
    assert len(rounds) == SETTINGS.min_rounds
    assert all(len(set(names)) == 6 for names in rounds)
    assert len(set(rounds)) > 1


def test_the_reference_stands_around_every_round(tmp_path: Path, reference: Subject) -> None:
    machine = Machine()
    run(machine, [make_subject(tmp_path, k, encoder_s=0.02) for k in range(4)], reference)
    turns = [stem for stem, n in machine.turns if n > 1 and stem.startswith("encoder")]
    distinct = [stem for k, stem in enumerate(turns) if k == 0 or turns[k - 1] != stem]
    places = [k for k, stem in enumerate(distinct) if stem == "encoder-99"]
    assert places == list(range(0, 5 * SETTINGS.min_rounds + 1, 5))
    assert places[-1] == len(distinct) - 1


def test_steady_subjects_stop_early_and_noisy_ones_go_on(
    tmp_path: Path, reference: Subject
) -> None:
    subject = make_subject(tmp_path, 0)
    turns = {}
    for noise in (0.0, 0.3):
        machine = Machine(noise=noise)
        _, (measurement,) = run(machine, [subject], reference)
        turns[noise] = measurement.encoder.n
    assert turns[0.0] == SETTINGS.min_rounds
    assert turns[0.3] > SETTINGS.min_rounds


def test_the_budget_ends_a_group_but_not_before_the_least_rounds(
    tmp_path: Path, reference: Subject
) -> None:
    settings = replace(SETTINGS, relative_half_width=1e-9)
    turns = {}
    for budget in (0.1, 3.0, 1e9):
        machine = Machine(noise=0.3)
        _, (measurement,) = run(
            machine,
            [make_subject(tmp_path, 0)],
            reference,
            settings=replace(settings, budget_s=budget),
        )
        turns[budget] = measurement.encoder.n
    assert turns[0.1] == settings.min_rounds < turns[3.0] < turns[1e9] == settings.max_rounds


def test_what_other_models_left_in_the_caches_is_not_measured(
    tmp_path: Path, reference: Subject
) -> None:
    short = make_subject(tmp_path, 0, encoder_s=0.012)
    long = make_subject(tmp_path, 1, encoder_s=0.5)
    _, measurements = run(Machine(cold_s=0.01), [short, long], reference)
    by_id = {m.subnet_id: m for m in measurements}
    assert by_id[short.subnet.id].encoder.p50_ms == pytest.approx(12)
    assert by_id[short.subnet.id].encoder.n == 2 * SETTINGS.min_rounds
    assert by_id[long.subnet.id].encoder.n == SETTINGS.min_rounds
    assert by_id[long.subnet.id].encoder.p50_ms == pytest.approx(510)


def test_only_a_group_and_the_reference_are_open(tmp_path: Path, reference: Subject) -> None:
    machine = Machine()
    subjects = [make_subject(tmp_path, k) for k in range(7)]
    run(machine, subjects, reference, settings=replace(SETTINGS, group_size=3))
    assert machine.most_open == 2 * (3 + 1)
    assert not machine.open_paths


def test_garbage_is_not_collected_while_timing(tmp_path: Path, reference: Subject) -> None:
    machine = Machine()
    run(machine, [make_subject(tmp_path, 0)], reference)
    assert not machine.collected
    assert gc.isenabled()


def test_models_get_an_image_and_a_box(tmp_path: Path, reference: Subject) -> None:
    machine = Machine()
    runners = []

    def remember(path: Path):
        runners.append(machine.open(path))
        return runners[-1]

    measure(
        [make_subject(tmp_path, 0, decoder_s=0.02)],
        reference=reference,
        target=TARGET,
        supernet_id="fake",
        anchor_ms=None,
        settings=SETTINGS,
        on_measurement=lambda measurement: None,
        open_runner=remember,
        clock=machine.clock,
    )
    encoder, decoder = runners[-2:]
    image = encoder.seen["image"]
    assert image.shape == (TARGET.batch, 3, 8, 8)
    assert abs(image.mean()) < 0.2
    assert image.std() == pytest.approx(1, abs=0.15)
    assert decoder.seen["image_embeddings"].shape == (1, 4, 2, 2)
    assert decoder.seen["point_labels"].tolist() == [[2, 3]]
    assert decoder.seen["point_coords"].tolist() == [[[16, 16], [48, 48]]]


def test_measurements_carry_their_origin(tmp_path: Path, reference: Subject) -> None:
    report, (measurement,) = run(Machine(), [make_subject(tmp_path, 0)], reference, repeat=3)
    assert (measurement.session_id, measurement.repeat) == (report.session_id, 3)
    assert (measurement.supernet_id, measurement.target) == ("fake", TARGET)
    assert Measurement.from_json(measurement.to_json()) == measurement


def test_no_subjects_are_no_error(reference: Subject) -> None:
    report, measurements = run(Machine(), [], reference, anchor_ms=None)
    assert (report.measured, report.anchor_ms, measurements) == (0, None, [])


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_rounds": 1},
        {"min_rounds": 4, "max_rounds": 3},
        {"group_size": 0},
        {"max_calls": 0},
        {"budget_s": 0.0},
        {"relative_half_width": math.nan},
        {"max_half_width": 0.0},
        {"deadline_s": -1.0},
    ],
)
def test_settings_that_can_not_work(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        replace(SETTINGS, **wrong)
