"""Workers of a search: they share the trials, outlive each other, and end with the search."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import optuna
import psutil
import pytest
from crew import open_crew, prepare
from optuna.trial import TrialState

from hwsearch.errors import HwsearchError
from hwsearch.progress import SilentProgress
from hwsearch.search.storage import open_storage
from hwsearch.search.trials import worker_of
from hwsearch.workflow.workspace import Workspace

pytestmark = pytest.mark.slow

TOTAL, PATIENCE_S = 40, 120.0


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    place = Workspace(tmp_path)
    prepare(place)
    return place


def trials(workspace: Workspace) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="tiny", storage=open_storage(workspace.storage)).trials


def until(condition) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def children(pid: int) -> Iterator[psutil.Process]:
    """Workers: children that were spawned, without multiprocessing's own helper."""
    for child in psutil.Process(pid).children():
        with suppress(psutil.NoSuchProcess):  # it ended in the meantime
            if "spawn_main" in " ".join(child.cmdline()):
                yield child


def test_workers_share_the_trials_and_one_that_is_killed_is_made_up_for(workspace: Workspace):
    crew, study = open_crew(workspace, workers=2)

    def kill_one() -> None:
        until(lambda: len({worker_of(t).pid for t in trials(workspace) if worker_of(t)}) == 2)
        os.kill(worker_of(trials(workspace)[-1]).pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    crew.run_trials(study, TOTAL, progress=SilentProgress())
    killer.join()
    counted = Counter(trial.state for trial in trials(workspace))
    assert counted[TrialState.COMPLETE] == TOTAL
    assert counted[TrialState.RUNNING] == counted[TrialState.WAITING] == 0
    judged = [row.deployment for row in study.judged]
    assert len(set(judged)) == len(judged)
    cached = workspace.accuracies.read_text().splitlines()
    assert len(cached) == len(judged), "an accuracy was found twice"


def test_ctrl_c_ends_all_workers_and_leaves_a_study_to_resume(workspace: Workspace):
    script = Path(__file__).parent / "crew.py"
    paths = os.pathsep.join(filter(None, sys.path))
    search = subprocess.Popen(
        [sys.executable, script, workspace.root, "100000"],
        env=os.environ | {"PYTHONPATH": paths},
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: len(list(children(search.pid))) == 2)
    workers = list(children(search.pid))
    storage = Path(workspace.storage.removeprefix("sqlite:///"))
    until(lambda: storage.exists() and len(trials(workspace)) > 4)
    os.killpg(search.pid, signal.SIGINT)
    _, errors = search.communicate(timeout=PATIENCE_S)
    assert search.returncode == 130, errors
    assert "Traceback" not in errors
    until(lambda: not any(worker.is_running() for worker in workers))
    done = sum(trial.state == TrialState.COMPLETE for trial in trials(workspace))
    assert not [trial for trial in trials(workspace) if trial.state == TrialState.RUNNING]
    crew, study = open_crew(workspace, workers=1)
    crew.run_trials(study, done + 3, progress=SilentProgress())
    assert len(study.judged) == done + 3


def test_workers_end_with_a_search_that_is_killed(workspace: Workspace):
    script = Path(__file__).parent / "crew.py"
    paths = os.pathsep.join(filter(None, sys.path))
    search = subprocess.Popen(
        [sys.executable, script, workspace.root, "100000"],
        env=os.environ | {"PYTHONPATH": paths},
    )
    until(lambda: len(list(children(search.pid))) == 2)
    workers = list(children(search.pid))
    search.kill()
    search.wait()
    until(lambda: not any(worker.is_running() for worker in workers))


def test_workers_that_are_all_asked_to_end_do_not_pass_for_done(workspace: Workspace):
    crew, study = open_crew(workspace, workers=2)

    def end_all() -> None:
        until(lambda: len({worker_of(t).pid for t in trials(workspace) if worker_of(t)}) == 2)
        for worker in children(os.getpid()):
            worker.terminate()

    ender = threading.Thread(target=end_all)
    ender.start()
    with pytest.raises(HwsearchError, match="All 2 workers were ended"):
        crew.run_trials(study, 100_000, progress=SilentProgress())
    ender.join()


def test_what_a_worker_raises_reaches_the_search(workspace: Workspace):
    crew, study = open_crew(workspace)
    (workspace.root / "tiny" / "supernet.json").write_text("{")
    with pytest.raises(HwsearchError, match=r"supernet\.json"):
        crew.run_trials(study, TOTAL, progress=SilentProgress())
