"""Starts `lone_worker.py`, waits until it is in mid-trial, and reads its diary."""

import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
PATIENCE_S = 120.0


class Diary:
    """What workers wrote about their evaluations."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def lines(self) -> list[list[str]]:
        text = self.path.read_text() if self.path.exists() else ""
        return [line.split() for line in text.splitlines()]

    def of(self, what: str) -> list[str]:
        """Ids of the deployments whose evaluation began or ended."""
        return [deployment for word, deployment, _ in self.lines if word == what]

    def begun_by(self, pid: int) -> int:
        return sum(word == "begin" and int(writer) == pid for word, _, writer in self.lines)


def start_worker(
    storage: str, name: str, total: int, diary: Diary, *, hang_at: int = 0, seconds: float = 0.0
) -> subprocess.Popen[bytes]:
    arguments = [storage, name, total, diary.path, hang_at, seconds]
    paths = [str(HERE), *sys.path]
    return subprocess.Popen(
        [sys.executable, HERE / "lone_worker.py", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )


def wait_for(condition, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, "the worker ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def kill_in_trial(process: subprocess.Popen[bytes], diary: Diary, evaluation: int) -> None:
    """SIGKILL, once the worker has begun that evaluation, which it never ends."""
    wait_for(lambda: diary.begun_by(process.pid) == evaluation, process)
    process.kill()
    process.wait()
