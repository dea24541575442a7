"""Worker processes that a session supervises, and runners whose models live in them.

One worker holds one subject, both its models, as a program that ships it would: a crash, a hang or
a lack of memory ends that subject alone, peak memory is that of the subject, and all of it is given
back when the worker ends. A decoder that several subjects have in common is opened by each (16 MB
of weights): shared, it would die with another subject's crash.

Workers are forked from a nursery that has loaded Python, NumPy and our records, which takes 0.3 s
of CPU time; forking takes about 15 ms, and loading the runtime in the worker 0.04 s (ONNX Runtime)
or 0.15 s (OpenVINO). The nursery is a process of its own, not the session, since who forks may have
no threads and should not have torch. It is not `multiprocessing`'s fork server, because every
worker of that one runs the user's main script again, with all that it imports; and because our
nursery ends workers that hang when the session is killed. (A worker that waits ends by itself: the
session alone holds the other end of its pipe.)

CUDA does not survive a fork. On a GPU that is no matter: the nursery never loads what could use it,
and is no fork of the session either, but a program of its own. A worker loads torch and TensorRT
after it was forked, and gets a CUDA context of its own.

Timing is not disturbed: a turn of calls is timed wholly inside the worker, and only the latencies
come back. A worker that waits is blocked in a read and its runtime's threads sleep.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hwsearch.profiler.failures import NurseryError, WorkerError, no_answer
from hwsearch.profiler.supervisor import Nursery
from hwsearch.runtime.runner import Array, Seconds, TensorSpec

POLL_S = 1.0


class Worker:
    """A worker process, and the models that are open in it; a context manager.

    Args:
        nursery: starts it.
        deadline_s: seconds that one request may take before the worker is taken to hang.

    Attributes:
        process: the number of the process.

    Raises:
        NurseryError: the nursery died, or the system starts no more processes.
    """

    def __init__(self, nursery: Nursery, *, deadline_s: float) -> None:
        self._nursery = nursery
        self._deadline_s = deadline_s
        # All workers share one standard error: what is new there since a request is the answerer's.
        self._said_at_start: int | None = nursery.words_said
        self.process, self._pipe = nursery.fork()
        self._death: str | None = None

    def open(self, path: Path) -> RemoteRunner:
        """Open a model file in the worker.

        Raises:
            HwsearchError: whatever the runtime raises.
            WorkerError: the worker died or hangs.
        """
        return RemoteRunner(self, *self.ask("open", path))

    def memory_bytes(self) -> int | None:
        """Peak resident memory that the models took so far, to load and to run, in bytes."""
        with suppress(WorkerError):
            return int(self.ask("memory_bytes"))
        return None

    def ask(self, name: str, *arguments: object) -> Any:  # noqa: ANN401 - depends on `name`
        """Have the worker call a method of its `Models`.

        Raises:
            HwsearchError: the method raised it there.
            WorkerError: the method raised something else, or the worker died or hangs.
        """
        if self._death:
            raise WorkerError(self._death)
        said, self._said_at_start = self._said_at_start, None
        if said is None:
            said = self._nursery.words_said
        try:
            self._pipe.send((name, *arguments))
            if not _answers(self._pipe, self._deadline_s):
                raise self._dead(no_answer(self._deadline_s))
            succeeded, answer = self._pipe.recv()
        except (EOFError, OSError):
            raise self._dead(None, self._nursery.words_since(said)) from None
        if succeeded:
            return answer
        known, sentence = answer
        raise (known or WorkerError)(sentence)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pipe.close()
        if not self._death:
            self._death = "The worker process was closed."
            with suppress(NurseryError):
                self._nursery.end(self.process)

    def _dead(self, fault: str | None, words: str = "") -> WorkerError:
        self._pipe.close()
        self._death = "The worker process is gone."  # should the nursery be gone as well
        code = self._nursery.end(self.process)
        self._death = f"The worker process {fault or _end_of(code)}{words}."
        return WorkerError(self._death)


class RemoteRunner:
    """A model that is open in a worker, behind the `Runner` protocol.

    Inputs are sent when they are other arrays than those of the last run, so that they must not be
    changed in place.
    """

    def __init__(
        self,
        worker: Worker,
        number: int,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
    ) -> None:
        self._worker = worker
        self._number = number
        self._sent: dict[str, Array] | None = None
        self.inputs = inputs
        self.outputs = outputs

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model once; see `Runner.infer`."""
        outputs: dict[str, Array] = self._run("infer", inputs)
        return outputs

    def time(self, inputs: Mapping[str, Array], n: int) -> Seconds:
        """Time `n` runs inside the worker; see `Runner.time`."""
        seconds: Seconds = self._run("time", inputs, n)
        return seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(WorkerError):  # with a dead worker, the model is gone as well
            self._worker.ask("close", self._number)

    def _run(self, name: str, inputs: Mapping[str, Array], *arguments: int) -> Any:  # noqa: ANN401
        same = self._sent is not None and _same(self._sent, inputs)
        self._sent = None  # where the run fails, the worker has the new inputs all the same
        answer = self._worker.ask(name, self._number, None if same else dict(inputs), *arguments)
        self._sent = dict(inputs)
        return answer


def _answers(pipe: Connection, seconds: float) -> bool:
    """Whether an answer comes in time, asked for bit by bit.

    A clock goes on while Ctrl-Z holds the session and its workers; of the time that they are held,
    one bit at most counts.
    """
    bits = math.ceil(seconds / POLL_S)
    return any(pipe.poll(seconds / bits) for _ in range(bits))


def _same(one: Mapping[str, Array], other: Mapping[str, Array]) -> bool:
    return one.keys() == other.keys() and all(one[name] is other[name] for name in one)


def _end_of(code: int) -> str:
    if code == -signal.SIGKILL:
        return "was killed, as the system does where memory runs out"
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
