"""Builds TensorRT engines from ONNX files, with TensorRT or TensorRT-RTX.

Networks are strongly typed: an engine's precision is that of its ONNX file, in every version of
TensorRT from 10.13 to 11. Only API that all of them and TensorRT-RTX share is used. TensorRT-RTX
builds without a GPU, for a set of GPUs; TensorRT builds for the GPU of the machine it runs on.

An engine is executable code: never load one that you don't trust.
"""

from __future__ import annotations

import hashlib
import importlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import hwsearch
from hwsearch.errors import DeviceError, ExportError, HwsearchError, UsageError
from hwsearch.files import replace_file, write_text
from hwsearch.progress import Progress, SilentProgress
from hwsearch.runtime.tensorrt_build import BuildOrder, build_plan, new_builder, parsed
from hwsearch.runtime.tensorrt_info import (
    EngineInfo,
    Flavour,
    Shape,
    ShapeRange,
    build_machine,
    check_profiles,
    current_gpu,
    onnx_sha256,
    shape_range,
    sidecar_path,
)
from hwsearch.runtime.tensorrt_log import build_log, build_monitor

__all__ = [
    "EngineInfo",
    "Flavour",
    "Shape",
    "ShapeRange",
    "TensorRT",
    "build_engine",
    "check_archs",
    "check_profiles",
    "load_tensorrt",
    "onnx_sha256",
    "parse_fault",
]

