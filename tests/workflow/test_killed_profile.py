"""A profile whose process is killed again and again, and the one that goes on where it was."""

import os
import random
import signal
import time
from pathlib import Path

import psutil
import pytest
from tiny import tiny_supernet

from hwsearch.profiler.session import SessionSettings
from hwsearch.profiles import ProfileStore
from hwsearch.records import Target
from hwsearch.workflow.profile import profile_supernet
from hwsearch.workflow.workspace import Workspace

pytestmark = pytest.mark.slow

TARGET = Target(
    device="cpu", device_name="test", runtime="onnxruntime", runtime_version="1", threads=1
)
QUICK = SessionSettings(
    warmup_s=0.0, min_rounds=2, max_rounds=2, group_size=2, slice_s=0.0, max_half_width=1e9,
    max_drift=1e9,
)  # fmt: skip
SAMPLES, REPEATED = 16, 4
# What each kill waits for, so that every kind of moment is met however fast the machine is:
# nothing (files and the nursery are made then), workers at work, a line that was just written.
KILLS = (*["start"] * 3, *["workers", "line"] * 3, "workers")
MARK = "HWSEARCH_KILLED_PROFILE"


def profile(workspace: Workspace) -> None:
    profile_supernet(
        tiny_supernet(), target=TARGET, workspace=workspace, samples=SAMPLES, settings=QUICK
    )


def start(workspace: Workspace) -> int:
    """A process that profiles; forked, so that it does not load everything anew."""
    process = os.fork()
    if process == 0:
        os.environ[MARK] = str(workspace.root)
        try:
            profile(workspace)
            os._exit(0)
        except BaseException:  # noqa: BLE001 - it must not go on with pytest's own work
            os._exit(1)
    return process


def left_behind(workspace: Workspace) -> list[psutil.Process]:
    """Nurseries and workers of a workspace's profiles that are still there."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(workspace.root):
                found.append(process)
        except psutil.Error:
            continue
    return found


def stored(file: Path) -> bytes:
    return file.read_bytes() if file.exists() else b""


def has_ended(process: int) -> bool:
    """Whether a child has ended by itself; it can still be waited for."""
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def comes_to(moment: str, process: int, file: Path) -> bool:
    """Wait for a moment of a profile; False if the profile ends before it."""
    before = len(stored(file))
    while not has_ended(process):
        if moment == "start":
            return True
        if moment == "line" and len(stored(file)) > before:
            return True
        # The nursery is the profile's child and the workers are the nursery's.
        if moment == "workers" and len(psutil.Process(process).children(recursive=True)) > 1:
            return True
        time.sleep(0.005)
    return False


def test_ten_kills_lose_no_line_and_measure_nothing_twice(tmp_path):
    workspace = Workspace(tmp_path)
    file = ProfileStore(workspace.profiles, TARGET).measurements_file(tiny_supernet().id)
    draws = random.Random(4)
    kept, met = b"", []
    for moment in KILLS:
        process = start(workspace)
        if comes_to(moment, process, file):
            met.append(moment)
        time.sleep(draws.uniform(0.0, {"start": 0.6, "workers": 0.1, "line": 0.01}[moment]))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        now = stored(file)
        assert now.startswith(kept), "a line was lost"
        kept = now[: now.rfind(b"\n") + 1]
    assert met == list(KILLS), "the profile was at its end too soon"

    assert os.waitpid(start(workspace), 0)[1] == 0
    assert stored(file).startswith(kept)
    rows = ProfileStore(workspace.profiles, TARGET).read(tiny_supernet().id).measurements
    assert all(row.error is None for row in rows)
    firsts = [row.subnet_id for row in rows if row.repeat == 0]
    again = [row.subnet_id for row in rows if row.repeat == 1]
    assert len(firsts) == len(set(firsts)) == SAMPLES
    assert len(again) == len(set(again)) == REPEATED
    assert len(rows) == SAMPLES + REPEATED
    assert (
        max(map(rows.index, (r for r in rows if r.repeat == 0))) < SAMPLES
    )  # the pass comes first
    sessions = {row.subnet_id: row.session_id for row in rows if row.repeat == 0}
    assert all(row.session_id != sessions[row.subnet_id] for row in rows if row.repeat)
    assert len({row.drift.anchor_ms for row in rows}) == 1

    until = time.monotonic() + 20
    while left_behind(workspace) and time.monotonic() < until:
        time.sleep(0.05)
    assert not left_behind(workspace)
