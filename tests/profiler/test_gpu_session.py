"""The session of the CPU drives a GPU too: longer turns, its memory, its state."""

from __future__ import annotations

import resource
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from fakes import FakeRunner, Machine, make_subject

from hwsearch.errors import DeviceError
from hwsearch.profiler import conditions, session
from hwsearch.profiler.remote import Worker
from hwsearch.profiler.session import SessionReport, SessionSettings, measure
from hwsearch.profiler.settings import settings_for
from hwsearch.profiler.supervisor import Nursery
from hwsearch.profiler.worker import Models
from hwsearch.records import GpuState, Measurement, Target
from hwsearch.runtime.runner import Array, Seconds

GPU = Target(device="cuda:0", device_name="Fake", runtime="tensorrt", runtime_version="11.4")
CPU = Target(device="cpu", device_name="Fake", runtime="onnxruntime", runtime_version="1")
SETTINGS = SessionSettings(warmup_s=0.0, min_rounds=3, max_rounds=3, group_size=2)


def test_a_gpu_gets_longer_turns_and_time_to_build() -> None:
    assert settings_for(CPU, SETTINGS) is SETTINGS
    longer = settings_for(GPU, SETTINGS)
    assert longer.max_calls > SETTINGS.max_calls
    assert longer.settle_calls > SETTINGS.settle_calls
    assert longer.deadline_s > SETTINGS.deadline_s
    assert (longer.min_rounds, longer.slice_s) == (SETTINGS.min_rounds, SETTINGS.slice_s)
    patient = SessionSettings(max_calls=500, deadline_s=1e5)
    assert (settings_for(GPU, patient).max_calls, settings_for(GPU, patient).deadline_s) == (
        500,
        1e5,
    )


@dataclass
class SeenMachine(Machine):
    """Its turns last until somebody looked at it several times, where somebody is to."""

    is_watched: bool = False
    busy: bool = False
    closed: int = 0
    looked: threading.Event = field(default_factory=threading.Event)

    def open(self, path: Path) -> FakeRunner:
        return SeenRunner(self, path)


class SeenRunner(FakeRunner):
    def time(self, inputs: Mapping[str, Array], n: int) -> Seconds:
        seconds = super().time(inputs, n)
        if self._machine.is_watched and n > 1:  # a turn; warming up goes by single runs
            for _ in range(2):
                self._machine.looked.clear()
                assert self._machine.looked.wait(60), "nobody looks while a turn runs"
        return seconds


