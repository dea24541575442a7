"""What can be timed on this machine, and the target that a command line asks for."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Sequence
from typing import TypeVar, get_args

from hwsearch.errors import DeviceError, UsageError
from hwsearch.records import Precision, Record, Runtime, Target
from hwsearch.runtime.gpus import find_gpu, find_gpus, gpu_index, names_gpu
from hwsearch.runtime.hardware import cpu_name, logical_cores, physical_cores
from hwsearch.runtime.tensorrt import Flavour, load_tensorrt

_CPU_RUNTIMES: tuple[Runtime, ...] = ("onnxruntime", "openvino", "torch")
_CUDA_RUNTIMES: tuple[Flavour, ...] = get_args(Flavour)
_PRECISIONS: dict[Runtime, tuple[Precision, ...]] = {
    "onnxruntime": ("fp32", "int8"),
    "openvino": ("fp32", "bf16"),
    "torch": ("fp32",),
    "tensorrt": ("fp32", "fp16", "bf16"),
    "tensorrt-rtx": ("fp32", "fp16", "bf16"),
}


_R = TypeVar("_R", bound=Runtime)


class DeviceReport(Record):
    """Whether one runtime on one device can be timed here, in which precisions, or why not."""

    device: str
    device_name: str
    runtime: Runtime
    available: bool
    reason: str | None = None
    precisions: tuple[Precision, ...] = ()


def list_devices() -> tuple[DeviceReport, ...]:
    """Every device and runtime that hwsearch knows, those that work here first."""
    reports = [*map(_report_cpu, _CPU_RUNTIMES), *_reports_cuda()]
    return tuple(sorted(reports, key=lambda report: not report.available))


def resolve_target(
    *,
    device: str,
    runtime: str | None = None,
    precision: str = "fp32",
    threads: int | None = None,
    batch: int = 1,
) -> Target:
    """The target that these words mean on this machine.

    Args:
        device: `cpu`, `cuda` (the first GPU) or `cuda:N`.
        runtime: without it, `onnxruntime` on the CPU; on a GPU `tensorrt`, or else `tensorrt-rtx`.
        precision: what the runtime computes in.
        threads: without it, the physical cores that this process may use. A GPU has none.
        batch: images a run.

    Raises:
        UsageError: a word or a number that is not allowed; the message names what is.
        DeviceError: the device or the runtime can't be used here; the message says why.
    """
    if batch < 1:
        raise UsageError(f"A batch of {batch} images can't be run: take 1 or more.")
    if names_gpu(device):
        return _resolve_cuda(device, runtime, precision, threads, batch)
    if device != "cpu":
        raise UsageError(f"There is no device {device!r}: take cpu, cuda or cuda:N.")
    chosen = _check_runtime(device, runtime or "onnxruntime", _CPU_RUNTIMES)
    if threads is not None and not 1 <= threads <= logical_cores():
        raise UsageError(
            f"{threads} threads can't be used: this process may use 1 to {logical_cores()}."
        )
    fault = _cpu_fault(chosen)
    if fault:
        raise DeviceError(fault)
    return Target(
        device=device,
        device_name=cpu_name(),
        runtime=chosen,
        runtime_version=importlib.metadata.version(chosen),
        precision=_check_precision(chosen, precision),
        threads=threads or physical_cores(),
        batch=batch,
    )


def _resolve_cuda(
    device: str, runtime: str | None, precision: str, threads: int | None, batch: int
) -> Target:
    if threads not in (None, 1):
        raise UsageError(f"{threads} threads can't be used on {device}: they are for the CPU.")
    wanted = _check_runtime(device, runtime, _CUDA_RUNTIMES) if runtime else None
    gpu = find_gpu(device)
    trt = load_tensorrt(prefer=wanted)
    return Target(
        device=f"cuda:{gpu_index(device)}",
        device_name=gpu.name,
        runtime=trt.flavour,
        runtime_version=trt.version,
        precision=_check_precision(trt.flavour, precision),
        batch=batch,
    )


def _check_runtime(device: str, runtime: str, allowed: tuple[_R, ...]) -> _R:
    for known in allowed:
        if known == runtime:
            return known
    raise UsageError(f"Runtime {runtime!r} can't be used on {device}: take {_either(allowed)}.")


def _check_precision(runtime: Runtime, precision: str) -> Precision:
    supported = _supported_precisions(runtime)
    for known in supported:
        if known == precision:
            return known
    if precision in _PRECISIONS[runtime]:
        raise DeviceError(
            f"This CPU has no {precision} instructions: take --precision {_either(supported)}."
        )
    spelled = "" if precision in get_args(Precision) else " (there is no such precision)"
    raise UsageError(
        f"Precision {precision!r} can't be used with {runtime}{spelled}: take {_either(supported)}."
    )


def _supported_precisions(runtime: Runtime) -> tuple[Precision, ...]:
    if runtime != "openvino":
        return _PRECISIONS[runtime]
    from hwsearch.runtime.openvino import cpu_capabilities

    # OpenVINO takes the bf16 hint on any CPU, and computes in fp32 where bf16 is lacking.
    capabilities = cpu_capabilities()
    return tuple(name for name in _PRECISIONS[runtime] if name.upper() in capabilities)


def _report_cpu(runtime: Runtime) -> DeviceReport:
    fault = _cpu_fault(runtime)
    return DeviceReport(
        device="cpu",
        device_name=cpu_name(),
        runtime=runtime,
        available=fault is None,
        reason=fault,
        precisions=() if fault else _supported_precisions(runtime),
    )


def _reports_cuda() -> list[DeviceReport]:
    try:
        names = {f"cuda:{index}": gpu.name for index, gpu in enumerate(find_gpus())}
        fault = None
    except DeviceError as error:
        names, fault = {"cuda": "NVIDIA GPU"}, str(error)
    reports = []
    for device, name in names.items():
        for runtime in _CUDA_RUNTIMES:
            reason = fault or _tensorrt_fault(runtime)
            reports.append(
                DeviceReport(
                    device=device,
                    device_name=name,
                    runtime=runtime,
                    available=reason is None,
                    reason=reason,
                    precisions=() if reason else _PRECISIONS[runtime],
                )
            )
    return reports


def _cpu_fault(runtime: Runtime) -> str | None:
    if importlib.util.find_spec(runtime):
        return None
    package = '"hwsearch[openvino]"' if runtime == "openvino" else runtime
    return f"{runtime} is not installed: pip install {package}."


def _tensorrt_fault(flavour: Flavour) -> str | None:
    try:
        load_tensorrt(prefer=flavour)
    except DeviceError as error:
        return str(error)
    return None


def _either(words: Sequence[str]) -> str:
    return " or ".join(words)
