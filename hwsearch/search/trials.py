"""What the trials of a study say: their deployments, and whether their workers still live."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from pathlib import Path

import optuna
import psutil
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from hwsearch.records import Deployment, Record
from hwsearch.search.deployments import DeploymentSpace
from hwsearch.search.encoding import decode, parameter_sizes
from hwsearch.search.storage import GRACE_S, MOST_RETRIES, WORKER, quiet_optuna, retry_callback

PENDING = (TrialState.RUNNING, TrialState.WAITING)


class Worker(Record):
    """The process that runs a trial.

    `machine` tells one start of one machine, and one container on it; `started` tells processes
    apart that had the same `pid` one after the other (seconds since the epoch).
    """

    machine: str
    pid: int
    started: float

    @property
    def is_gone(self) -> bool:
        """Whether the process has ended; False where it belongs to another machine."""
        if self.machine != _machine():
            return False
        try:
            process = psutil.Process(self.pid)
            is_another = process.create_time() != self.started
            return bool(is_another or process.status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True


def this_worker() -> Worker:
    """The process that asks."""
    process = psutil.Process()
    return Worker(machine=_machine(), pid=process.pid, started=process.create_time())


def deployment_of(space: DeploymentSpace, trial: FrozenTrial) -> Deployment | None:
    """The deployment that a trial is about, or None as long as it has not chosen."""
    if not all(name in trial.params for name in parameter_sizes(space)):
        return None
    return decode(space, trial.params)


def is_given_up(trial: FrozenTrial) -> bool:
    """Whether a trial was the last retry of one that ended all its workers."""
    with quiet_optuna():
        history = RetryHeartbeatStaleTrialCallback.retry_history(trial)
    return trial.state == TrialState.FAIL and len(history) >= MOST_RETRIES


class LostTrials:
    """Finds the running trials of a study whose worker is gone, and queues them once more.

    Workers of this machine are looked for, those of others known by their heartbeats: so what was
    killed here goes on at once, as if it had not been interrupted. A trial names its worker before
    it chooses; one that neither chooses nor names a worker as long as it is watched is given up.

    Args:
        study: the study to watch.
        patience_s: for how long a trial may choose, in seconds.
    """

    def __init__(self, study: optuna.Study, *, patience_s: float = GRACE_S) -> None:
        self._study = study
        self._patience_s = patience_s
        self._nameless_since: dict[int, float] = {}  # trial number → when it was first seen

    def retry(self) -> None:
        """Look through the running trials."""
        with quiet_optuna():
            optuna.storages.fail_stale_trials(self._study)
        retry = retry_callback()
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            worker = worker_of(trial)
            if not self._is_silent(trial) if worker is None else not worker.is_gone:
                continue
            try:
                failed = self._study.tell(trial.number, state=TrialState.FAIL)
            except (ValueError, UpdateFinishedTrialError):
                continue  # another process was faster
            retry(self._study, failed)  # which may have chosen more since it was looked at

    def _is_silent(self, trial: FrozenTrial) -> bool:
        if trial.params:  # somebody else's objective, whose heartbeats tell whether it lives
            return False
        now = time.monotonic()
        return now - self._nameless_since.setdefault(trial.number, now) >= self._patience_s


def count_claimed(trials: Iterable[FrozenTrial], *, has_heartbeats: bool) -> int:
    """How many trials are judged, queued or being judged.

    Without heartbeats nobody can tell whether a worker of another machine still lives, so its
    trial counts only once it is done.
    """
    claimed = 0
    for trial in trials:
        if trial.state in (TrialState.COMPLETE, TrialState.WAITING):
            claimed += 1
        elif trial.state == TrialState.RUNNING:
            worker = worker_of(trial)
            is_known = worker is not None and worker.machine == _machine()
            claimed += has_heartbeats or is_known
    return claimed


def has_heartbeats(storage: BaseStorage) -> bool:
    """Whether `open_storage` gave this storage heartbeats."""
    return isinstance(storage, RDBStorage)


def worker_of(trial: FrozenTrial) -> Worker | None:
    """The process that began a trial, where it says so."""
    text = trial.user_attrs.get(WORKER)
    return None if text is None else Worker.from_json(text)


def _machine() -> str:
    """Host name, boot and process namespace: process ids mean something within these alone."""
    parts = [socket.gethostname()]
    boot = Path("/proc/sys/kernel/random/boot_id")
    if boot.exists():
        parts += [boot.read_text().strip(), str(Path("/proc/self/ns/pid").stat().st_ino)]
    return " ".join(parts)
