"""TensorRT with real classes and a model of our own: what runs an engine, without a GPU.

Every object is made with `create_autospec` from the real bindings' class, so that a method or an
attribute that this version does not have fails. Enums, base classes and `Dims` are the real ones.
An engine file holds the word `plan` and computes relu(x · 2) · scale, on the memory whose addresses
the context was given: a wrong address, shape or type gives wrong numbers, or none.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import create_autospec

import numpy as np
from gpu_machine import Machine

from hwsearch.runtime.tensorrt import Flavour, TensorRT

WIDTH = 4
MOST = 8  # rows that the engine's profile allows
PLAN = b"plan"
# Tensor → (whether it is an input, its shape, its type); in an order that mixes both kinds.
TENSORS = {
    "x": (True, (-1, WIDTH), "FLOAT"),
    "total": (False, (-1,), "FLOAT"),
    "scale": (True, (1,), "HALF"),
    "rows": (False, (-1, WIDTH), "FLOAT"),
}


def write_plan(path: Path) -> Path:
    path.write_bytes(PLAN)
    return path


def fake(real: ModuleType, machine: Machine, flavour: Flavour) -> TensorRT:
    """A TensorRT whose engines run on `machine`; without changing `real`."""
    module = ModuleType(f"fake_{real.__name__}")
    module.__dict__.update({name: getattr(real, name) for name in dir(real)})
    module.__dict__["Runtime"] = lambda logger: _runtime(real, machine, logger)
    return TensorRT(module=module, flavour=flavour, version=real.__version__)


def _runtime(real: Any, machine: Machine, logger: Any) -> Any:
    assert isinstance(logger, real.ILogger)
    runtime = create_autospec(real.Runtime, instance=True)

    def deserialize(serialized_engine: bytes) -> Any:
        if serialized_engine != PLAN:
            logger.log(real.ILogger.ERROR, "Magic tag does\n not match")
            return None
        machine.free_bytes -= 5000
        return _engine(real, machine)

    runtime.deserialize_cuda_engine.side_effect = deserialize
    return runtime


def _engine(real: Any, machine: Machine) -> Any:
    engine = create_autospec(real.ICudaEngine, instance=True)
    engine.num_io_tensors = len(TENSORS)
    engine.get_tensor_name.side_effect = list(TENSORS).__getitem__
    engine.get_tensor_shape.side_effect = lambda name: real.Dims(TENSORS[name][1])
    engine.get_tensor_dtype.side_effect = lambda name: getattr(real.DataType, TENSORS[name][2])
    engine.is_shape_inference_io.side_effect = lambda name: False
    engine.get_tensor_mode.side_effect = lambda name: (
        real.TensorIOMode.INPUT if TENSORS[name][0] else real.TensorIOMode.OUTPUT
    )

    def limits(name: str, profile_index: int) -> list[Any]:
        assert profile_index == 0
        shape = TENSORS[name][1]
        return [real.Dims([n if n > 0 else free for n in shape]) for free in (1, 2, MOST)]

    engine.get_tensor_profile_shape.side_effect = limits
    contexts: list[_Context] = []
    runtime_config = create_autospec(real.IRuntimeConfig, instance=True)
    engine.create_runtime_config.side_effect = lambda: runtime_config

    def create(config: Any) -> Any:
        assert config is runtime_config
        strategies = getattr(real, "DynamicShapesKernelSpecializationStrategy", None)
        if strategies:
            assert config.dynamic_shapes_kernel_specialization_strategy == strategies.EAGER
        contexts.append(_Context(real, machine, is_first=not contexts))
        return contexts[-1].spec

    engine.create_execution_context.side_effect = create
    return engine


class _Context:
    """Behaviour behind an autospec of IExecutionContext."""

    def __init__(self, real: Any, machine: Machine, *, is_first: bool) -> None:
        self._real, self._machine = real, machine
        self._rows: int | None = None
        self._runs = 0
        self._addresses: dict[str, int] = {}
        self.spec = create_autospec(real.IExecutionContext, instance=True)
        self.spec.set_input_shape.side_effect = self._set_shape
        self.spec.get_tensor_shape.side_effect = lambda name: real.Dims(self._shape(name))
        self.spec.set_tensor_address.side_effect = self._set_address
        self.spec.execute_async_v3.side_effect = self._execute
        self.spec.set_optimization_profile_async.side_effect = self._choose
        self.spec.active_optimization_profile = 0 if is_first else -1
        self.spec.profiler = None

    def _choose(self, profile_index: int, stream_handle: int) -> bool:
        self.spec.active_optimization_profile = profile_index
        return stream_handle == self._machine.streams[-1]

    def _set_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        if not TENSORS[name][0]:
            return False
        if name == "x":
            if not 1 <= shape[0] <= MOST:
                return False
            self._rows = shape[0]
        return True

    def _shape(self, name: str) -> tuple[int, ...]:
        assert self._rows is not None, "a shape was asked for before all inputs had theirs"
        return tuple(self._rows if size < 0 else size for size in TENSORS[name][1])

    def _set_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return memory != 0

    def _execute(self, stream_handle: int) -> bool:
        if stream_handle != self._machine.streams[-1]:
            return False
        assert self.spec.active_optimization_profile == 0, "no profile was chosen"
        self._machine.launch(self._compute)
        return True

    def _compute(self) -> None:
        x, scale = self._array("x"), self._array("scale")
        rows = self._array("rows")
        np.maximum(2 * x, 0, out=rows)
        rows *= scale
        self._array("total")[:] = rows.sum(-1)
        profiler, self._runs = self.spec.profiler, self._runs + 1
        if profiler is not None:
            assert isinstance(profiler, self._real.IProfiler)
            profiler.report_layer_time("double", 0.25 if self._runs > 1 else 100.0)
            profiler.report_layer_time("scale", 0.75)

    def _array(self, name: str) -> np.ndarray:
        shape = self._shape(name)
        dtype = np.dtype({"FLOAT": "float32", "HALF": "float16"}[TENSORS[name][2]])
        size = int(np.prod(shape)) * dtype.itemsize
        buffer = (ctypes.c_char * size).from_address(self._addresses[name])
        return np.frombuffer(buffer, dtype).reshape(shape)


def refusing(trt: TensorRT, what: Callable[[Any], None]) -> TensorRT:
    """The same TensorRT, whose engines `what` changes before they are used."""
    runtime = trt.module.Runtime

    def changed(logger: Any) -> Any:
        made = runtime(logger)
        deserialize = made.deserialize_cuda_engine.side_effect

        def load(serialized_engine: bytes) -> Any:
            engine = deserialize(serialized_engine)
            what(engine)
            return engine

        made.deserialize_cuda_engine.side_effect = load
        return made

    module = ModuleType("refusing")
    module.__dict__.update({**trt.module.__dict__, "Runtime": changed})
    return TensorRT(module=module, flavour=trt.flavour, version=trt.version)
