"""Ctrl-C that does not break into a storage's transaction."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Holds signals back but in the places that are opened for them; a context manager.

    A transaction that an exception breaks off keeps its lock, which the thread of the heartbeats
    then waits for: the trial would be left as if its worker were still at work. Outside the main
    thread, and for signals that nobody handles in Python, it does nothing.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._waiting: list[int] = []
        self._is_open = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                handler = signal.getsignal(number)
                if callable(handler):
                    self._handlers[number] = handler
                    signal.signal(number, self._hear)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if kind is None:
            self.let_in()
        self._handlers.clear()

    def let_in(self) -> None:
        """Handle what was held back; the usual handler of Ctrl-C raises KeyboardInterrupt."""
        while self._waiting:
            number = self._waiting.pop(0)
            self._handlers[number](number, None)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Handle signals as they come."""
        self.let_in()
        self._is_open = True
        try:
            yield
        finally:
            self._is_open = False

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._is_open:
            self._handlers[number](number, frame)
        else:
            self._waiting.append(number)
