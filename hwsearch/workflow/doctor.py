"""Tries on a GPU all that hwsearch does there, and tells what came out, for a page to paste.

A small subnet of the shipped supernet is exported, built, run, held against ONNX Runtime on the
CPU, and timed.
"""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hwsearch.errors import DeviceError, HwsearchError, UsageError
from hwsearch.export.parity import drawn_images, preprocessing_of
from hwsearch.export.pixels import preprocess
from hwsearch.records import Target
from hwsearch.runtime.cuda_timing import summarise_runs
from hwsearch.runtime.devices import resolve_target
from hwsearch.runtime.gpus import find_gpu, gpu_state
from hwsearch.runtime.hardware import cpu_name, physical_cores
from hwsearch.runtime.onnx_export import export_decoder, export_encoder
from hwsearch.runtime.onnxruntime import OnnxRuntimeRunner
from hwsearch.runtime.runner import Array
from hwsearch.runtime.tensorrt import Flavour, load_tensorrt
from hwsearch.runtime.trtexec import find_trtexec, run_trtexec
from hwsearch.supernet.supernet import Supernet
from hwsearch.workflow.scratch import scratch_folder

_FLAVOURS: tuple[Flavour, ...] = ("tensorrt", "tensorrt-rtx")
_PACKAGES = (
    *("hwsearch", "torch", "onnx", "onnxruntime", "nvidia-ml-py", "tensorrt"),
    *("tensorrt-cu12-bindings", "tensorrt-cu13-bindings", "tensorrt-rtx-cu12-bindings"),
)
_COSINE = 0.999
_MASK_IOU = 0.99
_LAYERS_SHOWN = 5
_LAYER_RUNS = 10
_AGREES = 0.1  # with trtexec, as a share of its median


@dataclass(frozen=True)
class Finding:
    """One section of the page; `passed` is None where nothing could fail."""

    title: str
    passed: bool | None
    lines: tuple[str, ...]


def examine_device(
    supernet: Supernet, *, device: str = "cuda", runtime: str | None = None
) -> Iterator[Finding]:
    """Try a GPU, and give each finding when it is there; the last is the verdict.

    Args:
        supernet: whose smallest subnet is tried.
        device: `cuda` or `cuda:N`.
        runtime: `tensorrt` or `tensorrt-rtx`; without it, what is installed.

    Raises:
        UsageError: the device is no GPU, or there is no such runtime.
    """
    if not device.startswith("cuda"):
        raise UsageError(f"The doctor examines GPUs, not {device!r}: take cuda or cuda:N.")
    findings: list[Finding] = []
    for finding in _examine(supernet, device, runtime):
        findings.append(finding)
        yield finding
    failed = [finding.title for finding in findings if finding.passed is False]
    if failed:
        yield Finding("Verdict", False, (f"{device} can't be relied on: see {', '.join(failed)}.",))
    else:
        yield Finding("Verdict", True, (f"{device} works as far as this was tried.",))


def _examine(supernet: Supernet, device: str, runtime: str | None) -> Iterator[Finding]:
    yield _software()
    yield _gpu(device)
    for flavour in _FLAVOURS:
        yield _tensorrt(flavour)
    try:
        target = resolve_target(device=device, runtime=runtime)
    except DeviceError as error:
        yield Finding("Device", False, (str(error), f"Nothing was built or run on {device}."))
        return
    yield Finding("Device", True, (f"Takes {target.runtime} {target.runtime_version}.",))
    with scratch_folder() as folder:
        sam = supernet.extract(supernet.space.smallest)
        encoder = export_encoder(sam, folder / "encoder.onnx")
        decoder = export_decoder(sam, folder / "decoder.onnx")
        how = preprocessing_of(sam)
        image: dict[str, Array] = {"image": preprocess(drawn_images(1)[0], how)}
        with OnnxRuntimeRunner(encoder, threads=physical_cores()) as reference:
            embeddings = reference.infer(image)["image_embeddings"]
        side = how.resolution
        prompt: dict[str, Array] = {
            "image_embeddings": embeddings,
            "point_coords": np.array([[[0.2, 0.2], [0.8, 0.7]]], np.float32) * side,
            "point_labels": np.array([[2, 3]], np.float32),
        }
        yield from _part("Encoder", target, encoder, image, _same_embeddings)
        yield from _part("Decoder", target, decoder, prompt, _same_masks(how.mask_threshold))
    yield _state(device)


def _software() -> Finding:
    versions = []
    for package in _PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return Finding(
        "Software",
        None,
        (
            f"{platform.platform()}, Python {platform.python_version()}",
            f"{cpu_name()}, {physical_cores()} cores",
            ", ".join(versions),
        ),
    )


def _gpu(device: str) -> Finding:
    try:
        gpu = find_gpu(device)
    except DeviceError as error:
        return Finding("GPU", False, (str(error),))
    return Finding(
        "GPU",
        True,
        (
            f"{gpu.name}, compute capability {gpu.compute_capability}, "
            f"{gpu.memory_bytes / 2**30:.1f} GiB; torch is built for CUDA {gpu.cuda}",
        ),
    )


