"""Real worker processes, and what becomes of a session when they die."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import ClassVar

import numpy as np
import psutil
import pytest
import torch
from fakes import make_subject
from troubles import RefusedForks, open_runner

from hwsearch.errors import DeviceError, HwsearchError, ProfileError
from hwsearch.profiler import remote
from hwsearch.profiler.failures import NurseryError, WorkerError
from hwsearch.profiler.pair import Subject
from hwsearch.profiler.remote import Worker
from hwsearch.profiler.session import SessionReport, SessionSettings, measure
from hwsearch.profiler.supervisor import Nursery
from hwsearch.records import Measurement, Runtime, Target

TARGET = Target(device="cpu", device_name="Fake", runtime="onnxruntime", runtime_version="1")
SETTINGS = SessionSettings(
    warmup_s=0.0, min_rounds=3, max_rounds=3, slice_s=0.0, group_size=8, deadline_s=60.0
)
IMAGE = {"image": np.zeros((1, 3, 8, 8), "float32")}


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery(open_runner) as nursery:
        yield nursery


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """What workers are asked in the test."""
    asked: list[tuple[object, ...]] = []
    ask = Worker.ask
    monkeypatch.setattr(
        Worker, "ask", lambda self, *request: asked.append(request) or ask(self, *request)
    )
    return asked


def troubled(folder: Path, number: int, trouble: str = "", moment: str = "") -> Subject:
    """A subject whose encoder gets into trouble at `open` or in `turn K`."""
    subject = make_subject(folder, number)
    subject.encoder.write_text(json.dumps({"trouble": trouble, "moment": moment}))
    subject.decoder.write_text(json.dumps({"trouble": "", "moment": ""}))
    return subject


def run(
    subjects: Sequence[Subject],
    reference: Subject,
    nursery: Nursery,
    settings: SessionSettings = SETTINGS,
) -> tuple[SessionReport, dict[str, Measurement]]:
    measurements: list[Measurement] = []
    report = measure(
        subjects,
        reference=reference,
        target=TARGET,
        supernet_id="fake",
        anchor_ms=None,
        settings=settings,
        on_measurement=measurements.append,
        nursery=nursery,
    )
    return report, {measurement.subnet_id: measurement for measurement in measurements}


def nursery_process(nursery: Nursery, worker: Worker) -> psutil.Process:
    return psutil.Process(worker.process).parent()


def gone(process: psutil.Process, seconds: float = 10.0) -> bool:
    """Whether a process ends; one that nobody has waited for yet counts as ended."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:  # it ended between the two questions
            return True
        time.sleep(0.02)
    return False


OUTCOMES = {
    "abort": r"^The worker process was ended by SIGABRT \(terminate called: tensor burst\)\.$",
    "hang": r"^The worker process gave no answer in 8 s and was ended\.$",
    "lack_memory": r"^MemoryError: Unable to allocate 3 GiB$",
    "be_killed": r"^The worker process was killed, as the system does where memory runs out\.$",
    "leave": r"^The worker process ended with exit code 3\.$",
    "refuse": r"^This device is asleep\.$",
}


@pytest.mark.parametrize("moment", ["open", "turn 4"])  # turns 1 and 2 are the warm-up
def test_every_trouble_is_a_record_and_the_others_go_on(
    moment: str, tmp_path: Path, nursery: Nursery
) -> None:
    subjects = {
        trouble: troubled(tmp_path, number, trouble, moment)
        for number, trouble in enumerate(OUTCOMES)
    }
    fine = [troubled(tmp_path, number) for number in range(20, 23)]
    settings = replace(SETTINGS, deadline_s=8.0, group_size=5)
    report, found = run([*subjects.values(), *fine], troubled(tmp_path, 99), nursery, settings)
    for trouble, subject in subjects.items():
        error = found[subject.subnet.id].error
        assert error is not None
        assert re.search(OUTCOMES[trouble], error), error
    for subject in fine:
        assert found[subject.subnet.id].latency_ms() == pytest.approx(2.0)
    assert (report.measured, report.failed) == (len(fine), len(subjects))


