"""Opens ONNX files and engines on a GPU; an engine is built from an ONNX file when it is opened.

A worker process opens what it times, so that a build that crashes or hangs ends that subject
alone. The engine stays beside its ONNX file, under a name that holds all it depends on.
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import onnx
import torch

from hwsearch.errors import DeviceError, ExportError, UsageError
from hwsearch.records import Target, short_digest
from hwsearch.runtime.gpus import gpu_index
from hwsearch.runtime.runner import require_file
from hwsearch.runtime.tensorrt import (
    Flavour,
    Shape,
    TensorRT,
    build_engine,
    load_tensorrt,
    onnx_sha256,
)
from hwsearch.runtime.tensorrt_build import use_gpu
from hwsearch.runtime.tensorrt_cache import timing_cache_name
from hwsearch.runtime.tensorrt_info import read_engine_info
from hwsearch.runtime.tensorrt_runner import TensorRtRunner

_FLAVOURS: dict[str, Flavour] = {flavour: flavour for flavour in get_args(Flavour)}
_BOX_POINTS = 2


def open_on_gpu(target: Target, path: Path) -> TensorRtRunner:
    """Open an engine, or the engine that an ONNX file becomes for this target.

    Raises:
        DeviceError: TensorRT is not installed, there is no GPU, or the engine can't be loaded.
        ExportError: TensorRT can't build an engine from the file, or the engine is not the one
            that the file beside it describes.
        UsageError: the file has open dimensions that are not those of a Segment Anything model.
    """
    require_file(path)
    trt = load_tensorrt(prefer=_FLAVOURS[target.runtime])
    index = gpu_index(target.device)
    use_gpu(index)  # engines are loaded onto the current one
    if path.suffix == ".engine":
        engine = path
        read_engine_info(engine)  # raises for a file that is not the one that was built
    else:
        engine = engine_of(target, path, trt=trt)
    return TensorRtRunner(engine, trt=trt, device=torch.device("cuda", index))


def engine_of(target: Target, path: Path, *, trt: TensorRT) -> Path:
    """The engine of an ONNX file for a target, built on its GPU unless it is there, intact.

    Raises:
        DeviceError, ExportError, UsageError: as `open_on_gpu`.
    """
    conditions = (onnx_sha256(path), target.device_name, trt.flavour, trt.version, target.batch)
    digest = short_digest("\n".join(map(str, conditions)))
    engine = path.with_name(f"{path.stem}-{digest}.engine")
    if not _is_intact(engine):
        for outdated in path.parent.glob(f"{path.stem}-{'?' * len(digest)}.engine*"):
            outdated.unlink()
        shapes = fixed_shapes(path, batch=target.batch)
        profiles = {name: (shape, shape, shape) for name, shape in shapes.items()}
        build_engine(
            path,
            engine,
            profiles=profiles,
            trt=trt,
            device=gpu_index(target.device),
            # like layers of a group's subnets run alike
            timing_cache=path.with_name(timing_cache_name(target.device_name, trt.version)),
        )
    return engine


def _is_intact(engine: Path) -> bool:
    """Whether an engine is there with its description; one whose build was cut short has none."""
    try:
        read_engine_info(engine)
    except ExportError:
        return False
    return True


def fixed_shapes(path: Path, *, batch: int) -> dict[str, Shape]:
    """Shapes of the inputs that have open dimensions: a batch of images, and one box.

    An engine of one shape alone is as fast as this shape can be, which is what is timed.

    Raises:
        DeviceError: the file is no ONNX.
        UsageError: an input with open dimensions is none of Segment Anything's.
    """
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception as error:  # noqa: BLE001 - protobuf's errors share no other base
        raise DeviceError(
            f"{path} is no ONNX file ({type(error).__name__}): export it again."
        ) from None
    known = {
        "image": (batch,),
        "point_coords": (1, _BOX_POINTS),
        "point_labels": (1, _BOX_POINTS),
    }
    found = {}
    for tensor in graph.input:
        dimensions = [size.dim_value for size in tensor.type.tensor_type.shape.dim]
        if all(dimensions):
            continue
        free = known.get(tensor.name, ())
        shape = (*free, *dimensions[len(free) :])
        if not all(shape):
            raise UsageError(
                f"Input {tensor.name!r} of {path} has open dimensions: only those of "
                f"{', '.join(known)} can be filled in."
            )
        found[tensor.name] = shape
    return found