# The importable module of each flavour; the name of the extra that installs it is the flavour's.
_MODULES: dict[Flavour, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx_bindings"}
_TENSORRT_FLOOR = (10, 13)
_POLL_S = 0.05
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class TensorRT:
    """An imported TensorRT: its module, and which one it is."""

    module: Any
    flavour: Flavour
    version: str


def load_tensorrt(*, prefer: Flavour | None = None) -> TensorRT:
    """Import TensorRT, or TensorRT-RTX where that is what is installed.

    Args:
        prefer: accept only this one.

    Raises:
        DeviceError: it is not installed, can't be imported, or is older than this package can use.
    """
    flavours: Sequence[Flavour] = [prefer] if prefer else list(_MODULES)
    broken = []
    for flavour in flavours:
        try:
            module = importlib.import_module(_MODULES[flavour])
        except (ImportError, OSError) as error:  # OSError: a shared library is missing
            if not (isinstance(error, ModuleNotFoundError) and error.name == _MODULES[flavour]):
                broken.append(f"{flavour} ({' '.join(str(error).split()).rstrip('.')})")
            continue
        version = str(module.__version__)
        if flavour == "tensorrt" and _release(version) < _TENSORRT_FLOOR:
            raise DeviceError(
                f"TensorRT {version} is too old: 10.13 or later is needed, "
                'pip install --upgrade "hwsearch[tensorrt]".'
            )
        return TensorRT(module=module, flavour=flavour, version=version)
    extras = " or ".join(f'pip install "hwsearch[{flavour}]"' for flavour in flavours)
    if broken:
        raise DeviceError(
            f"{' and '.join(broken)} can't be imported, though it is installed: install it again, "
            f"{extras}."
        )
    raise DeviceError(f"{' or '.join(flavours)} is not installed here: {extras}.")


def build_engine(
    onnx_path: Path,
    engine_path: Path,
    *,
    profiles: Mapping[str, tuple[Shape, Shape, Shape]],
    trt: TensorRT | None = None,
    device: int | None = None,
    gpu_archs: tuple[str, ...] = (),
    workspace_bytes: int | None = None,
    timing_cache: Path | None = None,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> EngineInfo:
    """Build an engine from an ONNX file and write it, with a description beside it.

    Ctrl-C stops the build; neither file is written then.

    Args:
        onnx_path: the model.
        engine_path: the file to write, in one rename; `<engine_path>.json` holds what is returned.
        profiles: input name → smallest, optimal and largest shape. Every input with a free
            dimension needs one.
        trt: which TensorRT; without it, the one that `load_tensorrt` finds.
        device: N of the `cuda:N` to build on; without it, the calling thread's current GPU.
        gpu_archs: compute capabilities to build for, such as `("SM89",)`; TensorRT-RTX only.
            Empty means the GPU of this machine to TensorRT, and to TensorRT-RTX a set of its own,
            of Ampere and later.
        workspace_bytes: the most scratch memory that a layer may use; without it, all there is.
        timing_cache: a file with what earlier builds measured, which this one adds to; not for
            TensorRT-RTX, which measures nothing.
        progress: is told of the builder's phases, and of a timing cache that could not be kept.
        stop: ends the build when another thread sets it.

    Raises:
        UsageError: a profile or an architecture that this model or this TensorRT can't have.
        ExportError: the ONNX file can't be parsed or built; the message holds TensorRT's own. Or
            the engine can't be written, or the build was stopped.
        DeviceError: TensorRT is not installed, or finds no GPU where it needs one, or `device`
            can't be used.
    """
    trt = trt or load_tensorrt()
    ranges = {name: shape_range(name, shapes) for name, shapes in profiles.items()}
    check_archs(trt, gpu_archs)
    _require_onnx(onnx_path)
    order = BuildOrder(
        onnx_path=onnx_path,
        profiles=ranges,
        gpu_archs=gpu_archs,
        workspace_bytes=workspace_bytes,
        timing_cache=timing_cache if trt.flavour == "tensorrt" else None,
        device=current_gpu() if device is None else device,
    )
    stop = stop or threading.Event()
    progress = progress or SilentProgress()
    warn = progress.log
    began = time.monotonic()
    with progress.task(f"Building {engine_path.name}", 1) as advance:
        monitor = build_monitor(trt.module, advance, stop=stop)
        with build_log(trt.module) as log:
            plan = _stoppable(
                lambda: build_plan(
                    trt.module, order, log=log, monitor=monitor, stop=stop, warn=warn
                ),
                stop,
            )
    info = EngineInfo(
        file=engine_path.name,
        flavour=trt.flavour,
        version=trt.version,
        onnx_sha256=onnx_sha256(onnx_path),
        profiles=ranges,
        gpu_archs=gpu_archs,
        onnx_file=onnx_path.name,
        engine_sha256=hashlib.sha256(plan).hexdigest(),
        workspace_bytes=workspace_bytes,
        timing_cache=order.timing_cache is not None,
        build_s=round(time.monotonic() - began, 3),
        machine=build_machine(order.device),
        hwsearch_version=hwsearch.__version__,
    )
    _write(engine_path, plan, info)
    return info


def parse_fault(onnx_path: Path, *, trt: TensorRT) -> str | None:
    """Why TensorRT's parser refuses an ONNX file, node by node; None if it takes it.

    Raises:
        ExportError: there is no such file.
        DeviceError: TensorRT finds no GPU where it needs one.
    """
    _require_onnx(onnx_path)
    with build_log(trt.module) as log:
        try:
            parsed(trt.module, new_builder(trt.module, log), onnx_path, log)
        except ExportError as error:
            return str(error)
    return None


def check_archs(trt: TensorRT, gpu_archs: Sequence[str]) -> None:
    """Do nothing if this TensorRT can build for these compute capabilities (`SM89`).

    Raises:
        UsageError: it can't; the message names those that it can.
    """
    if not gpu_archs:
        return
    capabilities = getattr(trt.module, "ComputeCapability", None)
    if capabilities is None:
        raise UsageError(
            f"{trt.flavour} builds for the GPU of this machine only: leave the architectures "
            "out, or use tensorrt-rtx."
        )
    known = [name for name in capabilities.__members__ if name.startswith("SM")]
    unknown = [arch for arch in gpu_archs if arch not in known]
    if unknown:
        raise UsageError(
            f"{trt.flavour} {trt.version} can't build for {unknown[0]}: take some of "
            f"{', '.join(known)}."
        )
    twice = [arch for arch in known if list(gpu_archs).count(arch) > 1]
    if twice:
        raise UsageError(f"The architecture {twice[0]} is named twice: name each once.")


def _stoppable(work: Callable[[], _Result], stop: threading.Event) -> _Result:
    """Run `work` in a thread of its own, so that Ctrl-C reaches this one and stops it.

    TensorRT calls the monitor from the thread that builds; an exception raised there would have
    to pass through its C++.
    """
    results: list[_Result] = []
    errors: list[BaseException] = []
    # Not Thread.join: when an interruption ends it, Python 3.11 takes the thread for finished.
    done = threading.Event()

    def run() -> None:
        try:
            results.append(work())
        except HwsearchError as error:
            # TensorRT wants the monitor to outlive the builder, which the traceback holds.
            errors.append(error.with_traceback(None))
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
            errors.append(error)
        finally:
            done.set()

    threading.Thread(target=run, name="tensorrt-build").start()
    try:
        while not done.wait(_POLL_S):
            pass
    except KeyboardInterrupt:
        stop.set()
        done.wait()
        raise
    if errors:
        raise errors[0]
    return results[0]


def _write(engine: Path, plan: bytes, info: EngineInfo) -> None:
    """Write both files, or neither: an engine never stands beside another one's description."""
    sidecar = sidecar_path(engine)
    try:
        sidecar.unlink(missing_ok=True)
        with replace_file(engine) as temporary:
            temporary.write_bytes(plan)
        try:
            write_text(sidecar, info.model_dump_json(indent=2) + "\n")
        except BaseException:
            engine.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ExportError(
            f"{engine} could not be written ({error.strerror}): name another folder."
        ) from None


def _require_onnx(path: Path) -> None:
    if not path.is_file():
        raise ExportError(f"There is no ONNX file {path}: export the subnet first.")


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])