def _tensorrt(flavour: Flavour) -> Finding:
    program = find_trtexec(flavour)
    beside = f"; {program} is here to compare with" if program else ""
    try:
        trt = load_tensorrt(prefer=flavour)
    except DeviceError as error:
        return Finding(flavour, None, (str(error) + beside,))
    return Finding(flavour, None, (f"version {trt.version}{beside}",))


def _state(device: str) -> Finding:
    state = gpu_state(device)
    if state is None:
        return Finding("Clocks", None, ("Not known: pip install nvidia-ml-py.",))
    held = ", ".join(state.throttled_by) or "nothing"
    return Finding(
        "Clocks",
        None,
        (
            f"driver {state.driver}, {state.sm_clock_mhz} of {state.max_sm_clock_mhz} MHz, memory "
            f"{state.memory_clock_mhz} MHz, {state.temperature_c} °C; held down by {held}",
        ),
    )


Outputs = Mapping[str, Array]
Compare = Callable[[Outputs, Outputs], tuple[bool, str]]


def _part(
    title: str, target: Target, path: Path, inputs: dict[str, Array], compare: Compare
) -> Iterator[Finding]:
    try:
        yield from _run_part(title, target, path, inputs, compare)
    except HwsearchError as error:
        yield Finding(title, False, (str(error),))
    except RuntimeError as error:  # torch's and CUDA's
        yield Finding(title, False, (f"{type(error).__name__}: {' '.join(str(error).split())}",))


def _run_part(
    title: str, target: Target, path: Path, inputs: dict[str, Array], compare: Compare
) -> Iterator[Finding]:
    from hwsearch.runtime.tensorrt_open import open_on_gpu

    start = time.perf_counter()
    with open_on_gpu(target, path) as runner:
        built_s = time.perf_counter() - start
        got = runner.infer(inputs)
        with OnnxRuntimeRunner(path, threads=physical_cores()) as reference:
            same, how_near = compare(reference.infer(inputs), got)
        yield Finding(
            f"{title}: result",
            same,
            (
                f"built and loaded in {built_s:.1f} s, "
                f"{runner.device_memory_bytes / 2**20:.0f} MiB of GPU memory",
                f"against ONNX Runtime on the CPU: {how_near}",
            ),
        )
        timing = summarise_runs(runner.time_alone(inputs))
        way = "a CUDA graph" if runner.captured else "enqueued each time, no CUDA graph"
        yield Finding(
            f"{title}: time",
            None,
            (
                f"median {timing.median_ms:.3f} ms, p95 {timing.p95_ms:.3f}, "
                f"p99 {timing.p99_ms:.3f}, {timing.min_ms:.3f} to {timing.max_ms:.3f} over "
                f"{timing.runs} runs; {way}",
                *timing.warnings,
            ),
        )
        layers = runner.profile_layers(inputs, _LAYER_RUNS)
        slowest = sorted(layers, key=lambda layer: -layer.mean_ms)[:_LAYERS_SHOWN]
        yield Finding(
            f"{title}: layers",
            None,
            (
                f"{len(layers)} layers; the slowest:",
                *(f"{layer.mean_ms:.3f} ms {layer.name[:100]}" for layer in slowest),
            ),
        )
        program = find_trtexec("tensorrt-rtx" if target.runtime == "tensorrt-rtx" else "tensorrt")
        if program:
            shapes = {
                spec.name: inputs[spec.name].shape for spec in runner.inputs if None in spec.shape
            }
            theirs = run_trtexec(program, runner.path, shapes=shapes, graph=runner.captured)
            apart = timing.median_ms / theirs.median_ms - 1
            yield Finding(
                f"{title}: trtexec",
                abs(apart) <= _AGREES,
                (
                    f"median {theirs.median_ms:.3f} ms (version {theirs.version or 'unknown'}); "
                    f"ours is {apart:+.1%}",
                    " ".join(theirs.command),
                ),
            )


def _same_embeddings(want: Outputs, got: Outputs) -> tuple[bool, str]:
    a, b = (outputs["image_embeddings"].astype(np.float64).ravel() for outputs in (want, got))
    cosine = float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12))
    return cosine >= _COSINE, f"cosine {cosine:.6f} (at least {_COSINE})"


def _same_masks(threshold: float) -> Compare:
    return functools.partial(_compare_masks, threshold)


def _compare_masks(threshold: float, want: Outputs, got: Outputs) -> tuple[bool, str]:
    logits = [outputs["low_res_masks"].astype(np.float64) for outputs in (want, got)]
    a, b = (values > threshold for values in logits)
    union = (a | b).sum(axis=(-2, -1))
    ious = np.where(union > 0, (a & b).sum(axis=(-2, -1)) / np.maximum(union, 1), 1.0)
    finite = bool(np.isfinite(logits[1]).all())
    worst = float(ious.min())
    return finite and worst >= _MASK_IOU, f"mask IoU at worst {worst:.4f} (at least {_MASK_IOU})"
