"""What TensorRT says while it builds: its messages, and how far it is; and how it is stopped."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hwsearch.progress import Advance


@dataclass(frozen=True)
class BuildLog:
    """The logger of this process, and what it was told in one build."""

    logger: Any
    messages: list[str]
    warnings: list[str]

    def errors(self) -> str:
        """The error messages as one phrase, each once; empty if there were none."""
        return _joined(self.messages)

    def everything(self) -> str:
        """Error messages and warnings as one phrase, each once; empty if there were none."""
        return _joined([*self.messages, *self.warnings])

    def clear(self) -> None:
        """Forget what was told so far."""
        self.messages.clear()
        self.warnings.clear()


@contextmanager
def build_log(trt: Any) -> Iterator[BuildLog]:  # noqa: ANN401 - a module chosen at run time
    """Collect the errors of one build. Builds wait for each other, since they share a logger."""
    logger, lock = _process_logger(trt)
    with lock:
        log = BuildLog(logger=logger, messages=logger.messages, warnings=logger.warnings)
        log.clear()
        yield log


def build_monitor(trt: Any, advance: Advance, *, stop: threading.Event) -> Any:  # noqa: ANN401
    """An IProgressMonitor that moves a task of length 1 forward, until `stop` is set.

    Only an outermost phase moves it, by a share for each of its steps; inner phases are named.
    TensorRT asks after each step, of which a build has hundreds, whether it is to go on.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # its base is chosen at run time
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._done: dict[str, float] = {}  # share done of each outermost phase
            self._steps: dict[str, int] = {}
            self._lock = threading.Lock()  # TensorRT calls from several threads

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                if parent_phase is None:
                    self._steps[phase_name], self._done[phase_name] = max(num_steps, 1), 0.0
                advance(0, phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._lock:
                if phase_name in self._steps:
                    self._reach(phase_name, (step + 1) / self._steps[phase_name])
            return not stop.is_set()

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                if phase_name in self._steps:
                    self._reach(phase_name, 1.0)
                    del self._steps[phase_name]

        def _reach(self, phase_name: str, share: float) -> None:
            advance(share - self._done[phase_name], phase_name)
            self._done[phase_name] = share

    return Monitor()


@functools.cache
def _process_logger(trt: Any) -> tuple[Any, threading.Lock]:  # noqa: ANN401
    """TensorRT takes one logger a process, the first; so there is one, kept for good.

    No IErrorRecorder is set: what it would get reaches the logger as well, and TensorRT-RTX 1.7
    crashes when a builder that had a Python recorder is freed.
    """

    class Logger(trt.ILogger):  # type: ignore[misc]  # its base is chosen at run time
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: list[str] = []
            self.warnings: list[str] = []

        def log(self, severity: object, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.messages.append(message)
            elif severity == trt.ILogger.WARNING:
                self.warnings.append(message)

    return Logger(), threading.Lock()


def _joined(messages: list[str]) -> str:
    return "; ".join(dict.fromkeys(" ".join(text.split()).rstrip(".") for text in messages))
