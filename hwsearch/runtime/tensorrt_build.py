"""One build, from an ONNX file to the bytes of an engine; `tensorrt` makes a file of it."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from hwsearch.errors import DeviceError, ExportError
from hwsearch.runtime.tensorrt_cache import load_timing_cache
from hwsearch.runtime.tensorrt_info import ShapeRange, check_profiles
from hwsearch.runtime.tensorrt_log import BuildLog


@dataclass(frozen=True)
class BuildOrder:
    """What one build is to do; `device` is the GPU's number, None on a machine without one."""

    onnx_path: Path
    profiles: Mapping[str, ShapeRange]
    gpu_archs: tuple[str, ...]
    workspace_bytes: int | None
    timing_cache: Path | None
    device: int | None


def build_plan(
    trt: Any,  # noqa: ANN401 - a module that is chosen at run time
    order: BuildOrder,
    *,
    log: BuildLog,
    monitor: Any,  # noqa: ANN401
    stop: threading.Event,
    warn: Callable[[str], None],
) -> bytes:
    """Parse, configure and build: the bytes of an engine.

    Each thread has a current GPU of its own, so this has to be called in the one that builds.
    `warn` is told what went wrong without harm to the engine.

    Raises:
        UsageError, ExportError, DeviceError: as `tensorrt.build_engine`.
    """
    if order.device is not None:
        use_gpu(order.device)
    builder = new_builder(trt, log)
    # The parser holds weights that the network uses, so it has to live as long.
    network, parser = parsed(trt, builder, order.onnx_path, log)
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    check_profiles({tensor.name: tuple(tensor.shape) for tensor in tensors}, order.profiles)
    config = builder.create_builder_config()
    config.progress_monitor = monitor
    if order.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, order.workspace_bytes)
    if order.gpu_archs:
        config.num_compute_capabilities = len(order.gpu_archs)
        for index, arch in enumerate(order.gpu_archs):
            config.set_compute_capability(getattr(trt.ComputeCapability, arch), index)
    if order.profiles:
        profile = builder.create_optimization_profile()
        for name, shapes in order.profiles.items():
            profile.set_shape(name, shapes.min, shapes.opt, shapes.max)
        config.add_optimization_profile(profile)
    keep_timings = load_timing_cache(config, order.timing_cache) if order.timing_cache else None
    log.clear()  # what an unusable cache made it say is no reason for a failure
    plan = builder.build_serialized_network(network, config)
    del parser
    if stop.is_set():
        raise ExportError(f"The build of {order.onnx_path.name} was stopped; nothing was written.")
    if plan is None:
        reason = log.everything() or "it gives no reason"
        raise ExportError(
            f"TensorRT can't build {order.onnx_path}{_culprit(order.onnx_path, reason)}: {reason}."
        )
    if keep_timings:
        try:
            keep_timings()
        except ExportError as error:  # the engine is no worse for it
            warn(f"Warning: {error}")
    return bytes(plan)


def use_gpu(index: int) -> None:
    """Make a GPU the current one of the calling thread, which is the one that TensorRT takes.

    Raises:
        DeviceError: it can't be used; the message says why.
    """
    import torch

    try:
        torch.cuda.set_device(index)
    except (RuntimeError, AssertionError) as error:  # the latter where torch has no CUDA
        reason = str(error).splitlines()[0].split(". ")[0].rstrip(".")
        raise DeviceError(f"cuda:{index} can't be used: {reason}.") from None


def new_builder(trt: Any, log: BuildLog) -> Any:  # noqa: ANN401
    """An IBuilder.

    Raises:
        DeviceError: TensorRT finds no GPU where it needs one.
    """
    try:
        return trt.Builder(log.logger)
    except TypeError:  # the bindings' way to say that the factory gave no object
        raise DeviceError(
            f"TensorRT can't build here: {log.errors() or 'it finds no usable NVIDIA GPU'}."
        ) from None


def parsed(trt: Any, builder: Any, path: Path, log: BuildLog) -> tuple[Any, Any]:  # noqa: ANN401
    """The network of an ONNX file, and the parser that made it.

    Raises:
        ExportError: the parser refuses it; the message names the nodes.
    """
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log.logger)
    if not parser.parse_from_file(str(path)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        reasons = "; ".join(_spell_error(error) for error in errors) or log.errors()
        raise ExportError(f"TensorRT can't parse {path}: {reasons or 'it gives no reason'}.")
    return network, parser


def _spell_error(error: Any) -> str:  # noqa: ANN401
    reason = " ".join(error.desc().split()).rstrip(".")
    if not error.node_name():
        return reason
    return f"node '{error.node_name()}' ({error.node_operator()}, {error.code().name}): {reason}"


def _culprit(path: Path, reason: str) -> str:
    """The ONNX node that a builder's messages speak of; its layers carry the names of nodes."""
    nodes = onnx.load(path, load_external_data=False).graph.node
    found = []
    for node in nodes:
        # a layer may have a longer name than its node, such as `/0/ConvTranspose_before_bias`
        match = re.search(rf"(?<![\w/.]){re.escape(node.name)}", reason) if node.name else None
        if match:
            found.append((match.start(), -len(node.name), node))
    if not found:
        return ""
    node = min(found, key=lambda entry: entry[:2])[2]
    return f" at node '{node.name}' ({node.op_type})"
