"""Tries on a GPU all that hwsearch does there, and tells what came out, for a page to paste.

A small subnet of the shipped supernet is exported, built, run, held against ONNX Runtime on the
CPU, and timed, in each precision that engines are profiled in.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator
from typing import get_args

from hwsearch.errors import DeviceError, UsageError
from hwsearch.records import Precision
from hwsearch.runtime.devices import resolve_target
from hwsearch.runtime.gpus import find_gpu, gpu_gauge, names_gpu
from hwsearch.runtime.hardware import cpu_name, physical_cores
from hwsearch.runtime.tensorrt import Flavour, load_tensorrt
from hwsearch.runtime.trtexec import find_trtexec
from hwsearch.supernet.supernet import Supernet
from hwsearch.workflow.doctor_engines import Finding, expect, try_engines
from hwsearch.workflow.scratch import scratch_folder

__all__ = ["Finding", "examine_device"]

_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")
_BF16_FROM = (8, 0)  # the compute capability that multiplies bf16
_PACKAGES = (
    *("hwsearch", "torch", "onnx", "onnxruntime", "nvidia-ml-py", "tensorrt"),
    *("tensorrt-cu12-bindings", "tensorrt-cu13-bindings", "tensorrt-rtx-cu12-bindings"),
)


def examine_device(
    supernet: Supernet, *, device: str = "cuda", runtime: str | None = None
) -> Iterator[Finding]:
    """Try a GPU, and give each finding when it is there; the last is the verdict.

    Args:
        supernet: whose smallest subnet is tried.
        device: `cuda` or `cuda:N`.
        runtime: `tensorrt` or `tensorrt-rtx`; without it, what is installed.

    Raises:
        UsageError: the device is no GPU, or there is no such runtime.
    """
    if not names_gpu(device):
        raise UsageError(f"The doctor examines GPUs, not {device!r}: take cuda or cuda:N.")
    findings: list[Finding] = []
    for finding in _examine(supernet, device, runtime):
        findings.append(finding)
        yield finding
    failed = [finding.title for finding in findings if finding.passed is False]
    if failed:
        yield Finding("Verdict", False, (f"{device} can't be relied on: see {', '.join(failed)}.",))
    else:
        yield Finding("Verdict", True, (f"{device} works as far as this was tried.",))


def _examine(supernet: Supernet, device: str, runtime: str | None) -> Iterator[Finding]:
    yield _software()
    yield _gpu(device)
    for flavour in get_args(Flavour):
        yield _tensorrt(flavour)
    try:
        target = resolve_target(device=device, runtime=runtime)
    except DeviceError as error:
        yield Finding("Device", False, (str(error), f"Nothing was built or run on {device}."))
        return
    yield Finding("Device", True, (f"Takes {target.runtime} {target.runtime_version}.",))
    with scratch_folder() as folder:
        sam = supernet.extract(supernet.space.smallest)
        expectation = expect(sam, folder)
        for precision in _PRECISIONS:
            fault = _lacks(device, precision)
            if fault:
                yield Finding(precision, None, (fault,))
                continue
            in_precision = target.model_copy(update={"precision": precision})
            yield from try_engines(sam, in_precision, folder, expectation)
    yield _state(device)


def _lacks(device: str, precision: Precision) -> str | None:
    """Why a GPU can't compute in a precision, if it can't."""
    gpu = find_gpu(device)
    capability = tuple(map(int, gpu.compute_capability.split(".")))
    if precision != "bf16" or capability >= _BF16_FROM:
        return None
    return f"Not tried: compute capability {gpu.compute_capability} has no bf16."


def _software() -> Finding:
    versions = []
    for package in _PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return Finding(
        "Software",
        None,
        (
            f"{platform.platform()}, Python {platform.python_version()}",
            f"{cpu_name()}, {physical_cores()} cores",
            ", ".join(versions),
        ),
    )


def _gpu(device: str) -> Finding:
    try:
        gpu = find_gpu(device)
    except DeviceError as error:
        return Finding("GPU", False, (str(error),))
    return Finding(
        "GPU",
        True,
        (
            f"{gpu.name}, compute capability {gpu.compute_capability}, "
            f"{gpu.memory_bytes / 2**30:.1f} GiB; torch is built for CUDA {gpu.cuda}",
        ),
    )


def _tensorrt(flavour: Flavour) -> Finding:
    program = find_trtexec(flavour)
    beside = f"; {program} is here to compare with" if program else ""
    try:
        trt = load_tensorrt(prefer=flavour)
    except DeviceError as error:
        return Finding(flavour, None, (str(error) + beside,))
    return Finding(flavour, None, (f"version {trt.version}{beside}",))


def _state(device: str) -> Finding:
    try:
        with gpu_gauge(device) as read:
            state = read()
    except DeviceError as error:
        return Finding("Clocks", None, (f"Not known. {error}",))
    held = ", ".join(state.throttled_by) or "nothing"
    return Finding(
        "Clocks",
        None,
        (
            f"after the runs: driver {state.driver}, {state.sm_clock_mhz} of "
            f"{state.max_sm_clock_mhz} MHz, memory "
            f"{state.memory_clock_mhz} MHz, {state.temperature_c} °C; held down by {held}",
        ),
    )
