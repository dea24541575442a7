"""What an engine file does not say about itself, and the shapes that it takes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import NonNegativeFloat, PositiveInt

from hwsearch.errors import DeviceError, ExportError, UsageError
from hwsearch.records import Record
from hwsearch.runtime.gpus import gpu_gauge

Flavour = Literal["tensorrt", "tensorrt-rtx"]
Shape = tuple[int, ...]


class ShapeRange(Record):
    """The shapes that an engine takes for one input, and the one it is made fastest for."""

    min: tuple[PositiveInt, ...]
    opt: tuple[PositiveInt, ...]
    max: tuple[PositiveInt, ...]


class BuildMachine(Record):
    """The GPU that an engine was built on.

    `compute_capability` is `8.9` for Ada; `cuda` is the version that torch was built with, and
    `driver` what NVML tells, where it is installed.
    """

    gpu: str
    compute_capability: str
    cuda: str | None
    driver: str | None


class EngineInfo(Record):
    """What an engine file does not say about itself.

    `gpu_archs` are the compute capabilities that it was built for (`SM89`). Empty means, of
    TensorRT, the GPU that it was built on, and of TensorRT-RTX that library's own set, of Ampere
    and later. `machine` describes the GPU that it was built on (None: there was none).
    `onnx_file` is the model that it was built from, whose precision is the engine's. The fields
    that default to None are unknown of engines built by versions of hwsearch before 0.2.
    """

    file: str
    flavour: Flavour
    version: str
    onnx_sha256: str
    profiles: dict[str, ShapeRange]
    gpu_archs: tuple[str, ...]
    onnx_file: str | None = None
    engine_sha256: str | None = None
    workspace_bytes: int | None = None
    timing_cache: bool = False
    build_s: NonNegativeFloat | None = None
    machine: BuildMachine | None = None
    hwsearch_version: str | None = None


def sidecar_path(engine: Path) -> Path:
    """The file beside an engine that describes it: `encoder.engine.json`."""
    return engine.with_name(f"{engine.name}.json")


def read_engine_info(engine: Path, *, verify: bool = True) -> EngineInfo:
    """Read what is known about an engine.

    Args:
        engine: the engine file.
        verify: compare its SHA-256 with the one that was noted when it was built.

    Raises:
        ExportError: it has no description, a damaged one, or is not the file that was described.
    """
    path = sidecar_path(engine)
    if not engine.is_file() or not path.is_file():
        raise ExportError(
            f"{engine} or its description {path.name} is missing: build the engine again."
        )
    try:
        info = EngineInfo.from_json(path.read_bytes())
    except UsageError as error:
        raise ExportError(f"{path} is damaged: {error} Build the engine again.") from None
    if verify and info.engine_sha256 not in (None, _sha256(engine)):
        raise ExportError(
            f"{engine} is not the file that {path.name} describes (its SHA-256 differs): build it "
            "again, and don't load it, since engines are executable code."
        )
    return info


def onnx_sha256(path: Path) -> str:
    """SHA-256 of an ONNX file and, where there is one, of the weights beside it."""
    digest = hashlib.sha256()
    for part in (path, path.with_name(f"{path.name}.data")):
        if part.is_file():
            digest.update(bytes.fromhex(_sha256(part)))
    return digest.hexdigest()


def current_gpu() -> int | None:
    """Number of the GPU that is the calling thread's current one; None where there is none."""
    import torch

    return torch.cuda.current_device() if torch.cuda.is_available() else None


def build_machine(index: int | None) -> BuildMachine | None:
    """The GPU of a number that TensorRT builds on; None where there is none."""
    import torch

    if index is None or not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability(index)
    return BuildMachine(
        gpu=torch.cuda.get_device_name(index),
        compute_capability=f"{major}.{minor}",
        cuda=torch.version.cuda,
        driver=_driver(index),
    )


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


def shape_range(name: str, shapes: tuple[Shape, Shape, Shape]) -> ShapeRange:
    """Smallest, optimal and largest shape of an input, checked.

    Raises:
        UsageError: they are of different lengths, not positive, or don't ascend.
    """
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


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _driver(index: int) -> str | None:
    """Version of the NVIDIA driver, where the optional NVML binding is there to ask."""
    try:
        with gpu_gauge(f"cuda:{index}") as read:
            return read().driver
    except DeviceError:
        return None
