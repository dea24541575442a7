"""Temporary folders that do not outlive a run for long, even one that was killed."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_PREFIX = "hwsearch-"
_LOCK_NAME = ".hwsearch-in-use"
_TIME_TO_LOCK_S = 60.0


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder; those of runs that were killed are removed first.

    A folder's owner holds a lock in it, which the system lifts when the owner dies.
    """
    _remove_abandoned(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as name:
        folder = Path(name)
        with FileLock(folder / _LOCK_NAME):
            yield folder


def _remove_abandoned(root: Path) -> None:
    for lock in root.glob(f"{_PREFIX}*/{_LOCK_NAME}"):
        try:
            if time.time() - lock.stat().st_mtime < _TIME_TO_LOCK_S:
                continue
            with FileLock(lock, timeout=0):
                shutil.rmtree(lock.parent, ignore_errors=True)
        except (OSError, Timeout):  # it is in use, somebody else's, or gone by now
            continue
