"""The NVIDIA GPUs of this machine, as CUDA numbers them, and the state they are in.

CUDA is asked in a process of its own. Whoever has asked it holds memory on the GPU from then on,
which would be in the way of what is timed, and may not fork.
"""

from __future__ import annotations

import ctypes
import functools
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from hwsearch.errors import DeviceError, UsageError
from hwsearch.records import GpuState, Record, Target

_GPU_NAME = re.compile(r"cuda(:(?P<index>[0-9]+))?")
_PROBE_S = 120.0
_DRIVERS = ("libcuda.so.1", "nvcuda.dll")
# Run as a program: what torch sees, or why it sees nothing. The last line counts: libraries may
# print others.
_PROBE = """
import json, torch
def probe():
    if torch.version.cuda is None:
        return {"fault": f"torch {torch.__version__} is a build without CUDA: install one with it"}
    try:
        torch.cuda.init()
    except Exception as error:
        return {"fault": " ".join(str(error).split(". ")[0].split())}
    found = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return {"gpus": [{
        "name": gpu.name, "uuid": str(gpu.uuid), "compute_capability": f"{gpu.major}.{gpu.minor}",
        "memory_bytes": gpu.total_memory, "cuda": torch.version.cuda,
    } for gpu in found]}
print()
print(json.dumps(probe()))
"""


class Gpu(Record):
    """A GPU as torch sees it; `cuda` is the version that torch was built with."""

    name: str
    uuid: str
    compute_capability: str
    memory_bytes: int
    cuda: str


@functools.cache
def find_gpus() -> tuple[Gpu, ...]:
    """The GPUs, in CUDA's order: the first is `cuda:0`.

    Raises:
        DeviceError: there is none that can be used; the message says why.
    """
    if not _has_driver():
        raise DeviceError("There is no NVIDIA driver on this machine.")
    try:
        answer = subprocess.run(
            [sys.executable, "-P", "-c", _PROBE], capture_output=True, timeout=_PROBE_S, check=True
        ).stdout
        facts = json.loads(answer.splitlines()[-1])
        if "fault" in facts:
            raise DeviceError(f"The NVIDIA GPU can't be used: {facts['fault'].rstrip('.')}.")
        gpus = tuple(Gpu.model_validate(gpu) for gpu in facts["gpus"])
    except (subprocess.SubprocessError, json.JSONDecodeError, IndexError, ValidationError):
        raise DeviceError(
            "The NVIDIA driver is here, but CUDA does not answer: look what nvidia-smi says."
        ) from None
    if not gpus:
        raise DeviceError("There is an NVIDIA driver on this machine, but no GPU.")
    return gpus


def find_gpu(device: str) -> Gpu:
    """The GPU that `cuda` or `cuda:N` names.

    Raises:
        UsageError: it is no such word.
        DeviceError: as `find_gpus`, or it has no such number.
    """
    index = gpu_index(device)
    gpus = find_gpus()
    if index >= len(gpus):
        raise DeviceError(
            f"There is no cuda:{index}: this machine has {len(gpus)} GPU(s), from cuda:0 on."
        )
    return gpus[index]


def is_on_gpu(target: Target) -> bool:
    """Whether a target's device is an NVIDIA GPU."""
    return names_gpu(target.device)


def names_gpu(device: str) -> bool:
    """Whether a word is `cuda` or `cuda:N`."""
    return _GPU_NAME.fullmatch(device) is not None


def gpu_index(device: str) -> int:
    """N of `cuda:N`; `cuda` is the first.

    Raises:
        UsageError: it is neither.
    """
    found = _GPU_NAME.fullmatch(device)
    if found is None:
        raise UsageError(f"There is no GPU {device!r}: take cuda or cuda:N, such as cuda:0.")
    return int(found["index"] or 0)


@contextmanager
def gpu_gauge(device: str) -> Iterator[Callable[[], GpuState]]:
    """Opens NVIDIA's management library, and gives what reads a GPU's state right now.

    It numbers GPUs in another order than CUDA: the GPU is found by its id. What is read are clocks,
    temperature, and what holds the clocks down.

    Raises:
        UsageError: `device` names no GPU.
        DeviceError: nvidia-ml-py is not installed, or it does not answer, here or at a reading; the
            message says which.
    """
    try:
        import pynvml
    except ImportError:
        raise DeviceError("nvidia-ml-py is not installed: pip install nvidia-ml-py.") from None
    uuid = find_gpu(device).uuid
    with _answering(pynvml):
        pynvml.nvmlInit()

    def read() -> GpuState:
        with _answering(pynvml):
            return _read_state(pynvml, uuid)

    try:
        yield read
    finally:
        pynvml.nvmlShutdown()


@contextmanager
def _answering(nvml: Any) -> Iterator[None]:  # noqa: ANN401 - ships no types
    try:
        yield
    except nvml.NVMLError as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise DeviceError(f"NVIDIA's management library does not answer: {reason}.") from None


def _read_state(nvml: Any, uuid: str) -> GpuState:  # noqa: ANN401 - ships no types
    handle = nvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
    reasons = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
    return GpuState(
        driver=str(nvml.nvmlSystemGetDriverVersion()),
        sm_clock_mhz=nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
        memory_clock_mhz=nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
        max_sm_clock_mhz=nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM),
        temperature_c=nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
        throttled_by=tuple(
            word
            for name, word in _THROTTLES.items()
            if reasons & int(getattr(nvml, f"nvmlClocksThrottleReason{name}"))
        ),
    )


# Of the reasons that NVML knows, those that spoil a measurement. That a GPU is idle, or keeps to
# clocks that somebody locked, does not.
_THROTTLES = {
    "SwPowerCap": "power cap",
    "HwSlowdown": "hardware slowdown",
    "SwThermalSlowdown": "heat",
    "HwThermalSlowdown": "heat (hardware)",
    "HwPowerBrakeSlowdown": "power brake",
    "SyncBoost": "sync boost",
}


def _has_driver() -> bool:
    for name in _DRIVERS:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False
