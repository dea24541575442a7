"""Progress on stderr, as bars or, where none can be drawn, as lines; stdout is for results."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeRemainingColumn,
)

from hwsearch.progress import Advance

_SPEED_OVER_S = (
    3600.0  # a group of large subnets takes minutes from one step of its bar to the next
)
_SECONDS_BETWEEN_LINES = 30.0


class RichProgress:
    """Draws each running task as a bar; a context manager.

    Where stderr is a file or a pipe, or a terminal without a cursor, a line tells how far the tasks
    are, at most every half minute.
    """

    def __init__(self, *, seconds_between_lines: float = _SECONDS_BETWEEN_LINES) -> None:
        self.console = Console(stderr=True)
        # Rich takes a file for a terminal where FORCE_COLOR is set, as it is in many a CI.
        self._draws = self.console.file.isatty() and not self.console.is_dumb_terminal
        self._seconds_between_lines = seconds_between_lines
        self._told_at = time.monotonic()
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[note]}"),
            console=self.console,
            transient=True,
            speed_estimate_period=_SPEED_OVER_S,
        )

    def __enter__(self) -> Self:
        if self._draws:
            self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._draws:
            self._bars.stop()

    @contextmanager
    def task(self, description: str, total: float) -> Iterator[Advance]:
        """Show a bar until the context ends."""
        task = self._bars.add_task(description, total=total, note="")

        def advance(amount: float = 1, note: str = "") -> None:
            self._bars.advance(task, amount)
            if note:
                self._bars.update(task, note=note)
            self._tell()

        try:
            yield advance
        finally:
            self._bars.remove_task(task)

    def log(self, message: str) -> None:
        """Print a line above the bars."""
        self.console.print(message, highlight=False, markup=False, soft_wrap=True)

    def _tell(self) -> None:
        now = time.monotonic()
        if self._draws or now - self._told_at < self._seconds_between_lines:
            return
        self._told_at = now
        self.log("; ".join(_standing(task) for task in self._bars.tasks))


def _standing(task: Task) -> str:
    """How far a task is in words, such as `searching: 20 of 200, 0.812 at 31.4 ms`."""
    steps = f"{task.description}: {round(task.completed, 2):g} of {task.total:g}"
    return ", ".join(filter(None, [steps, task.fields["note"]]))
