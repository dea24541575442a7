"""Runs ONNX files with ONNX Runtime on the CPU, set up for steady single-stream latency."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import onnxruntime as ort

from hwsearch.runtime.denormals import denormals_flushed
from hwsearch.runtime.runner import (
    Array,
    Seconds,
    TensorSpec,
    check_inputs,
    load_error,
    require_file,
    require_open,
    time_calls,
)

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}
_ONLY_FATAL_MESSAGES = 4

ort.disable_telemetry_events()  # its wheels can report events to the maker; timing needs quiet


class OnnxRuntimeRunner:
    """An ONNX file opened with ONNX Runtime's CPU provider.

    The precision is that of the file; nothing is converted here.

    Args:
        path: the ONNX file.
        threads: threads inside one operator, the calling thread among them.

    Raises:
        DeviceError: there is no such file, or ONNX Runtime can't load it.
    """

    def __init__(self, path: Path, *, threads: int) -> None:
        require_file(path)
        self._path = path
        try:
            with denormals_flushed():
                session = ort.InferenceSession(
                    str(path), _session_options(threads), providers=["CPUExecutionProvider"]
                )
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors share no other base
            raise load_error("ONNX Runtime", path, error) from None
        self._session: Any | None = session
        self.inputs = tuple(_spec(node) for node in session.get_inputs())
        self.outputs = tuple(_spec(node) for node in session.get_outputs())

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model once; see `Runner.infer`."""
        session = require_open(self._session, self._path)
        check_inputs(self.inputs, inputs)
        names = [spec.name for spec in self.outputs]
        with denormals_flushed():
            return dict(zip(names, session.run(names, dict(inputs)), strict=True))

    def time(self, inputs: Mapping[str, Array], n: int) -> Seconds:
        """Time `n` runs; see `Runner.time`.

        Inputs and outputs are bound once, which takes a few µs of Python off each run.
        """
        session = require_open(self._session, self._path)
        check_inputs(self.inputs, inputs)
        binding = session.io_binding()
        arrays = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        for name, array in arrays.items():
            binding.bind_cpu_input(name, array)
        for spec in self.outputs:
            binding.bind_output(spec.name)
        with denormals_flushed():
            return time_calls(lambda: session.run_with_iobinding(binding), n)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._session = None


def _session_options(threads: int) -> Any:  # noqa: ANN401 - ONNX Runtime ships no types
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _ONLY_FATAL_MESSAGES
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    # Threads spin between the operators of a run, but not after it: where several sessions are
    # open, the idle ones' spinning threads slow the next one down, up to twofold.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _spec(node: Any) -> TensorSpec:  # noqa: ANN401 - ONNX Runtime ships no types
    shape = tuple(size if isinstance(size, int) else None for size in node.shape)
    return TensorSpec(name=node.name, shape=shape, dtype=_DTYPES.get(node.type, node.type))
