"""Progress bars on stderr; results have stdout for themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hwsearch.progress import Advance

_SPEED_OVER_S = (
    3600.0  # a group of large subnets takes minutes from one step of its bar to the next
)


class RichProgress:
    """Draws each running task as a bar; a context manager."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
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
        self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bars.stop()

    @contextmanager
    def task(self, description: str, total: float) -> Iterator[Advance]:
        """Show a bar until the context ends."""
        task = self._bars.add_task(description, total=total, note="")

        def advance(amount: float = 1, note: str = "") -> None:
            self._bars.advance(task, amount)
            if note:
                self._bars.update(task, note=note)

        try:
            yield advance
        finally:
            self._bars.remove_task(task)

    def log(self, message: str) -> None:
        """Print a line above the bars."""
        self.console.print(message, highlight=False)