@pytest.mark.parametrize("moment", ["open", "turn 4"])
def test_the_death_of_the_reference_ends_the_session_in_a_sentence(
    moment: str, tmp_path: Path, nursery: Nursery
) -> None:
    sentence = r"^The reference subnet \w+ can't be run, so nothing can be timed: The worker .*ABRT"
    with pytest.raises(ProfileError, match=sentence) as caught:
        run([troubled(tmp_path, 0)], troubled(tmp_path, 99, "abort", moment), nursery)
    assert "\n" not in str(caught.value)


def test_the_death_of_the_nursery_is_nobody_elses_failure(tmp_path: Path) -> None:
    with Nursery(open_runner) as nursery, Worker(nursery, deadline_s=60) as worker:
        nursery_process(nursery, worker).kill()
        with pytest.raises(NurseryError, match="run the command again"):
            run([troubled(tmp_path, 0)], troubled(tmp_path, 99), nursery)


def test_where_no_more_processes_can_be_had_groups_are_smaller(tmp_path: Path) -> None:
    subjects = [troubled(tmp_path, number) for number in range(4)]
    with Nursery(RefusedForks({3})) as nursery:  # the reference's is the first, number 0
        report, found = run(subjects, troubled(tmp_path, 99), nursery)
    assert len(report.rounds) == 2
    assert (report.measured, report.failed) == (4, 0)
    assert found.keys() == {subject.subnet.id for subject in subjects}


@pytest.mark.parametrize("refused", [{0}, {1, 2}], ids=["reference", "all subjects"])
def test_a_lack_of_processes_is_no_subjects_failure(tmp_path: Path, refused: set[int]) -> None:
    subjects = [troubled(tmp_path, number) for number in range(2)]
    sentence = rf"could not be started: {os.strerror(errno.EAGAIN)}\..* it goes on where it was"
    with Nursery(RefusedForks(refused)) as nursery, pytest.raises(NurseryError, match=sentence):
        run(subjects, troubled(tmp_path, 99), nursery)


def test_an_opener_that_does_not_load_is_a_sentence() -> None:
    with (
        Nursery(open_runner, runtime=("no_such_runtime",)) as nursery,
        Worker(nursery, deadline_s=60) as worker,
        pytest.raises(WorkerError, match=r"exit code 1 \(ModuleNotFoundError: .*no_such_runtime"),
    ):
        worker.open(Path("model.onnx"))


def test_memory_is_that_of_the_subject_alone(tmp_path: Path, nursery: Nursery) -> None:
    heavy = troubled(tmp_path, 0, "take_memory", "turn 3")
    light = troubled(tmp_path, 1)
    _, found = run([heavy, light], troubled(tmp_path, 99), nursery)
    mebibyte = 1 << 20
    assert 60 * mebibyte < found[heavy.subnet.id].memory_bytes < 100 * mebibyte
    assert 0 <= found[light.subnet.id].memory_bytes < 30 * mebibyte


def test_inputs_cross_the_pipe_once_and_results_are_arrays(
    tmp_path: Path, nursery: Nursery, requests: list[tuple[object, ...]]
) -> None:
    with Worker(nursery, deadline_s=60) as worker:
        runner = worker.open(troubled(tmp_path, 0).encoder)
        assert [spec.name for spec in runner.inputs] == ["image"]
        assert runner.infer(IMAGE)["image_embeddings"].shape == (1, 4, 2, 2)
        assert runner.time(IMAGE, 4).tolist() == [0.001] * 4
        runner.time({"image": IMAGE["image"].copy()}, 1)
    inputs = [request[2] for request in requests if request[0] in ("infer", "time")]
    assert [given is None for given in inputs] == [False, True, False]


def test_inputs_are_sent_anew_after_a_run_that_failed(
    tmp_path: Path, nursery: Nursery, requests: list[tuple[object, ...]]
) -> None:
    """The worker may have taken the new ones before it failed."""
    with Worker(nursery, deadline_s=60) as worker:
        runner = worker.open(troubled(tmp_path, 0, "lack_memory", "turn 2").encoder)
        runner.time(IMAGE, 1)
        with pytest.raises(WorkerError, match="MemoryError"):
            runner.time({"image": IMAGE["image"] + 1}, 1)
        runner.time(IMAGE, 1)
    inputs = [request[2] for request in requests if request[0] == "time"]
    assert all(given is not None for given in inputs)


