"""The session's side of the process that forks its workers."""

from __future__ import annotations

import functools
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Self

from hwsearch.errors import DeviceError
from hwsearch.profiler.failures import NoProcessError, NurseryError, first_line
from hwsearch.profiler.nursery import END, FORK, send_descriptor
from hwsearch.records import Runtime, Target
from hwsearch.runtime.open import open_runner
from hwsearch.runtime.runner import Runner

START_S = 120.0
_MODULES: dict[Runtime, tuple[str, ...]] = {
    "onnxruntime": ("hwsearch.runtime.onnxruntime",),
    "openvino": ("hwsearch.runtime.openvino", "openvino"),
    "torch": ("hwsearch.runtime.torch_program",),
    "tensorrt": ("hwsearch.runtime.tensorrt_runner", "tensorrt"),
    "tensorrt-rtx": ("hwsearch.runtime.tensorrt_runner", "tensorrt_rtx_bindings"),
}


class Nursery:
    """Where the workers of a session come from; a context manager.

    Args:
        open_runner: opens a model file inside a worker. It is sent there by its name, so that it
            has to be a function of a module, or a `functools.partial` of one.
        runtime: modules that a worker loads before it is asked for anything.

    Raises:
        DeviceError: this system can't fork.
        NurseryError: the process does not start.
    """

    def __init__(
        self, open_runner: Callable[[Path], Runner], *, runtime: tuple[str, ...] = ()
    ) -> None:
        if not hasattr(os, "fork"):
            raise DeviceError("Subnets can be timed on systems with fork: take Linux or macOS.")
        ours, theirs = socket.socketpair()
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "hwsearch.profiler.nursery", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._words,
                # OpenBLAS would start threads, which forking loses; nothing here needs them.
                env={**os.environ, "PYTHONPATH": _import_path(), "OPENBLAS_NUM_THREADS": "1"},
            )
        self._control = Connection(ours.detach())
        try:
            self._ask((runtime, open_runner))
        except NurseryError:
            self.__exit__(None, None, None)
            raise

    @classmethod
    def for_target(cls, target: Target) -> Nursery:
        """One whose workers run files on a target."""
        return cls(functools.partial(open_runner, target), runtime=_MODULES.get(target.runtime, ()))

    def fork(self) -> tuple[int, Connection]:
        """A new worker: the number of its process, and the pipe to it.

        Raises:
            NurseryError: the nursery died.
            NoProcessError: the system starts no more processes.
        """
        ours, theirs = socket.socketpair()
        pipe = Connection(ours.detach())
        with theirs:
            try:
                self._control.send((FORK, 0))
                send_descriptor(self._control, theirs.fileno())
                worker = self._receive()
            except OSError:
                raise self._gone() from None
        if worker < 0:
            pipe.close()
            raise NoProcessError(
                f"A worker process could not be started: {os.strerror(-worker)}. Let the system "
                "have more of them, and run the command again; it goes on where it was."
            )
        return worker, pipe

    def end(self, worker: int) -> int:
        """Kill a worker; its exit code, or minus the signal that had ended it before.

        Raises:
            NurseryError: the nursery died.
        """
        return self._ask((END, worker))

    @property
    def words_said(self) -> int:
        """How many bytes the workers have written to their standard error."""
        return os.fstat(self._words.fileno()).st_size

    def words_since(self, start: int) -> str:
        """The last line that the workers wrote after the first `start` bytes, in brackets."""
        text = os.pread(self._words.fileno(), max(self.words_said - start, 0), start)
        line = first_line("\n".join(reversed(text.decode(errors="replace").splitlines())))
        return f" ({line.rstrip('.')})" if line else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._control.close()  # which ends the workers
        try:
            self._process.wait(START_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._words.close()

    def _ask(self, request: object) -> int:
        try:
            self._control.send(request)
        except OSError:
            raise self._gone() from None
        return self._receive()

    def _receive(self) -> int:
        try:
            if self._control.poll(START_S):
                return int(self._control.recv())
        except (EOFError, OSError):
            pass
        raise self._gone()

    def _gone(self) -> NurseryError:
        return NurseryError(
            f"The process that starts workers for timing does not answer{self.words_since(0)}: "
            "run the command again; it goes on where it was."
        )


def _import_path() -> str:
    """What this process imports from, for a process that starts elsewhere."""
    return os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
