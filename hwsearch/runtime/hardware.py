"""What this machine has: its CPU's name, and the cores that this process may use."""

from __future__ import annotations

import functools
import math
import os
import platform
from pathlib import Path

import psutil

_CPU_FILES = Path("/sys/devices/system/cpu")
_QUOTA_FILE = Path("/sys/fs/cgroup/cpu.max")
_MEMORY_FOLDER = Path("/sys/fs/cgroup")


@functools.cache
def cpu_name() -> str:
    """The CPU's model name as its vendor spells it."""
    try:
        import cpuinfo  # asks the CPU itself in a child process: about a second

        name = cpuinfo.get_cpu_info().get("brand_raw")
    except Exception:  # noqa: BLE001 - py-cpuinfo fails in many ways on machines it doesn't know
        name = None
    return name or _name_from_proc() or platform.processor() or platform.machine()


def logical_cores() -> int:
    """Logical cores that this process may use: its affinity, and the quota of its container."""
    quota = _container_quota()
    allowed = len(_affinity())
    return min(allowed, quota) if quota else allowed


def physical_cores() -> int:
    """Physical cores that this process may use; two hyper-threads of one core count once."""
    places = {_core_of(cpu) for cpu in _affinity()}
    if None in places:
        return min(psutil.cpu_count(logical=False) or 1, logical_cores())
    return min(len(places), logical_cores())


def available_memory_bytes() -> int:
    """Main memory that new processes can have: of the machine, and of the container's limit."""
    of_machine = int(psutil.virtual_memory().available)
    of_container = _container_memory_left()
    return of_machine if of_container is None else min(of_machine, of_container)


def _name_from_proc() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else None


def _affinity() -> list[int]:
    try:
        return list(psutil.Process().cpu_affinity() or [])
    except AttributeError:  # macOS has no affinity
        return list(range(os.cpu_count() or 1))


def _core_of(cpu: int) -> tuple[str, str] | None:
    topology = _CPU_FILES / f"cpu{cpu}" / "topology"
    try:
        package = (topology / "physical_package_id").read_text().strip()
        return package, (topology / "core_id").read_text().strip()
    except OSError:
        return None


def _container_quota() -> int | None:
    """Cores that the control group grants (cgroup v2 `cpu.max`: quota and period in µs)."""
    try:
        quota, period = _QUOTA_FILE.read_text().split()
        return max(1, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no cgroup v2, or "max": no limit
        return None


def _container_memory_left() -> int | None:
    """Bytes that the control group still grants (cgroup v2); cached files give way."""
    try:
        limit = int((_MEMORY_FOLDER / "memory.max").read_text())
        used = int((_MEMORY_FOLDER / "memory.current").read_text())
        lines = (_MEMORY_FOLDER / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):  # no cgroup v2, or "max": no limit
        return None
    cached = sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
    return max(0, limit - used + cached)
