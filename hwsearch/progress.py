"""How long-running functions report their progress, without knowing who listens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Advance(Protocol):
    """Moves a running task forward by `amount` and says what was just done."""

    def __call__(self, amount: float = 1, note: str = "") -> None:
        """Move on."""
        ...


class Progress(Protocol):
    """Something that shows tasks; the command line gives one that draws bars on stderr."""

    def task(self, description: str, total: float) -> AbstractContextManager[Advance]:
        """Begin a task of `total` steps; it ends with the context."""
        ...

    def log(self, message: str) -> None:
        """Show a line that stays."""
        ...


class SilentProgress:
    """Shows nothing: the default of every function in the Python API."""

    @contextmanager
    def task(self, description: str, total: float) -> Iterator[Advance]:
        """Begin a task that nobody watches."""

        def advance(amount: float = 1, note: str = "") -> None:
            return

        yield advance

    def log(self, message: str) -> None:
        """Drop the message."""
