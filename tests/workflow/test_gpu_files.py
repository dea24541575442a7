"""On a GPU, the reference's engine stays, and a bundle's own engines are timed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import tiny_supernet

from hwsearch.profiler.session import SessionSettings, Subject
from hwsearch.profiles import ProfileStore
from hwsearch.progress import SilentProgress
from hwsearch.records import Measurement, Target
from hwsearch.workflow.timing import Stopwatch

TARGET = Target(
    device="cuda:0", device_name="NVIDIA L4", runtime="tensorrt", runtime_version="11.4"
)


class Seen(Exception):  # noqa: N818 - it ends the measurement where the files are known
    pass


@pytest.fixture
def stopwatch(tmp_path: Path) -> Stopwatch:
    store = ProfileStore(tmp_path / "profiles", TARGET)
    return Stopwatch(tiny_supernet(), store, SessionSettings(), SilentProgress())


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[Subject]:
    """What is handed over to be timed; nothing is."""
    subjects: list[Subject] = []

    def measure(given: list[Subject], *, reference: Subject, **_: object) -> None:
        for subject in (*given, reference):
            for path in (subject.encoder, subject.decoder):
                assert path.stat().st_size > 0
            subjects.append(subject)
        raise Seen

    monkeypatch.setattr("hwsearch.workflow.timing.measure", measure)
    return subjects


def bundle(stopwatch: Stopwatch, folder: Path) -> Subject:
    with stopwatch._exported([stopwatch.supernet.space.smallest]) as (subject,):
        for name, path in (("encoder", subject.encoder), ("decoder", subject.decoder)):
            (folder / f"{name}.onnx").write_bytes(path.read_bytes())
        (folder / "encoder.onnx.data").write_bytes(b"weights")
    return replace(subject, encoder=folder / "encoder.onnx", decoder=folder / "decoder.onnx")


def test_the_reference_is_one_engine_for_all_sessions(stopwatch: Stopwatch) -> None:
    configs = [stopwatch.supernet.space.smallest, stopwatch.reference]
    with stopwatch._exported(configs) as (subject, reference):
        assert subject.encoder.parent != reference.encoder.parent
        engine = reference.encoder.with_suffix(".engine")
        engine.write_bytes(b"built")
        first = reference.encoder.read_bytes()
    assert not subject.encoder.exists()
    decoder = reference.decoder.read_bytes()
    reference.decoder.write_bytes(b"what an older version left")
    with stopwatch._exported(configs[1:]) as (again,):
        assert again == reference
        assert again.encoder.read_bytes() == first, "the same bytes, so that its engine is taken"
        assert again.decoder.read_bytes() == decoder
        assert engine.exists()
    assert engine.is_relative_to(stopwatch.store.folder)


def test_a_bundles_engines_are_timed_as_they_are_shipped(
    stopwatch: Stopwatch, timed: list[Subject], tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    subject = bundle(stopwatch, folder)
    for name in ("encoder", "decoder"):
        (folder / f"{name}.engine").write_bytes(b"built")
    with pytest.raises(Seen):
        stopwatch.time_files(subject)
    assert timed[0].encoder == folder / "encoder.engine"
    assert timed[0].decoder == folder / "decoder.engine"
    assert timed[0].subnet == subject.subnet
    assert timed[1].encoder.suffix == ".onnx"


def test_a_bundles_engine_is_no_repeat_of_the_profiles(
    stopwatch: Stopwatch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def measure(
        given: list[Subject], *, on_measurement: Callable[[Measurement], None], **_: object
    ) -> None:
        on_measurement(
            Measurement(
                session_id="s",
                supernet_id=stopwatch.supernet.id,
                target=TARGET,
                subnet_id=given[0].subnet.id,
                subnet=given[0].subnet,
                repeat=0,
                encoder_ms=1.0,
                decoder_ms=0.5,
            )
        )

    monkeypatch.setattr("hwsearch.workflow.timing.measure", measure)
    assert stopwatch.time_files(bundle(stopwatch, tmp_path)).latency_ms() == 1.5
    assert not stopwatch.profile.measurements


def test_nothing_is_built_inside_a_bundle_without_engines(
    stopwatch: Stopwatch, timed: list[Subject], tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    subject = bundle(stopwatch, folder)
    with pytest.raises(Seen):
        stopwatch.time_files(subject)
    assert timed[0].encoder.parent != folder
    assert timed[0].encoder.name == "encoder.onnx"
    assert not timed[0].encoder.exists(), "the folder is a temporary one"
