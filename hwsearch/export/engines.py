"""The two engines of a bundle, with the shapes that a predictor needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hwsearch.errors import DeviceError, ExportError, UsageError
from hwsearch.export.manifest import (
    DECODER_ENGINE_FILE,
    DECODER_FILE,
    ENCODER_ENGINE_FILE,
    ENCODER_FILE,
    PrecisionPlan,
)
from hwsearch.progress import Progress
from hwsearch.records import Target
from hwsearch.runtime.gpus import Gpu, find_gpu, gpu_index
from hwsearch.runtime.tensorrt import (
    TensorRT,
    build_engine,
    check_archs,
    load_tensorrt,
    parse_fault,
)
from hwsearch.runtime.tensorrt_cache import timing_cache_name
from hwsearch.runtime.tensorrt_info import EngineInfo, Flavour, build_machine, current_gpu

_AMPERE = 8.0  # where the set that TensorRT-RTX builds for by default begins


@dataclass(frozen=True)
class EngineOptions:
    """What a bundle's engines are built for.

    Args:
        trt: which TensorRT; None for the one that is installed.
        device: N of the `cuda:N` to build on; None for the current one.
        gpu_archs: compute capabilities (`SM89`), TensorRT-RTX only. Empty: this machine's GPU, or
            of TensorRT-RTX its own set, of Ampere and later.
        batch: images an encoder run that it is made fastest for.
        max_batch: images an encoder run.
        max_prompts: prompts a decoder run.
        max_points: points a prompt, a box being two of them and a lone point also two.
        workspace_bytes: the most scratch memory that a layer may use.
        timing_cache: a file that builds share; see `build_engine`.
        timing_folder: where builds share one that is named after GPU and TensorRT, if there is no
            `timing_cache`.
    """

    trt: TensorRT | None = None
    device: int | None = None
    gpu_archs: tuple[str, ...] = ()
    batch: int = 1
    max_batch: int = 1
    max_prompts: int = 64
    max_points: int = 8
    workspace_bytes: int | None = None
    timing_cache: Path | None = None
    timing_folder: Path | None = None


def for_target(options: EngineOptions, target: Target) -> EngineOptions:
    """The options of engines whose latency on a GPU target can be measured.

    Args:
        options: what was asked for.
        target: the GPU, TensorRT and batch that they are timed with.

    Raises:
        UsageError: the engines are asked for other GPUs than the target.
        DeviceError: the target's GPU or its TensorRT is not here.
    """
    gpu = find_gpu(target.device)
    if options.gpu_archs and arch_of(gpu) not in options.gpu_archs:
        raise UsageError(
            f"Engines for {', '.join(options.gpu_archs)} can't be timed on {gpu.name}, which is "
            f"{arch_of(gpu)}: add --gpu-arch {arch_of(gpu).lower()}."
        )
    flavour: Flavour = "tensorrt-rtx" if target.runtime == "tensorrt-rtx" else "tensorrt"
    trt = options.trt if options.trt and options.trt.flavour == flavour else None
    return replace(
        options,
        trt=trt or load_tensorrt(prefer=flavour),
        device=gpu_index(target.device),
        batch=target.batch,
        max_batch=max(options.max_batch, target.batch),
    )


def arch_of(gpu: Gpu) -> str:
    """A GPU's compute capability as TensorRT-RTX spells it: `SM89`."""
    return f"SM{gpu.compute_capability.replace('.', '')}"


def runs_on(options: EngineOptions, gpu: Gpu) -> bool:
    """Whether a GPU of this machine can load the engines that these options give."""
    if options.trt is None or options.trt.flavour == "tensorrt":
        return True
    if options.gpu_archs:
        return arch_of(gpu) in options.gpu_archs
    known = options.trt.module.ComputeCapability.__members__
    return arch_of(gpu) in known and float(gpu.compute_capability) >= _AMPERE


def ready(options: EngineOptions) -> EngineOptions:
    """The options with TensorRT at hand, so that what can't be fails before the work begins.

    Raises:
        UsageError: shapes or architectures that no engine can have.
        DeviceError: TensorRT is not installed, or for other GPUs TensorRT-RTX is not.
    """
    prompts, points = options.max_prompts, options.max_points
    if not 1 <= options.batch <= options.max_batch or prompts < 1 or points < 2:
        raise UsageError(
            f"Engines for {options.batch} of at most {options.max_batch} images, {prompts} prompts "
            f"and {points} points can't be built: take at least 1 image, 1 prompt and 2 points, "
            "which are what a box needs."
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
    timing_cache = _timing_cache(options)
    frame = (3, resolution, resolution)
    encoder = build_engine(
        folder / (precision.encoder.file if precision else ENCODER_FILE),
        folder / ENCODER_ENGINE_FILE,
        profiles={
            "image": ((1, *frame), (options.batch, *frame), (options.max_batch, *frame)),
        },
        trt=trt,
        device=options.device,
        gpu_archs=options.gpu_archs,
        workspace_bytes=options.workspace_bytes,
        timing_cache=timing_cache,
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
        device=options.device,
        gpu_archs=options.gpu_archs,
        workspace_bytes=options.workspace_bytes,
        timing_cache=timing_cache,
        progress=progress,
    )
    return encoder, decoder


def check_parser(files: Sequence[Path]) -> None:
    """Do nothing if TensorRT-RTX's parser takes these ONNX files, or is not here to be asked.

    Raises:
        ExportError: it refuses one; the message says why.
    """
    try:
        trt = load_tensorrt(prefer="tensorrt-rtx")
        found = [fault for fault in (parse_fault(file, trt=trt) for file in files) if fault]
    except DeviceError:  # not installed, or not usable: who asked for no engines needs none
        return
    if found:
        raise ExportError(found[0])


def _timing_cache(options: EngineOptions) -> Path | None:
    trt, folder = options.trt, options.timing_folder
    if options.timing_cache or trt is None or folder is None or trt.flavour != "tensorrt":
        return options.timing_cache
    machine = build_machine(current_gpu() if options.device is None else options.device)
    return folder / timing_cache_name(machine.gpu if machine else "no GPU", trt.version)
