"""Loads an engine file: what it takes and gives, and the context that runs it.

An engine is executable code: never load one that you don't trust.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hwsearch.errors import DeviceError
from hwsearch.runtime.runner import TensorSpec, require_file
from hwsearch.runtime.tensorrt import TensorRT
from hwsearch.runtime.tensorrt_log import BuildLog, build_log

# By name: versions number their enums differently.
_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT64": "int64",
    "INT32": "int32",
    "INT8": "int8",
    "UINT8": "uint8",
    "BOOL": "bool",
}


@dataclass(frozen=True)
class Engine:
    """A loaded engine. Its Python objects have to live as long as what was made of them."""

    path: Path
    trt: TensorRT
    runtime: Any
    engine: Any
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def load_engine(path: Path, *, trt: TensorRT) -> Engine:
    """Load an engine onto the current GPU.

    Raises:
        DeviceError: there is no such file, TensorRT finds no GPU, or it can't load this engine
            (made by another version, for another GPU, or damaged).
    """
    require_file(path)
    with build_log(trt.module) as log:
        try:
            runtime = trt.module.Runtime(log.logger)
        except TypeError:  # the bindings' way to say that the factory gave no object
            raise DeviceError(
                f"TensorRT can't run here: {log.errors() or 'it finds no usable NVIDIA GPU'}."
            ) from None
        engine = runtime.deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise DeviceError(
                f"{trt.flavour} {trt.version} can't load {path}: "
                f"{log.errors() or 'it gives no reason'}. Engines run on the GPU and the version "
                "that they were built for: build it again here."
            )
    specs = _specs(trt.module, engine, path)
    return Engine(
        path=path,
        trt=trt,
        runtime=runtime,
        engine=engine,
        inputs=tuple(spec for spec, is_input in specs if is_input),
        outputs=tuple(spec for spec, is_input in specs if not is_input),
    )


def new_context(trt: Any, engine: Any) -> Any:  # noqa: ANN401 - a module that is chosen at run time
    """A context that runs `engine`; None where TensorRT can't make one.

    TensorRT-RTX compiles kernels when an engine first sees a shape, and by default runs general
    ones meanwhile, whose time is not the engine's: it is told to wait for the right ones.
    """
    runtime_config = engine.create_runtime_config()
    if hasattr(runtime_config, "dynamic_shapes_kernel_specialization_strategy"):
        runtime_config.dynamic_shapes_kernel_specialization_strategy = (
            trt.DynamicShapesKernelSpecializationStrategy.EAGER
        )
    return engine.create_execution_context(runtime_config)


def ready_context(loaded: Engine, *, stream: torch.cuda.Stream, log: BuildLog) -> Any:  # noqa: ANN401
    """A context that runs an engine, with its profile of shapes chosen.

    Args:
        loaded: the engine.
        stream: where the choice is enqueued, and waited for.
        log: what TensorRT says meanwhile.

    Raises:
        DeviceError: TensorRT can't make one, or refuses the profile.
    """
    context = new_context(loaded.trt.module, loaded.engine)
    if context is None:
        raise DeviceError(
            f"TensorRT can't make a context for {loaded.path}: "
            f"{log.errors() or 'the GPU may lack the memory'}."
        )
    # Only an engine's first context begins with a profile.
    if context.active_optimization_profile < 0:
        if not context.set_optimization_profile_async(0, stream.cuda_stream):
            raise DeviceError(
                f"TensorRT can't choose the shapes of {loaded.path}: "
                f"{log.errors() or 'it gives no reason'}."
            )
        stream.synchronize()
    return context


def shape_limits(engine: Any, name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:  # noqa: ANN401
    """The smallest and the largest shape that an engine takes for an input."""
    smallest, _, largest = engine.get_tensor_profile_shape(name, 0)
    return tuple(smallest), tuple(largest)


def _specs(trt: Any, engine: Any, path: Path) -> list[tuple[TensorSpec, bool]]:  # noqa: ANN401
    """What each tensor is, and whether it is an input."""
    specs = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        kind = engine.get_tensor_dtype(name).name
        if kind not in _DTYPES or engine.is_shape_inference_io(name):
            held = "a shape" if kind in _DTYPES else kind
            raise DeviceError(
                f"{path} can't be run by hwsearch: its tensor {name!r} holds {held}, and inputs "
                f"and outputs have to be arrays of {', '.join(_DTYPES.values())}."
            )
        shape = tuple(None if size < 0 else int(size) for size in engine.get_tensor_shape(name))
        spec = TensorSpec(name=name, shape=shape, dtype=_DTYPES[kind])
        specs.append((spec, engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT))
    return specs
