from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from hwsearch import profile_lines
from hwsearch.errors import ProfileError, UsageError
from hwsearch.profile_lines import migrate
from hwsearch.profiles import Profile, ProfileStore, ReferenceAnchor
from hwsearch.records import Drift, LayerConfig, Measurement, SubnetConfig, Target

TARGET = Target(device="cpu", device_name="Fake", runtime="onnxruntime", runtime_version="1.30.0")
NEWER = TARGET.model_copy(update={"runtime_version": "1.31.0"})
FIXTURES = Path(__file__).parent / "fixtures"


def measurement(
    number: int,
    ms: float | None = 10.0,
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
        encoder_ms=None if error else ms,
        decoder_ms=None if error else 1.0,
        drifted=drifted,
        error=error,
    )


@pytest.fixture
def store(tmp_path: Path) -> ProfileStore:
    return ProfileStore(tmp_path / "profiles", TARGET)


def fill(store: ProfileStore, count: int = 3) -> list[Measurement]:
    measurements = [measurement(number) for number in range(count)]
    for one in measurements:
        store.append(one)
    return measurements


def test_what_is_appended_is_read_back_in_order(store: ProfileStore, tmp_path: Path) -> None:
    measurements = fill(store)
    assert store.read("fake").measurements == tuple(measurements)
    assert ProfileStore(tmp_path / "profiles", TARGET).read("fake").measurements == tuple(
        measurements
    )
    assert store.read("other").measurements == ()


def test_the_layout_is_the_documented_one(store: ProfileStore, tmp_path: Path) -> None:
    fill(store)
    folder = tmp_path / "profiles" / "cpu-fake-onnxruntime-fp32-t1-b1"
    assert len((folder / "measurements-fake.jsonl").read_text().splitlines()) == 3
    stored = json.loads((folder / "target.json").read_text())
    assert stored["target"] == TARGET.model_dump()
    assert stored["fingerprint"] == TARGET.fingerprint


def test_reading_leaves_no_trace(store: ProfileStore, tmp_path: Path) -> None:
    assert store.read("fake") == Profile()
    assert store.reference("fake") is None
    assert not (tmp_path / "profiles").exists()


@pytest.mark.parametrize("cut", [1, 2, 40, 300])
def test_a_torn_last_line_is_dropped_and_then_overwritten(store: ProfileStore, cut: int) -> None:
    measurements = fill(store)
    path = store.measurements_file("fake")
    path.write_bytes(path.read_bytes()[: -1 - cut])
    with pytest.warns(UserWarning, match=r"last line of .*measurements-fake\.jsonl was cut short"):
        assert store.read("fake").measurements == tuple(measurements[:2])
    store.append(measurement(7))
    assert store.read("fake").measurements == (*measurements[:2], measurement(7))


def test_a_whole_last_line_without_its_break_is_kept(store: ProfileStore) -> None:
    measurements = fill(store)
    path = store.measurements_file("fake")
    path.write_bytes(path.read_bytes()[:-1])
    assert store.read("fake").measurements == tuple(measurements)
    store.append(measurement(7))
    assert store.read("fake").measurements == (*measurements, measurement(7))


def test_a_whole_last_line_of_a_newer_version_is_not_lost(store: ProfileStore) -> None:
    fill(store)
    path = store.measurements_file("fake")
    path.write_bytes(path.read_bytes() + b'{"schema_version": 2}')
    before = path.read_bytes()
    with pytest.raises(ProfileError, match=r"^Line 4 of .* install a newer one"):
        store.read("fake")
    store.append(measurement(7))
    assert path.read_bytes().startswith(before)


@pytest.mark.parametrize("damage", ["{", "[1]", "null", '{"schema_version":1}', "\x00\x00"])
def test_a_damaged_line_is_named(store: ProfileStore, damage: str) -> None:
    fill(store)
    path = store.measurements_file("fake")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], damage, *lines[2:], ""]))
    with pytest.raises(ProfileError, match=r"^Line 2 of .*measurements-fake\.jsonl is damaged"):
        store.read("fake")


def test_files_merge_by_concatenation(store: ProfileStore, tmp_path: Path) -> None:
    here = fill(store, 2)
    elsewhere = ProfileStore(tmp_path / "elsewhere", TARGET)
    elsewhere.append(measurement(1, 20.0))
    elsewhere.append(measurement(2, 30.0))
    path = store.measurements_file("fake")
    path.write_bytes(path.read_bytes() + b"\n" + elsewhere.measurements_file("fake").read_bytes())
    merged = store.read("fake")
    assert merged == Profile(tuple(here) + elsewhere.read("fake").measurements)
    assert merged.latencies()[1] == [11.0, 21.0, 31.0]


def test_lines_of_two_anchors_are_held_against_one(store: ProfileStore, tmp_path: Path) -> None:
    """Both machines are equally fast; one of them was slow when its first session began."""
    for place, anchor_ms in ((store, 10.0), (ProfileStore(tmp_path / "busy", TARGET), 12.0)):
        mine = ReferenceAnchor(subnet_id="reference", anchor_ms=anchor_ms)
        place.agree_on_reference("fake", mine)
        row = measurement(place is store, 2.0 * anchor_ms)
        drift = Drift(around_ms=10.0, anchor_ms=anchor_ms)
        place.append(row.model_copy(update={"drift": drift, "decoder_ms": 0.1 * anchor_ms}))
    busy = ProfileStore(tmp_path / "busy", TARGET).measurements_file("fake")
    path = store.measurements_file("fake")
    path.write_bytes(path.read_bytes() + busy.read_bytes())
    assert store.read("fake").latencies()[1] == pytest.approx([21.0, 21.0])
    busy.write_bytes(busy.read_bytes() + path.read_bytes())
    (tmp_path / "busy" / TARGET.name / "target.json").unlink()  # the first line's anchor stands
    merged = ProfileStore(tmp_path / "busy", TARGET).read("fake")
    assert [row.latency_ms() for row in merged.measurements] == pytest.approx([25.2] * 3)


