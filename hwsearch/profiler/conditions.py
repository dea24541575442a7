"""The state of the machine and the versions of the software, as a session found them."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from hwsearch.errors import DeviceError
from hwsearch.records import Conditions, GpuState, Target
from hwsearch.runtime.gpus import gpu_gauge, is_on_gpu
from hwsearch.runtime.hardware import cpu_name, physical_cores

_PACKAGES = (
    *("hwsearch", "torch", "onnx", "onnxruntime", "openvino", "numpy"),
    *("tensorrt", "tensorrt_rtx_cu12_bindings"),
)
_LEAD_S = 0.01  # after which the GPU is at work in a turn
_PAUSE_S = 0.5  # between two looks
_GOVERNOR_FILE = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def capture_conditions() -> Conditions:
    """The conditions right now, but for those of a GPU.

    `cores` are the physical cores that this process may use, `load_average` is of one minute.
    What the machine does not tell is None; packages that are not installed are left out.
    """
    return Conditions(
        timestamp=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=_versions(),
        cpu=cpu_name(),
        cores=physical_cores(),
        governor=_governor(),
        clock_mhz=_clock_mhz(),
        load_average=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    )


class GpuWatch:
    """Looks at a target's GPU while turns run on it: an idle one tells nothing of its clocks.

    A thread of its own looks, seldom enough not to be felt, since who waits for a turn can't. A
    look that did not begin and end within one turn does not count.

    Args:
        target: where subnets are timed; on a CPU there is nothing to see.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._seen: list[GpuState] = []
        self._changed = threading.Condition()
        self._turn: int | None = None  # the number of the one that runs
        self._turns = 0
        self._stop = threading.Event()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        if not is_on_gpu(self._target):
            return self
        try:
            read = self._stack.enter_context(gpu_gauge(self._target.device))
        except DeviceError:  # what nobody tells is left out
            return self
        looking = threading.Thread(target=self._look_on, args=(read,), daemon=True)
        looking.start()
        self._stack.callback(looking.join)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        self._stack.close()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """A time in which the GPU is kept busy."""
        with self._changed:
            self._turns += 1
            self._turn = self._turns
            self._changed.notify_all()
        try:
            yield
        finally:
            self._turn = None

    def worst(self) -> GpuState | None:
        """The state with the lowest clock, and all that held the clocks down at any look."""
        seen = list(self._seen)
        if not seen:
            return None
        slowest = min(seen, key=lambda state: state.sm_clock_mhz)
        reasons = dict.fromkeys(reason for state in seen for reason in state.throttled_by)
        return slowest.model_copy(update={"throttled_by": tuple(reasons)})

    def _look_on(self, read: Callable[[], GpuState]) -> None:
        while not self._stop.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._turn is not None or self._stop.is_set())
                turn = self._turn
            if turn is None or self._stop.wait(_LEAD_S):
                continue
            if self._turn != turn:
                continue  # it was too short to be looked at
            try:
                state = read()
            except DeviceError:  # at one moment; another may go better
                state = None
            if state is not None and self._turn == turn:
                self._seen.append(state)
            self._stop.wait(_PAUSE_S)


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _governor() -> str | None:
    try:
        return _GOVERNOR_FILE.read_text().strip()
    except OSError:
        return None


def _clock_mhz() -> float | None:
    try:
        frequency = psutil.cpu_freq()
    except (AttributeError, NotImplementedError, OSError):  # virtual machines often have none
        return None
    return round(frequency.current, 1) if frequency else None