def measured(
    target: Target, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[SessionReport, list[Measurement], Machine]:
    """A session on a GPU that runs ever hotter; what a look finds depends on how busy it was."""
    machine, found = SeenMachine(cold_s=0.001), []

    def state() -> GpuState:
        busy = machine.busy
        machine.looked.set()
        return GpuState(
            driver="580",
            sm_clock_mhz=2000 - len(machine.turns) if busy else 300,
            max_sm_clock_mhz=2000,
            memory_clock_mhz=6000,
            temperature_c=40,
            throttled_by=("heat",) if len(machine.turns) > 600 else (),
        )

    @contextmanager
    def gauge(device: str) -> Iterator[Callable[[], GpuState]]:
        assert device == "cuda:0"
        yield state
        machine.closed += 1

    class Watch(conditions.GpuWatch):
        @contextmanager
        def turn(self) -> Iterator[None]:
            machine.busy = True
            with super().turn():
                yield
            machine.busy = False

    monkeypatch.setattr(session, "GpuWatch", Watch)
    monkeypatch.setattr(conditions, "gpu_gauge", gauge)
    monkeypatch.setattr(conditions, "_LEAD_S", 0.0)
    monkeypatch.setattr(conditions, "_PAUSE_S", 0.0)
    machine.is_watched = target is GPU
    report = measure(
        [make_subject(folder, number, encoder_s=0.002, decoder_s=0.001) for number in range(3)],
        reference=make_subject(folder, 9, encoder_s=0.001, decoder_s=0.001),
        target=target,
        supernet_id="fake",
        anchor_ms=None,
        settings=SETTINGS,
        on_measurement=found.append,
        open_runner=machine.open,
        clock=machine.clock,
    )
    return report, found, machine


def test_runs_on_a_gpu_are_interleaved_like_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, found, machine = measured(GPU, tmp_path, monkeypatch)
    assert [m.encoder_ms for m in found] == pytest.approx(3 * [2.0])
    longest = max(n for _, n in machine.turns)
    assert longest > 20, "a turn of a GPU has more calls than one of a CPU"
    # As many as fit into the slice, by the time of a run after another model's.
    assert found[0].encoder.n == 3 * int(SETTINGS.slice_s / 0.003)


def test_a_gpu_is_looked_at_while_it_is_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, found, machine = measured(GPU, tmp_path, monkeypatch)
    first, last = found[0].conditions.gpu, found[-1].conditions.gpu
    assert first.driver == "580"
    assert 300 < last.sm_clock_mhz < first.sm_clock_mhz < 2000
    assert len(machine.turns) > 600
    assert machine.closed == 2, "once for each group"
    assert last.throttled_by == report.throttled_by == ("heat",)


def test_a_gpu_that_nobody_tells_of_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with conditions.GpuWatch(GPU) as watch:
        with watch.turn():
            pass
        assert watch.worst() is None


def test_a_look_that_outlasts_its_turn_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, over = threading.Event(), threading.Event()
    idle = GpuState(
        driver="580",
        sm_clock_mhz=300,
        max_sm_clock_mhz=2000,
        memory_clock_mhz=6000,
        temperature_c=40,
    )

    def read() -> GpuState:
        begun.set()
        assert over.wait(60)
        return idle

    monkeypatch.setattr(conditions, "gpu_gauge", lambda device: nullcontext(read))
    with conditions.GpuWatch(GPU) as watch:
        with watch.turn():
            assert begun.wait(60)
        over.set()
    assert watch.worst() is None


def test_nothing_is_asked_of_a_gpu_for_a_target_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, found, machine = measured(CPU, tmp_path, monkeypatch)
    assert {m.conditions.gpu for m in found} == {None}
    assert report.throttled_by == ()
    assert max(n for _, n in machine.turns) == SETTINGS.max_calls + 1


class Loaded:
    """A model that is open; on a GPU if it has a size there."""

    inputs = outputs = ()

    def infer(self, inputs: dict[str, Array]) -> dict[str, Array]:
        return {}

    def time(self, inputs: dict[str, Array], n: int) -> Seconds:
        return np.ones(n)


class LoadedOnGpu(Loaded):
    def __init__(self, path: Path) -> None:
        self.device_memory_bytes = int(path.stem)


def test_a_worker_loads_tensorrt_after_it_was_forked(tmp_path: Path) -> None:
    """The whole way to an engine, in a real process, up to the GPU that is not here."""
    pytest.importorskip(
        "tensorrt_rtx_bindings", reason='needs pip install "hwsearch[tensorrt-rtx]"'
    )
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    target = GPU.model_copy(update={"runtime": "tensorrt-rtx"})
    path = tmp_path / "encoder.onnx"
    path.write_bytes(b"a model")
    with Nursery.for_target(target) as nursery, Worker(nursery, deadline_s=120) as worker:
        loaded = Path(f"/proc/{worker.process}/maps")
        with pytest.raises(DeviceError, match=r"^cuda:0 can't be used: .+\.$"):
            worker.open(path)
        if loaded.exists():
            assert "tensorrt_rtx" in loaded.read_text()
            parent = psutil.Process(worker.process).parent()
            libraries = Path(f"/proc/{parent.pid}/maps").read_text()
            assert "libtorch" not in libraries
            assert "tensorrt" not in libraries


def test_memory_is_that_of_the_gpu_where_the_models_are() -> None:
    models = Models(LoadedOnGpu)
    models.open(Path("300.engine"))
    models.open(Path("45.engine"))
    assert models.memory_bytes() == 345
    others = Models(lambda path: Loaded())
    others.open(Path("1.onnx"))
    # What the process held once and gave back doesn't count: more than that has to be taken.
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    more = max(0, peak - psutil.Process().memory_info().rss) + (64 << 20)
    taken = np.ones(more, "uint8")
    assert others.memory_bytes() > 32 << 20
    assert taken.all()
