"""Tries the engines of one subnet on a GPU, in one precision: are they right, and how fast?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from segment_anything.modeling import Sam

from hwsearch.errors import DeviceError, HwsearchError
from hwsearch.export.compare import (
    Outputs,
    compare,
    draw_prompts,
    embed,
    faults,
    prompt_inputs,
)
from hwsearch.export.parity import drawn_images, preprocessing_of
from hwsearch.export.pixels import Floats, preprocess
from hwsearch.export.precision import LOW_PRECISION_LIMITS
from hwsearch.records import Target
from hwsearch.runtime.cuda_timing import TimingSummary, summarise_runs
from hwsearch.runtime.hardware import physical_cores
from hwsearch.runtime.model_files import export_decoder_for, export_encoder_for
from hwsearch.runtime.onnx_export import export_decoder, export_encoder
from hwsearch.runtime.onnxruntime import OnnxRuntimeRunner
from hwsearch.runtime.runner import Array, Runner
from hwsearch.runtime.tensorrt_runner import TensorRtRunner
from hwsearch.runtime.trtexec import find_trtexec, run_trtexec

# For fp32 as well: TensorRT multiplies float32 in TF32, whose mantissa is that of fp16.
_LIMITS = LOW_PRECISION_LIMITS
_LAYERS_SHOWN = 5
_LAYER_RUNS = 10
_AGREES = 0.1  # with trtexec, as a share of its median


@dataclass(frozen=True)
class Finding:
    """One section of the page; `passed` is None where nothing could fail."""

    title: str
    passed: bool | None
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Expectation:
    """A 1×3×R×R frame, K×4 boxes, K×1×2 points, and what a model in fp32 makes of them."""

    frame: Floats
    boxes: Floats
    points: Floats
    outputs: Outputs
    threshold: float


def expect(sam: Sam, folder: Path) -> Expectation:
    """What ONNX Runtime gives on the CPU, in fp32; the files are written into `folder`.

    Raises:
        ExportError: the model can't be written as ONNX.
    """
    how = preprocessing_of(sam)
    frame = preprocess(drawn_images(1)[0], how)
    boxes, points = draw_prompts(np.random.default_rng(0), how.resolution)
    threads = physical_cores()
    with (
        OnnxRuntimeRunner(export_encoder(sam, folder / "encoder.onnx"), threads=threads) as encoder,
        OnnxRuntimeRunner(export_decoder(sam, folder / "decoder.onnx"), threads=threads) as decoder,
    ):
        outputs = _decoded(decoder, embed(encoder, frame), boxes, points)
    return Expectation(frame, boxes, points, outputs, how.mask_threshold)


def try_engines(
    sam: Sam, target: Target, folder: Path, expectation: Expectation
) -> Iterator[Finding]:
    """Build, run, check and time the engines of a target's precision; whatever fails is told.

    Args:
        sam: the subnet.
        target: the GPU, its runtime and the precision.
        folder: gets the files.
        expectation: of the same subnet.
    """
    yield from _told(target.precision, _try_engines(sam, target, folder, expectation))


def _try_engines(
    sam: Sam, target: Target, folder: Path, expectation: Expectation
) -> Iterator[Finding]:
    from hwsearch.runtime.tensorrt_open import open_on_gpu

    precision = target.precision
    encoder_file = export_encoder_for(target, sam, folder / f"encoder-{precision}.onnx")
    decoder_file = export_decoder_for(target, sam, folder / f"decoder-{precision}.onnx")
    start = time.perf_counter()
    with open_on_gpu(target, encoder_file) as encoder, open_on_gpu(target, decoder_file) as decoder:
        built_s = time.perf_counter() - start
        embeddings = embed(encoder, expectation.frame)
        boxes, points = expectation.boxes, expectation.points
        got = _decoded(decoder, embeddings, boxes, points)
        passed, how_near = _judged(expectation, got)
        memory = encoder.device_memory_bytes + decoder.device_memory_bytes
        yield Finding(
            f"{precision}: result",
            passed,
            (
                f"built and loaded in {built_s:.1f} s, {memory / 2**20:.0f} MiB of GPU memory",
                f"against ONNX Runtime on the CPU in fp32: {how_near}",
            ),
        )
        image: dict[str, Array] = {"image": expectation.frame}
        prompt = _prompts(embeddings, boxes, points)[0]
        for part, runner, inputs in (("encoder", encoder, image), ("decoder", decoder, prompt)):
            title = f"{precision} {part}"
            yield from _told(title, _timed(title, target, runner, inputs))


def _told(title: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """The findings, and an error as the last of them, so that the page goes on."""
    try:
        yield from findings
    except HwsearchError as error:
        yield Finding(title, False, (str(error),))
    except Exception as error:  # noqa: BLE001 - whatever it is, it belongs on the page
        yield Finding(title, False, (f"{type(error).__name__}: {' '.join(str(error).split())}",))


def _judged(expectation: Expectation, got: Outputs) -> tuple[bool, str]:
    if not got.finite:
        return False, "it gives infinite or undefined numbers"
    parity = compare([(expectation.outputs, got)], threshold=expectation.threshold)
    figures = (
        f"cosine at worst {parity.embedding_cosine_min:.6f}, mask IoU {parity.mask_iou_mean:.4f} "
        f"(at worst {parity.mask_iou_min:.4f}), predicted IoUs within "
        f"{parity.iou_prediction_max_error:.4f}"
    )
    found = faults(parity, _LIMITS)
    return not found, "; ".join([figures, *found])


def _prompts(embeddings: Floats, boxes: Floats, points: Floats) -> list[dict[str, Array]]:
    """A decoder's inputs for each box and each point alone.

    Engines that are built to be timed take one prompt of two points; a box and a point together
    have three.
    """
    return [
        {
            "image_embeddings": inputs["image_embeddings"],
            "point_coords": inputs["point_coords"][row : row + 1],
            "point_labels": inputs["point_labels"][row : row + 1],
        }
        for inputs in prompt_inputs(embeddings, boxes, points)[:2]
        for row in range(len(boxes))
    ]


def _decoded(decoder: Runner, embeddings: Floats, boxes: Floats, points: Floats) -> Outputs:
    results = [decoder.infer(inputs) for inputs in _prompts(embeddings, boxes, points)]
    return Outputs(
        embeddings=embeddings,
        logits=np.concatenate([result["low_res_masks"] for result in results]).astype(np.float32),
        ious=np.concatenate([result["iou_predictions"] for result in results]).astype(np.float32),
    )


def _timed(
    title: str, target: Target, runner: TensorRtRunner, inputs: dict[str, Array]
) -> Iterator[Finding]:
    timing = summarise_runs(runner.time_alone(inputs))
    way = "a CUDA graph"
    if not runner.captured:
        way = f"enqueued each time, since no CUDA graph was captured ({runner.not_captured})"
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
        yield _second_opinion(program, title, target, runner=runner, inputs=inputs, timing=timing)


def _second_opinion(
    program: str,
    title: str,
    target: Target,
    *,
    runner: TensorRtRunner,
    inputs: dict[str, Array],
    timing: TimingSummary,
) -> Finding:
    title = f"{title}: trtexec"
    shapes = {spec.name: inputs[spec.name].shape for spec in runner.inputs if None in spec.shape}
    try:
        theirs = run_trtexec(program, runner.path, shapes=shapes, graph=runner.captured)
    except DeviceError as error:  # such as a program of another version: no fault of this GPU
        return Finding(title, None, (str(error),))
    said = f"median {theirs.median_ms:.3f} ms (version {theirs.version or 'unknown'})"
    command = " ".join(theirs.command)
    if not theirs.is_of(target.runtime_version) or not theirs.median_ms:
        why = f"nothing to hold against {target.runtime} {target.runtime_version}"
        return Finding(title, None, (f"{said}; {why}", command))
    apart = timing.median_ms / theirs.median_ms - 1
    return Finding(title, abs(apart) <= _AGREES, (f"{said}; ours is {apart:+.1%}", command))
