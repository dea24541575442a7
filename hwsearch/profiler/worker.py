"""The child's side: opens models and times them, as it is told through a pipe.

What goes through the pipe is pickled; both ends are this program, and nobody else has the pipe.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from hwsearch.errors import HwsearchError
from hwsearch.profiler.failures import reason
from hwsearch.runtime.runner import Array, DeviceMemory, Runner

_OOM_SCORE = Path("/proc/self/oom_score_adj")
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes


def serve(connection: Connection, open_runner: Callable[[Path], Runner]) -> None:
    """Answer requests until the other end of the pipe is closed.

    A request is the name of a method of `Models` and its arguments; an answer is its result, or
    the class of an error of hwsearch (None for any other error) and a sentence.
    """
    with suppress(OSError):
        _OOM_SCORE.write_text("1000")  # where memory runs out, this process goes, not the session
    gc.disable()  # a collection would fall into somebody's timing
    models = Models(open_runner)
    while True:
        try:
            name, *arguments = connection.recv()
        except EOFError:
            return
        try:
            answer: tuple[bool, Any] = (True, getattr(models, name)(*arguments))
        except Exception as error:  # noqa: BLE001 - whatever it is, it becomes a record
            known = type(error) if isinstance(error, HwsearchError) else None
            answer = (False, (known, reason(error)))
        connection.send(answer)


class Models:
    """The open models of one worker, by the numbers it gave them.

    Each keeps the inputs of its last run, so that they cross the pipe only once.
    """

    def __init__(self, open_runner: Callable[[Path], Runner]) -> None:
        self._open_runner = open_runner
        self._runners: list[Runner] = []
        self._inputs: dict[int, dict[str, Array]] = {}
        self._memory_before = _peak_memory()

    def open(self, path: Path) -> tuple[int, Any, Any]:
        """Open a model; its number, and what it takes and gives."""
        runner = self._open_runner(path)
        self._runners.append(runner)
        return len(self._runners) - 1, runner.inputs, runner.outputs

    def infer(self, number: int, inputs: dict[str, Array] | None) -> dict[str, Array]:
        """Run a model once; None stands for the inputs of the last time."""
        return self._runners[number].infer(self._latest(number, inputs))

    def time(self, number: int, inputs: dict[str, Array] | None, n: int) -> Any:  # noqa: ANN401
        """Time `n` runs of a model; None stands for the inputs of the last time."""
        return self._runners[number].time(self._latest(number, inputs), n)

    def close(self, number: int) -> None:
        """Close a model."""
        self._runners[number].__exit__(None, None, None)

    def memory_bytes(self) -> int:
        """How far the resident memory of this process rose, at its peak, since it began.

        Where the models are on a GPU, the memory that they took there.
        """
        on_gpu = [r.device_memory_bytes for r in self._runners if isinstance(r, DeviceMemory)]
        if on_gpu:
            return sum(on_gpu)
        return _peak_memory() - self._memory_before

    def _latest(self, number: int, inputs: dict[str, Array] | None) -> dict[str, Array]:
        if inputs is not None:
            self._inputs[number] = inputs
        return self._inputs[number]


def _peak_memory() -> int:
    import resource  # not on Windows, where the nursery says in a sentence that it can't fork

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT
