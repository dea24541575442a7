"""Runners for real worker processes: they read from their file what goes wrong, and when."""

from __future__ import annotations

import errno
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from fakes import COORDS, EMBEDDINGS, IMAGE, LABELS

from hwsearch.errors import DeviceError
from hwsearch.runtime.runner import Array, Seconds


def abort() -> None:
    os.write(sys.stderr.fileno(), b"terminate called: tensor burst.\n")
    os.abort()


def hang() -> None:
    time.sleep(1000)


def lack_memory() -> None:
    raise MemoryError("Unable to allocate 3 GiB")


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave() -> None:
    os._exit(3)


def refuse() -> None:
    raise DeviceError("This device is asleep.")


def take_memory() -> None:
    np.ones(64 << 20, "uint8").sum()


TROUBLES = {
    trouble.__name__: trouble
    for trouble in (abort, hang, lack_memory, be_killed, leave, refuse, take_memory)
}


def open_runner(path: Path) -> TroubledRunner:
    return TroubledRunner(path)


class RefusedForks:
    """Opens runners; in the process that it is sent to, forks of these numbers are refused."""

    def __init__(self, refused: set[int]) -> None:
        self.refused = refused

    def __setstate__(self, state: dict[str, set[int]]) -> None:
        numbers, fork = itertools.count(), os.fork

        def counted() -> int:
            if next(numbers) in state["refused"]:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            return fork()

        os.fork = counted

    def __call__(self, path: Path) -> TroubledRunner:
        return open_runner(path)


class TroubledRunner:
    """Takes 1 ms for each run, says it; has its trouble at `open` or in turn `K`."""

    def __init__(self, path: Path) -> None:
        facts = json.loads(path.read_text())
        self._trouble, self._moment = facts["trouble"], facts["moment"]
        self._turns = 0
        is_encoder = "encoder" in path.stem
        self.inputs = (IMAGE,) if is_encoder else (EMBEDDINGS, COORDS, LABELS)
        self.outputs = (EMBEDDINGS,) if is_encoder else ()
        self._reach("open")

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {"image_embeddings": np.zeros((1, 4, 2, 2), "float32")}

    def time(self, inputs: Mapping[str, Array], n: int) -> Seconds:
        self._turns += 1
        self._reach(f"turn {self._turns}")
        return np.full(n, 0.001)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return

    def _reach(self, moment: str) -> None:
        if self._moment == moment:
            TROUBLES[self._trouble]()
