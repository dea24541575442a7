"""The state of the machine and the versions of the software, as a session found them."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

import psutil

from hwsearch.records import Conditions, Target
from hwsearch.runtime.gpus import gpu_state, is_on_gpu
from hwsearch.runtime.hardware import cpu_name, physical_cores

_PACKAGES = (
    *("hwsearch", "torch", "onnx", "onnxruntime", "openvino", "numpy"),
    *("tensorrt", "tensorrt_rtx_cu12_bindings"),
)
_GOVERNOR_FILE = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def capture_conditions(target: Target | None = None) -> Conditions:
    """The conditions right now; of the GPU too, where `target` is on one.

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
        gpu=gpu_state(target.device) if target and is_on_gpu(target) else None,
    )


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