def append_many(root: Path, first: int, count: int) -> None:
    store = ProfileStore(root, TARGET)
    for number in range(first, first + count):
        store.append(measurement(number))


def test_two_processes_may_append_at_once(store: ProfileStore, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=append_many, args=(tmp_path / "profiles", first, 20))
        for first in (0, 100)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    widths = [m.subnet.layers[0].mlp_width for m in store.read("fake").measurements]
    assert sorted(widths) == [*range(1, 21), *range(101, 121)]


def test_another_fingerprint_is_refused(store: ProfileStore, tmp_path: Path) -> None:
    fill(store)
    sentence = r"runtime_version 1\.30\.0 there, 1\.31\.0 here.*--allow-stale"
    with pytest.raises(ProfileError, match=sentence):
        ProfileStore(tmp_path / "profiles", NEWER)
    stale = ProfileStore(tmp_path / "profiles", NEWER, allow_stale=True)
    assert len(stale.read("fake").measurements) == 3
    stale.append(measurement(9))
    assert ProfileStore(tmp_path / "profiles", TARGET).read("fake").measurements[-1] == (
        measurement(9)
    )


def test_a_damaged_target_is_named(store: ProfileStore, tmp_path: Path) -> None:
    fill(store)
    (store.folder / "target.json").write_text("{")
    with pytest.raises(ProfileError, match=r"target\.json is damaged"):
        ProfileStore(tmp_path / "profiles", TARGET)


def test_the_reference_is_set_once_for_each_supernet(store: ProfileStore, tmp_path: Path) -> None:
    first, second = (ReferenceAnchor(subnet_id=name, anchor_ms=12.5) for name in "ab")
    assert store.agree_on_reference("fake", first) == first
    assert store.agree_on_reference("fake", first) == first
    assert store.agree_on_reference("other", second) == second
    again = ProfileStore(tmp_path / "profiles", TARGET)
    assert (again.reference("fake"), again.reference("other")) == (first, second)
    assert again.reference("none") is None
    assert again.agree_on_reference("fake", second) == first
    assert again.reference("fake") == first


def test_latencies_are_the_last_first_repeat_of_each_subnet() -> None:
    profile = Profile(
        (
            measurement(0, 10.0),
            measurement(1, 20.0),
            measurement(0, 12.0),
            measurement(0, 99.0, repeat=1),
            measurement(2, 30.0, drifted=True),
            measurement(3, error="burst"),
            measurement(1, error="burst"),
            measurement(1, 25.0, drifted=True),
        )
    )
    configs, latencies = profile.latencies()
    assert configs == [measurement(0).subnet, measurement(1).subnet]
    assert latencies == [13.0, 21.0]
    assert profile.latencies("encoder")[1] == [12.0, 20.0]
    assert profile.latencies(include_drifted=True)[1] == [13.0, 21.0, 31.0]
    assert profile.measured_ids == {measurement(0).subnet_id, measurement(1).subnet_id}
    assert profile.failed == {measurement(3).subnet_id: "burst"}


def test_a_profile_of_the_first_version_is_read(tmp_path: Path) -> None:
    content = (FIXTURES / "measurements-v1.jsonl").read_bytes()
    target = Measurement.from_json(content.splitlines()[0]).target
    store = ProfileStore(tmp_path, target)
    store.folder.mkdir(parents=True)
    store.measurements_file("tiny").write_bytes(content)
    profile = store.read("tiny")
    configs, latencies = profile.latencies()
    assert [config.id for config in configs] == ["881c01f42825", "07a5db98cc7d"]
    assert latencies == pytest.approx([3.75, 5.5])
    assert list(profile.failed.values()) == ["RuntimeError: out of memory"]
    assert profile.measurements[0].drift.anchor_ms == 4.0


def test_old_lines_go_through_every_later_migration(
    store: ProfileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def to_v2(line: dict) -> dict:
        return {**line, "schema_version": 2, "steps": ["v2"]}

    def to_v3(line: dict) -> dict:
        return {**line, "schema_version": 3, "steps": [*line["steps"], "v3"]}

    migrations = (to_v2, to_v3)
    assert migrate({"schema_version": 1}, migrations)["steps"] == ["v2", "v3"]
    assert migrate({"schema_version": 2, "steps": []}, migrations)["steps"] == ["v3"]
    assert migrate({"schema_version": 3}, migrations) == {"schema_version": 3}


@pytest.mark.parametrize("version", [2, 0, None, "1"])
def test_a_version_that_is_not_known_is_refused(store: ProfileStore, version: object) -> None:
    with pytest.raises(UsageError, match=r"reads 1 to 1: install a newer one"):
        migrate({"schema_version": version})
    store.append(measurement(0))
    path = store.measurements_file("fake")
    line = {**json.loads(path.read_text()), "schema_version": version}
    path.write_text(json.dumps(line) + "\n")
    with pytest.raises(ProfileError, match="Line 1"):
        store.read("fake")


def test_a_full_disk_is_a_sentence(store: ProfileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store, 1)
    real_write = profile_lines.os.write
    with monkeypatch.context() as patch:
        patch.setattr(profile_lines.os, "write", lambda fd, data: real_write(fd, data[:20]))
        with pytest.raises(ProfileError, match="could not be written: No space left"):
            store.append(measurement(1))
    store.append(measurement(2))
    assert store.read("fake").measurements == (measurement(0), measurement(2))
