"""The figures of a running training: one JSON line each, and TensorBoard where it is installed."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from hwsearch.files import write_text

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

LOG_NAME = "training.jsonl"


class TrainingLog(AbstractContextManager["TrainingLog"]):
    """Lines up to a step, and those that are added; use it as a context manager.

    Lines that came after the step, and one that an interruption tore, are dropped.

    Args:
        directory: where `training.jsonl` and TensorBoard's files are written.
        step: how many steps are done; 0 starts an empty log.
    """

    def __init__(self, directory: Path, step: int) -> None:
        self.lines = _read(directory / LOG_NAME, step)
        self._path = directory / LOG_NAME
        self._folder = directory / "tensorboard"
        self._step = step
        self._writer: SummaryWriter | None = None
        self._open = ExitStack()

    def __enter__(self) -> Self:
        write_text(self._path, "".join(json.dumps(line) + "\n" for line in self.lines))
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:  # the extra `train` is not installed
            return self
        writer = SummaryWriter(str(self._folder), purge_step=self._step + 1)
        self._writer = self._open.enter_context(writer)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open.close()

    def add(self, line: dict[str, float]) -> None:
        """Add a line; its `step` is the abscissa of the others."""
        self.lines.append(line)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self._writer is not None:
            for name, value in line.items():
                self._writer.add_scalar(name, value, int(line["step"]))
            self._writer.flush()


def _read(path: Path, step: int) -> list[dict[str, float]]:
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and line.get("step", step + 1) <= step:
            lines.append(line)
    return lines
