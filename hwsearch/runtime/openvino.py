"""Runs ONNX files with OpenVINO on the CPU, tuned for latency."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from hwsearch.errors import DeviceError, UsageError
from hwsearch.records import Precision
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

_PRECISION_HINTS: dict[Precision, str] = {"fp32": "f32", "bf16": "bf16"}


class OpenVinoRunner:
    """An ONNX file compiled by OpenVINO for the CPU.

    Args:
        path: the ONNX file, in fp32.
        threads: inference threads.
        precision: `fp32` or `bf16`; what OpenVINO computes in. Inputs and outputs stay as they are.

    Raises:
        DeviceError: OpenVINO is not installed, the CPU lacks the precision, there is no such file,
            or OpenVINO can't load it.
        UsageError: a precision that OpenVINO is not asked for here.
    """

    def __init__(self, path: Path, *, threads: int, precision: Precision = "fp32") -> None:
        if precision not in _PRECISION_HINTS:
            raise UsageError(
                f"OpenVINO does not run {precision} here: take one of {sorted(_PRECISION_HINTS)}."
            )
        require_file(path)
        self._path = path
        openvino = import_openvino()
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(threads),
            "INFERENCE_PRECISION_HINT": _PRECISION_HINTS[precision],
            "CPU_DENORMALS_OPTIMIZATION": "YES",
        }
        core = openvino.Core()
        if precision == "bf16" and "BF16" not in cpu_capabilities():
            raise DeviceError("This CPU has no bf16 instructions: take --precision fp32.")
        try:
            with denormals_flushed():  # OpenVINO would leave the caller's thread flushing
                model = core.compile_model(core.read_model(str(path)), "CPU", settings)
        except RuntimeError as error:
            raise load_error("OpenVINO", path, error) from None
        self._request: Any | None = model.create_infer_request()
        self.inputs = tuple(_spec(port) for port in model.inputs)
        self.outputs = tuple(_spec(port) for port in model.outputs)

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model once; see `Runner.infer`."""
        request = require_open(self._request, self._path)
        check_inputs(self.inputs, inputs)
        with denormals_flushed():
            results = request.infer(dict(inputs), share_inputs=True)
        return {spec.name: np.array(results[i]) for i, spec in enumerate(self.outputs)}

    def time(self, inputs: Mapping[str, Array], n: int) -> Seconds:
        """Time `n` runs; see `Runner.time`. Neither inputs nor outputs are copied."""
        request = require_open(self._request, self._path)
        check_inputs(self.inputs, inputs)
        openvino = import_openvino()
        arrays = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        for name, array in arrays.items():
            request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
        with denormals_flushed():
            return time_calls(lambda: request.infer(share_outputs=True), n)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._request = None


def import_openvino() -> Any:  # noqa: ANN401 - OpenVINO ships no complete types
    """The OpenVINO module.

    Raises:
        DeviceError: it is not installed.
    """
    try:
        import openvino
    except ImportError:
        raise DeviceError(
            'OpenVINO is not installed: pip install "hwsearch[openvino]", or take --runtime '
            "onnxruntime."
        ) from None
    return openvino


def cpu_capabilities() -> frozenset[str]:
    """What OpenVINO says this CPU computes in, such as `FP32`, `BF16` and `INT8`.

    Raises:
        DeviceError: OpenVINO is not installed.
    """
    core = import_openvino().Core()
    return frozenset(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def _spec(port: Any) -> TensorSpec:  # noqa: ANN401 - OpenVINO ships no complete types
    shape = tuple(None if size.is_dynamic else size.get_length() for size in port.partial_shape)
    dtype = np.dtype(port.element_type.to_dtype()).name
    return TensorSpec(name=port.any_name, shape=shape, dtype=dtype)
