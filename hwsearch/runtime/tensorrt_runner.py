"""Runs TensorRT engines behind the `Runner` protocol, timed by the GPU's own clock.

torch gives streams, events, graphs and memory; TensorRT is told their addresses. Inputs are on the
GPU before a run is timed, and outputs stay there: latency is that of the engine, without transfers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch

from hwsearch.errors import DeviceError, UsageError
from hwsearch.runtime.cuda_timing import (
    LEAST_S,
    Clock,
    RunTimes,
    exactly,
    time_alone,
    time_runs,
)
from hwsearch.runtime.runner import Array, Seconds, check_inputs, require_open
from hwsearch.runtime.tensorrt import TensorRT
from hwsearch.runtime.tensorrt_engine import Engine, load_engine, ready_context, shape_limits
from hwsearch.runtime.tensorrt_log import BuildLog, build_log
from hwsearch.runtime.tensorrt_profile import LayerTime, layer_profiler

Shapes = tuple[tuple[int, ...], ...]


class _RunFailedError(Exception):
    """TensorRT did not enqueue a run; its log says why."""


class TensorRtRunner:
    """An engine that is loaded on a GPU.

    A run is a CUDA graph where the engine can be captured as one, else TensorRT enqueues it each
    time; `captured` tells which, once something was run, and `not_captured` why.

    Args:
        path: the engine file; it is executable code.
        trt: the TensorRT that made it.
        device: the GPU. Tensors are made there.

    Raises:
        DeviceError: the engine can't be loaded here.
    """

    def __init__(self, path: Path, *, trt: TensorRT, device: torch.device) -> None:
        self.path = path
        self._device = device
        torch.cuda.set_device(device)
        self._stream = torch.cuda.Stream(device)
        self._memory_bytes = 0
        with self._memory_counted():
            loaded = load_engine(path, trt=trt)
            with build_log(trt.module) as log:
                self._context = ready_context(loaded, stream=self._stream, log=log)
        self._loaded: Engine | None = loaded
        self.inputs = loaded.inputs
        self.outputs = loaded.outputs
        self._tensors: dict[str, torch.Tensor] = {}
        self._shapes: Shapes | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._not_captured: str | None = None

    @property
    def captured(self) -> bool:
        """Whether runs are replays of a CUDA graph."""
        return self._graph is not None

    @property
    def not_captured(self) -> str | None:
        """Why runs are enqueued each time; None where they are a graph, or nothing was run yet."""
        return self._not_captured

    @property
    def device_memory_bytes(self) -> int:
        """GPU memory that loading the engine and its first runs took, in bytes.

        Found as trtexec does, by how much less was free: another program that takes memory at
        these moments is counted too.
        """
        return self._memory_bytes

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the engine once; see `Runner.infer`."""
        self._prepare(inputs)
        with self._running():
            self._enqueue()
            self._stream.synchronize()
            return {
                spec.name: self._tensors[spec.name].to("cpu", copy=True).numpy()
                for spec in self.outputs
            }

    def time(self, inputs: Mapping[str, Array], n: int) -> Seconds:
        """Time `n` runs on the GPU's clock, two of them in flight; see `Runner.time`."""
        done = exactly(n)
        self._prepare(inputs)
        with self._running():
            return time_runs(self._enqueue, new_event=_new_event, done=done).gpu

    def time_alone(
        self,
        inputs: Mapping[str, Array],
        *,
        least_s: float = LEAST_S,
        clock: Clock = perf_counter,
    ) -> RunTimes:
        """Time as trtexec does by default: warm up, then at least ten runs and `least_s` seconds.

        Raises:
            UsageError: as `infer`.
            DeviceError: the engine fails.
        """
        self._prepare(inputs)
        with self._running():
            return time_alone(self._enqueue, new_event=_new_event, least_s=least_s, clock=clock)

    def profile_layers(self, inputs: Mapping[str, Array], n: int) -> tuple[LayerTime, ...]:
        """Mean time of each layer over `n` runs, in the order of the engine.

        TensorRT waits after each layer to time it: the sum is more than the engine's latency.

        Raises:
            UsageError: as `infer`, or `n` is less than 1.
            DeviceError: the engine fails.
        """
        exactly(n)
        self._prepare(inputs)
        loaded = require_open(self._loaded, self.path)
        sums_ms: dict[str, float] = {}
        with self._running() as log:
            context = ready_context(
                loaded, stream=self._stream, log=log
            )  # a profiler can't be taken off again
            self._bind(context, inputs)
            self._execute(context)  # the first run does once what is no layer's time
            self._stream.synchronize()
            profiler = layer_profiler(loaded.trt.module, sums_ms)
            context.profiler = profiler
            for _ in range(n):
                self._execute(context)
                self._stream.synchronize()
        return tuple(LayerTime(name, ms / n) for name, ms in sums_ms.items())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What is in flight reads what is let go here. A GPU that failed has said so before.
        with suppress(RuntimeError):
            self._stream.synchronize()
        # In the order in which they hang on each other.
        self._graph, self._context, self._loaded = None, None, None
        self._tensors, self._shapes = {}, None

    def _prepare(self, inputs: Mapping[str, Array]) -> None:
        """Have the inputs on the GPU, and a graph for their shapes."""
        loaded = require_open(self._loaded, self.path)
        check_inputs(self.inputs, inputs)
        shapes = tuple(inputs[spec.name].shape for spec in self.inputs)
        if shapes == self._shapes:
            self._upload(inputs)
            return
        self._graph, self._shapes = None, None
        with self._memory_counted():
            with self._running():
                self._tensors = {}
                self._bind(self._context, inputs)
                self._upload(inputs)
                self._execute(self._context)  # does once what can't be captured
                self._stream.synchronize()
            self._graph = self._captured_graph(loaded)
        self._shapes = shapes

    def _bind(self, context: Any, inputs: Mapping[str, Array]) -> None:  # noqa: ANN401
        """Tell a context the shapes, and the addresses of all tensors, made where they lack."""
        loaded = require_open(self._loaded, self.path)
        for spec in self.inputs:
            shape = inputs[spec.name].shape
            if not context.set_input_shape(spec.name, shape):
                low, high = shape_limits(loaded.engine, spec.name)
                raise UsageError(
                    f"Input {spec.name!r} has shape {shape}: the engine was built for {low} to "
                    f"{high}."
                )
        for spec in (*self.inputs, *self.outputs):
            if spec.name not in self._tensors:
                self._tensors[spec.name] = torch.empty(
                    tuple(context.get_tensor_shape(spec.name)),
                    dtype=getattr(torch, spec.dtype),
                    device=self._device,
                )
            if not context.set_tensor_address(spec.name, self._tensors[spec.name].data_ptr()):
                raise DeviceError(f"TensorRT takes no address for {spec.name!r} of {self.path}.")

    def _upload(self, inputs: Mapping[str, Array]) -> None:
        with torch.cuda.stream(self._stream):
            for spec in self.inputs:
                array = np.ascontiguousarray(inputs[spec.name])
                self._tensors[spec.name].copy_(torch.tensor(array))
            self._stream.synchronize()

    def _enqueue(self) -> None:
        if self._graph is not None:
            self._graph.replay()
        else:
            self._execute(self._context)

    def _execute(self, context: Any) -> None:  # noqa: ANN401
        if not context.execute_async_v3(self._stream.cuda_stream):
            raise _RunFailedError

    @contextmanager
    def _running(self) -> Iterator[BuildLog]:
        """The runner's stream is the current one; what TensorRT says of a failure is told."""
        loaded = require_open(self._loaded, self.path)
        with build_log(loaded.trt.module) as log, torch.cuda.stream(self._stream):
            try:
                yield log
            except _RunFailedError:
                raise DeviceError(
                    f"TensorRT can't run {self.path}: {log.errors() or 'it gives no reason'}."
                ) from None

    def _captured_graph(self, loaded: Engine) -> torch.cuda.CUDAGraph | None:
        """One run as a graph; None where it can't be captured, which is no error.

        Raises:
            DeviceError: the GPU can't be used any more after the attempt.
        """
        graph = torch.cuda.CUDAGraph()
        self._not_captured = None
        with build_log(loaded.trt.module) as log:
            try:
                # Where a capture fails, torch leaves its stream the current one: the outer context
                # puts the one before it back. Other threads may use the GPU meanwhile.
                with (
                    torch.cuda.stream(self._stream),
                    torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"),
                ):
                    self._execute(self._context)
            except (RuntimeError, _RunFailedError) as error:
                said = log.errors() or _first_line(error) or "TensorRT gives no reason"
                self._not_captured = said
            else:
                return graph
        # A stream whose capture failed may not be used again.
        self._stream = torch.cuda.Stream(self._device)
        try:
            torch.cuda.synchronize(self._device)
        except RuntimeError as error:
            raise DeviceError(
                f"The GPU failed when {self.path} was captured as a CUDA graph: "
                f"{_first_line(error)}."
            ) from None
        return None

    @contextmanager
    def _memory_counted(self) -> Iterator[None]:
        before, _ = torch.cuda.mem_get_info(self._device)
        yield
        after, _ = torch.cuda.mem_get_info(self._device)
        self._memory_bytes += max(before - after, 0)


def _new_event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "").rstrip(".")
