"""The state of the machine and the versions of the software, as a session found them."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

import psutil

from hwsearch.records import Conditions, GpuState, Target
from hwsearch.runtime.gpus import gpu_state, is_on_gpu
from hwsearch.runtime.hardware import cpu_name, physical_cores

_PACKAGES = (
    *("hwsearch", "torch", "onnx", "onnxruntime", "openvino", "numpy"),
    *("tensorrt", "tensorrt_rtx_cu12_bindings"),
)
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
    """Looks at a target's GPU while it is busy: an idle one tells nothing of its clocks.

    Args:
        target: where subnets are timed; on a CPU there is nothing to see.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._seen: list[GpuState] = []

    def look(self) -> None:
        """Remember the state right now. It takes some milliseconds, between two turns."""
        if is_on_gpu(self._target) and (state := gpu_state(self._target.device)):
            self._seen.append(state)

    def worst(self) -> GpuState | None:
        """The state with the lowest clock, and all that held the clocks down at any look."""
        if not self._seen:
            return None
        slowest = min(self._seen, key=lambda state: state.sm_clock_mhz)
        reasons = dict.fromkeys(reason for state in self._seen for reason in state.throttled_by)
        return slowest.model_copy(update={"throttled_by": tuple(reasons)})


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
