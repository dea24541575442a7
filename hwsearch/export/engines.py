"""The two engines of a bundle, with the shapes that a predictor needs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from hwsearch.errors import UsageError
from hwsearch.export.manifest import (
    DECODER_ENGINE_FILE,
    DECODER_FILE,
    ENCODER_ENGINE_FILE,
    ENCODER_FILE,
    PrecisionPlan,
)
from hwsearch.progress import Progress
from hwsearch.runtime.tensorrt import TensorRT, build_engine, check_archs, load_tensorrt
from hwsearch.runtime.tensorrt_info import EngineInfo


@dataclass(frozen=True)
class EngineOptions:
    """What a bundle's engines are built for.

    Args:
        trt: which TensorRT; None for the one that is installed.
        gpu_archs: compute capabilities (`SM89`), TensorRT-RTX only; empty for this machine's GPU.
        max_batch: images an encoder run.
        max_prompts: prompts a decoder run.
        max_points: points a prompt, a box being two of them and a lone point also two.
        workspace_bytes: the most scratch memory that a layer may use.
        timing_cache: a file that builds share; see `build_engine`.
    """

    trt: TensorRT | None = None
    gpu_archs: tuple[str, ...] = ()
    max_batch: int = 1
    max_prompts: int = 64
    max_points: int = 8
    workspace_bytes: int | None = None
    timing_cache: Path | None = None


def ready(options: EngineOptions) -> EngineOptions:
    """The options with TensorRT at hand, so that what can't be fails before the work begins.

    Raises:
        UsageError: shapes or architectures that no engine can have.
        DeviceError: TensorRT is not installed, or for other GPUs TensorRT-RTX is not.
    """
    prompts, points = options.max_prompts, options.max_points
    if options.max_batch < 1 or prompts < 1 or points < 2:
        raise UsageError(
            f"Engines for {options.max_batch} images, {prompts} prompts and {points} points can't "
            "be built: take at least 1 image, 1 prompt and 2 points, which are what a box needs."
        )
    trt = options.trt or load_tensorrt(prefer="tensorrt-rtx" if options.gpu_archs else None)
    check_archs(trt, options.gpu_archs)
    return replace(options, trt=trt)


def build_engines(
    folder: Path,
    *,
    resolution: int,
    options: EngineOptions,
    precision: PrecisionPlan | None = None,
    progress: Progress | None = None,
) -> tuple[EngineInfo, ...]:
    """Build `encoder.engine` and `decoder.engine` beside the ONNX files in `folder`.

    Args:
        folder: holds the ONNX files.
        resolution: pixels a side of the encoder's input.
        options: what to build for.
        precision: which ONNX files to build from; None for the fp32 ones.
        progress: is told of the builder's phases.

    Raises:
        UsageError, ExportError, DeviceError: as `build_engine`.
    """
    options = ready(options)
    trt, prompts, points = options.trt, options.max_prompts, options.max_points
    frame = (3, resolution, resolution)
    encoder = build_engine(
        folder / (precision.encoder.file if precision else ENCODER_FILE),
        folder / ENCODER_ENGINE_FILE,
        profiles={"image": ((1, *frame), (1, *frame), (options.max_batch, *frame))},
        trt=trt,
        gpu_archs=options.gpu_archs,
        workspace_bytes=options.workspace_bytes,
        timing_cache=options.timing_cache,
        progress=progress,
    )
    decoder = build_engine(
        folder / (precision.decoder.file if precision else DECODER_FILE),
        folder / DECODER_ENGINE_FILE,
        profiles={
            "point_coords": ((1, 1, 2), (1, 2, 2), (prompts, points, 2)),
            "point_labels": ((1, 1), (1, 2), (prompts, points)),
        },
        trt=trt,
        gpu_archs=options.gpu_archs,
        workspace_bytes=options.workspace_bytes,
        timing_cache=options.timing_cache,
        progress=progress,
    )
    return encoder, decoder
