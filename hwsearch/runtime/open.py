"""Opens a model file with the runtime that a target names."""

from __future__ import annotations

from pathlib import Path

from hwsearch.records import Target
from hwsearch.runtime.runner import Runner


def open_runner(target: Target, path: Path) -> Runner:
    """Open on `target` what `runtime.model_files` wrote for it.

    Raises:
        DeviceError: the runtime is not installed, or can't load this file.
        ExportError: TensorRT can't build an engine from it.
    """
    if target.runtime == "onnxruntime":
        from hwsearch.runtime.onnxruntime import OnnxRuntimeRunner

        return OnnxRuntimeRunner(path, threads=target.threads)
    if target.runtime == "openvino":
        from hwsearch.runtime.openvino import OpenVinoRunner

        return OpenVinoRunner(path, threads=target.threads, precision=target.precision)
    if target.runtime == "torch":
        from hwsearch.runtime.torch_program import open_program

        return open_program(path, threads=target.threads)
    from hwsearch.runtime.tensorrt_open import open_on_gpu

    return open_on_gpu(target, path)
