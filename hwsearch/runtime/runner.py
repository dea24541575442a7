"""What every runtime offers: a model that is open, can be run, and can be timed."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hwsearch.errors import DeviceError, UsageError

Array = NDArray[np.generic]
Seconds = NDArray[np.float64]
_T = TypeVar("_T")


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and dtype of a model's input or output.

    `None` in `shape` is a dimension that may have any length. `dtype` is NumPy's name of the type.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str


class Runner(Protocol):
    """An open model on a device. It is a context manager; closing it frees its memory."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What `infer` and `time` want."""
        ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What `infer` gives."""
        ...

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model once; outputs by name.

        Raises:
            UsageError: a name, a shape or a dtype is not as `inputs` says, or the runner is closed.
        """
        ...

    def time(self, inputs: Mapping[str, Array], n: int) -> Seconds:
        """Run the model `n` times, each run waiting for the one before.

        Returns:
            Latencies in seconds, shape (n,), float64: by the wall clock, on a GPU by its own.

        Raises:
            UsageError: as `infer`, or `n` is less than 1.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


@runtime_checkable
class DeviceMemory(Protocol):
    """A runner whose model is in the memory of another device than the CPU."""

    @property
    def device_memory_bytes(self) -> int:
        """How much of it the model takes."""
        ...


def check_inputs(specs: Sequence[TensorSpec], inputs: Mapping[str, Array]) -> None:
    """Do nothing if `inputs` fits `specs`.

    Raises:
        UsageError: a name, a shape or a dtype differs; the message names the first that does.
    """
    names = [spec.name for spec in specs]
    missing = [name for name in names if name not in inputs]
    unknown = [name for name in inputs if name not in names]
    if missing or unknown:
        fault = f"lack {missing}" if missing else f"have the unknown name {unknown[0]!r}"
        raise UsageError(f"The inputs {fault}: the model wants {names}.")
    for spec in specs:
        array = inputs[spec.name]
        if not _fits(array.shape, spec.shape):
            wanted = tuple("any" if size is None else size for size in spec.shape)
            raise UsageError(
                f"Input {spec.name!r} has shape {array.shape}: the model wants {wanted}."
            )
        if array.dtype != np.dtype(spec.dtype):
            raise UsageError(f"Input {spec.name!r} is {array.dtype}: the model wants {spec.dtype}.")


def time_calls(call: Callable[[], object], n: int) -> Seconds:
    """Wall-clock seconds of `n` calls one after the other, shape (n,).

    Raises:
        UsageError: `n` is less than 1.
    """
    if n < 1:
        raise UsageError(f"{n} runs can't be timed: ask for at least 1.")
    seconds = np.empty(n)
    for index in range(n):
        start = time.perf_counter()
        call()
        seconds[index] = time.perf_counter() - start
    return seconds


def require_open(session: _T | None, path: Path | str) -> _T:
    """The session, if it is still there.

    Raises:
        UsageError: the runner was closed.
    """
    if session is None:
        raise UsageError(f"The runner of {path} is closed: open the file again.")
    return session


def require_file(path: Path) -> None:
    """Do nothing if `path` is a file.

    Raises:
        DeviceError: there is none; the runtimes' own messages bury that.
    """
    if not path.is_file():
        raise DeviceError(f"There is no model file {path}: export the subnet first.")


def load_error(runtime: str, path: Path, error: Exception) -> DeviceError:
    """One sentence for whatever a runtime threw when it read a model file."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # OpenVINO puts the C++ source lines that the error passed through before its message.
    lines = [line for line in lines if not line.startswith(("Exception from", "Check '"))] or lines
    reason = lines[0] if lines else type(error).__name__
    reason = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", reason)
    return DeviceError(
        f"{runtime} can't load {path}: {reason.rstrip('.')}. The file may be cut short; "
        "export it again."
    )


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        want in (None, size) for size, want in zip(shape, wanted, strict=True)
    )
