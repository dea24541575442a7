"""Builds TensorRT engines from ONNX files, with TensorRT or TensorRT-RTX.

Networks are strongly typed: an engine's precision is that of its ONNX file, in every version of
TensorRT from 10.13 to 11. Only API that all of them and TensorRT-RTX share is used. TensorRT-RTX
builds without a GPU; TensorRT builds for the GPU of the machine it runs on.

An engine is executable code: never load one that you don't trust.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveInt

from hwsearch.errors import DeviceError, ExportError, HwsearchError, UsageError
from hwsearch.files import replace_file
from hwsearch.progress import Progress, SilentProgress
from hwsearch.records import Record
from hwsearch.runtime.tensorrt_log import BuildLog, build_log, build_monitor

Flavour = Literal["tensorrt", "tensorrt-rtx"]
Shape = tuple[int, ...]

# The importable module of each flavour; the name of the extra that installs it is the flavour's.
_MODULES: dict[Flavour, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx_bindings"}
_TENSORRT_FLOOR = (10, 13)


@dataclass(frozen=True)
class TensorRT:
    """An imported TensorRT: its module, and which one it is."""

    module: Any
    flavour: Flavour
    version: str


class ShapeRange(Record):
    """The shapes that an engine takes for one input, and the one it is made fastest for."""

    min: tuple[PositiveInt, ...]
    opt: tuple[PositiveInt, ...]
    max: tuple[PositiveInt, ...]


class EngineInfo(Record):
    """What an engine file does not say about itself.

    `gpu_archs` are the compute capabilities that it was built for (`SM89`); empty means the GPU
    of the machine that built it.
    """

    file: str
    flavour: Flavour
    version: str
    onnx_sha256: str
    profiles: dict[str, ShapeRange]
    gpu_archs: tuple[str, ...]


def load_tensorrt(*, prefer: Flavour | None = None) -> TensorRT:
    """Import TensorRT, or TensorRT-RTX where that is what is installed.

    Args:
        prefer: accept only this one.

    Raises:
        DeviceError: it is not installed, or older than this package can use.
    """
    flavours: Sequence[Flavour] = [prefer] if prefer else list(_MODULES)
    for flavour in flavours:
        try:
            module = importlib.import_module(_MODULES[flavour])
        except (ImportError, OSError):  # OSError: a shared library is missing
            continue
        version = str(module.__version__)
        if flavour == "tensorrt" and _release(version) < _TENSORRT_FLOOR:
            raise DeviceError(
                f"TensorRT {version} is too old: 10.13 or later is needed, "
                'pip install --upgrade "hwsearch[tensorrt]".'
            )
        return TensorRT(module=module, flavour=flavour, version=version)
    extras = " or ".join(f'pip install "hwsearch[{flavour}]"' for flavour in flavours)
    raise DeviceError(f"{' or '.join(flavours)} is not installed here: {extras}.")


def build_engine(
    onnx_path: Path,
    engine_path: Path,
    *,
    profiles: Mapping[str, tuple[Shape, Shape, Shape]],
    trt: TensorRT | None = None,
    gpu_archs: tuple[str, ...] = (),
    workspace_bytes: int | None = None,
    progress: Progress | None = None,
) -> EngineInfo:
    """Build an engine from an ONNX file and write it.

    Args:
        onnx_path: the model.
        engine_path: the file to write, in one rename.
        profiles: input name → smallest, optimal and largest shape. Every input with a free
            dimension needs one.
        trt: which TensorRT; without it, the one that `load_tensorrt` finds.
        gpu_archs: compute capabilities to build for, such as `("SM89",)`; TensorRT-RTX only.
            Empty means the GPU of this machine.
        workspace_bytes: the most scratch memory that a layer may use; without it, all there is.
        progress: is told of the builder's phases.

    Raises:
        UsageError: a profile or an architecture that this model or this TensorRT can't have.
        ExportError: the ONNX file can't be parsed or built; the message holds TensorRT's own.
        DeviceError: TensorRT is not installed, or finds no GPU where it needs one.
    """
    trt = trt or load_tensorrt()
    ranges = {name: _shape_range(name, shapes) for name, shapes in profiles.items()}
    _check_archs(trt, gpu_archs)
    if not onnx_path.is_file():
        raise ExportError(f"There is no ONNX file {onnx_path}: export the subnet first.")
    with (progress or SilentProgress()).task(f"Building {engine_path.name}", 1) as advance:
        monitor = build_monitor(trt.module, advance)
        with build_log(trt.module) as log:
            try:
                plan = _build(
                    trt.module,
                    log=log,
                    monitor=monitor,
                    onnx_path=onnx_path,
                    profiles=ranges,
                    gpu_archs=gpu_archs,
                    workspace_bytes=workspace_bytes,
                )
            except HwsearchError as error:
                # TensorRT wants the monitor to outlive the builder, which the traceback holds.
                raise error.with_traceback(None) from None
    with replace_file(engine_path) as temporary:
        temporary.write_bytes(plan)
    return EngineInfo(
        file=engine_path.name,
        flavour=trt.flavour,
        version=trt.version,
        onnx_sha256=onnx_sha256(onnx_path),
        profiles=ranges,
        gpu_archs=gpu_archs,
    )


def onnx_sha256(path: Path) -> str:
    """SHA-256 of an ONNX file and, where there is one, of the weights beside it."""
    digest = hashlib.sha256()
    for part in (path, path.with_name(f"{path.name}.data")):
        if part.is_file():
            with part.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def check_profiles(inputs: Mapping[str, Shape], profiles: Mapping[str, ShapeRange]) -> None:
    """Do nothing if every profile belongs to an input and every free input has a profile.

    TensorRT itself passes over an unknown name in silence.

    Args:
        inputs: input name → shape, -1 where a dimension is free.
        profiles: input name → the shapes asked for.

    Raises:
        UsageError: it is not so; the message names the first fault.
    """
    for name, profile in profiles.items():
        if name not in inputs:
            raise UsageError(
                f"The model has no input '{name}': its inputs are {', '.join(inputs)}."
            )
        shape = inputs[name]
        for asked in (profile.min, profile.opt, profile.max):
            if len(asked) != len(shape) or any(
                size not in (-1, want) for size, want in zip(shape, asked, strict=True)
            ):
                raise UsageError(
                    f"Input '{name}' can't have the shape {asked}: the model takes {_spell(shape)}."
                )
    for name, shape in inputs.items():
        if -1 in shape and name not in profiles:
            raise UsageError(
                f"Input '{name}' has the free shape {_spell(shape)}: give its smallest, optimal "
                "and largest shape."
            )


def _build(
    trt: Any,  # noqa: ANN401 - a module that is chosen at run time
    *,
    log: BuildLog,
    monitor: Any,  # noqa: ANN401
    onnx_path: Path,
    profiles: Mapping[str, ShapeRange],
    gpu_archs: tuple[str, ...],
    workspace_bytes: int | None,
) -> bytes:
    try:
        builder = trt.Builder(log.logger)
    except TypeError:  # the bindings' way to say that the factory gave no object
        raise DeviceError(
            f"TensorRT can't build here: {log.errors() or 'it finds no usable NVIDIA GPU'}."
        ) from None
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log.logger)
    if not parser.parse_from_file(str(onnx_path)):
        raise ExportError(f"TensorRT can't parse {onnx_path}: {_parser_errors(parser)}.")
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    check_profiles({tensor.name: tuple(tensor.shape) for tensor in tensors}, profiles)

    config = builder.create_builder_config()
    config.progress_monitor = monitor
    if workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
    if gpu_archs:
        config.num_compute_capabilities = len(gpu_archs)
        for index, arch in enumerate(gpu_archs):
            config.set_compute_capability(getattr(trt.ComputeCapability, arch), index)
    if profiles:
        profile = builder.create_optimization_profile()
        for name, shapes in profiles.items():
            profile.set_shape(name, shapes.min, shapes.opt, shapes.max)
        config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ExportError(
            f"TensorRT can't build {onnx_path}: {log.errors() or 'it gives no reason'}."
        )
    return bytes(plan)


def _parser_errors(parser: Any) -> str:  # noqa: ANN401
    """All that the parser found wrong, node by node."""
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    return "; ".join(_spell_error(error) for error in errors)


def _spell_error(error: Any) -> str:  # noqa: ANN401
    reason = " ".join(error.desc().split()).rstrip(".")
    if not error.node_name():
        return reason
    return f"node '{error.node_name()}' ({error.node_operator()}, {error.code().name}): {reason}"


def _check_archs(trt: TensorRT, gpu_archs: tuple[str, ...]) -> None:
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


def _shape_range(name: str, shapes: tuple[Shape, Shape, Shape]) -> ShapeRange:
    lengths = {len(shape) for shape in shapes}
    ascending = len(lengths) == 1 and all(
        0 < low <= mid <= high for low, mid, high in zip(*shapes, strict=True)
    )
    if not ascending:
        raise UsageError(
            f"The shapes {', '.join(map(str, shapes))} of input '{name}' have to be of one "
            "length, positive, and ascend from smallest over optimal to largest."
        )
    smallest, optimal, largest = shapes
    return ShapeRange(min=smallest, opt=optimal, max=largest)


def _spell(shape: Shape) -> str:
    return "×".join("any" if size == -1 else str(size) for size in shape)


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])