def test_a_worker_that_waits_does_not_run(tmp_path: Path, nursery: Nursery) -> None:
    with Worker(nursery, deadline_s=60) as worker:
        runner = worker.open(troubled(tmp_path, 0).encoder)
        runner.time(IMAGE, 1)
        processes = [psutil.Process(worker.process), nursery_process(nursery, worker)]
        while processes[0].status() != psutil.STATUS_SLEEPING:  # on its way back from its answer
            time.sleep(0.01)
        before = [sum(process.cpu_times()[:2]) for process in processes]
        time.sleep(0.3)
        assert [sum(process.cpu_times()[:2]) for process in processes] == before
        assert processes[1].num_threads() == 1  # who forks must have no other


def test_a_worker_never_loads_torch(tmp_path: Path) -> None:
    with Nursery.for_target(TARGET) as nursery, Worker(nursery, deadline_s=60) as worker:
        with pytest.raises(DeviceError, match="no model file"):
            worker.open(tmp_path / "model.onnx")
        maps = Path(f"/proc/{worker.process}/maps")
        if not maps.exists():
            pytest.skip("this system does not tell what a process has loaded")
        loaded = maps.read_text()
        assert "onnxruntime" in loaded
        assert "libtorch" not in loaded


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "torch"])
def test_what_a_runtime_takes_by_itself_is_not_the_models(runtime: Runtime, tmp_path: Path) -> None:
    pytest.importorskip(runtime)
    if runtime == "torch":  # loads more of itself with the first file, even one that isn't ours
        program = torch.export.export(torch.nn.Linear(4, 4), (torch.zeros(1, 4),))
        torch.export.save(program, tmp_path / "model")
    target = TARGET.model_copy(update={"runtime": runtime})
    with Nursery.for_target(target) as nursery, Worker(nursery, deadline_s=120) as worker:
        with pytest.raises(DeviceError):
            worker.open(tmp_path / "model")
        assert worker.memory_bytes() < 100 << 20


def test_time_that_a_session_is_held_is_not_waited_for() -> None:
    """As by Ctrl-Z, which holds its workers too, while clocks go on."""

    class Held:
        """A pipe whose worker needs three more seconds, and which is held for an hour before."""

        asked: ClassVar[list[float]] = []

        def poll(self, seconds: float) -> bool:
            self.asked.append(seconds)
            return sum(self.asked) - min(self.asked) >= 3  # all but the first, in which it was held

    assert remote._answers(Held(), 5.0)
    assert sum(Held.asked) <= 5.0
    Held.asked.clear()
    assert not remote._answers(Held(), 3.0)


def test_a_closed_worker_is_gone_and_says_so(tmp_path: Path, nursery: Nursery) -> None:
    with Worker(nursery, deadline_s=60) as worker:
        runner = worker.open(troubled(tmp_path, 0).encoder)
        process = psutil.Process(worker.process)
    assert gone(process, 0.5)
    with pytest.raises(HwsearchError, match="closed"):
        runner.time(IMAGE, 1)


def be_a_session(processes: Connection, folder: Path) -> None:
    """Tell the processes of a session, and wait for a worker that hangs."""
    nursery = Nursery(open_runner)
    waiting, hanging = (Worker(nursery, deadline_s=100) for _ in range(2))
    processes.send([waiting.process, hanging.process, nursery_process(nursery, waiting).pid])
    hanging.open(troubled(folder, 0, "hang", "open").encoder)


def test_nobody_outlives_a_session_that_is_killed(tmp_path: Path) -> None:
    """Neither a worker that waits nor one that hangs, and not the nursery."""
    context = multiprocessing.get_context("spawn")
    told, tells = context.Pipe(duplex=False)
    session = context.Process(target=be_a_session, args=(tells, tmp_path), daemon=True)
    session.start()
    tells.close()
    processes = [psutil.Process(number) for number in told.recv()]
    time.sleep(0.3)
    assert all(process.is_running() for process in processes)
    session.kill()
    session.join()
    assert all(gone(process) for process in processes)
