"""The gate of a bundle's engines: on a GPU that runs them, against the fp32 files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from hwsearch.errors import DeviceError, ExportError
from hwsearch.export.compare import ParityLimits, faults
from hwsearch.export.engines import EngineOptions, runs_on
from hwsearch.export.gate import BOXES_AN_IMAGE, POINTS_A_PROMPT, Gate, Probe
from hwsearch.export.manifest import (
    DECODER_ENGINE_FILE,
    ENCODER_ENGINE_FILE,
    EngineParity,
    PrecisionPlan,
    Preprocessing,
)
from hwsearch.export.precision import LOW_PRECISION_LIMITS, NO_GPU
from hwsearch.runtime.gpus import find_gpu
from hwsearch.runtime.tensorrt_build import use_gpu
from hwsearch.runtime.tensorrt_info import current_gpu
from hwsearch.runtime.tensorrt_runner import TensorRtRunner


def judge_engines(
    folder: Path,
    *,
    how: Preprocessing,
    probes: Sequence[Probe],
    options: EngineOptions,
    limits: ParityLimits | None = None,
    threads: int = 1,
) -> EngineParity | None:
    """Run both engines on this machine's GPU and hold their masks against those of the fp32 files.

    Args:
        folder: holds the engines and the fp32 ONNX files.
        how: how the encoder wants its images.
        probes: the images to judge on.
        options: what the engines were built for, with the TensorRT that built them.
        limits: what they have to reach; without it, `LOW_PRECISION_LIMITS`, since TensorRT
            multiplies matrices of fp32 files in TF32 too.
        threads: of ONNX Runtime, which runs the fp32 files.

    Returns:
        How near they are; None where nothing was run: there is no usable GPU, the engines are for
        others, or for fewer prompts or points than the gate gives.

    Raises:
        ExportError: the engines' masks are too far from those of fp32, or they give infinite or
            undefined numbers.
        DeviceError: the GPU can't load or run the engines.
    """
    if options.max_prompts < BOXES_AN_IMAGE or options.max_points < POINTS_A_PROMPT:
        return None
    index = options.device if options.device is not None else current_gpu()
    if options.trt is None or index is None:
        return None
    try:
        gpu = find_gpu(f"cuda:{index}")
    except DeviceError:
        return None
    if not runs_on(options, gpu):
        return None
    gate = Gate(folder, scratch=folder, how=how, probes=probes, threads=threads)
    use_gpu(index)
    device = torch.device("cuda", index)
    with (
        TensorRtRunner(folder / ENCODER_ENGINE_FILE, trt=options.trt, device=device) as encoder,
        TensorRtRunner(folder / DECODER_ENGINE_FILE, trt=options.trt, device=device) as decoder,
    ):
        parity = gate.judge_runners(encoder, decoder)
    torch.cuda.empty_cache()  # what is timed next wants the memory
    found = (
        ["they give infinite or undefined numbers"]
        if parity is None
        else faults(parity, limits or LOW_PRECISION_LIMITS)
    )
    if parity is None or found:
        raise ExportError(
            f"On {gpu.name} the engines don't compute what the fp32 files do: {'; '.join(found)}. "
            "They are not to be used: take a higher --precision."
        )
    return EngineParity(gpu=gpu.name, parity=parity)


def judged_on_gpu(plan: PrecisionPlan, verdict: EngineParity) -> PrecisionPlan:
    """A plan whose `judge` says that a GPU confirmed the choice."""
    judge = f"{plan.judge.removesuffix(NO_GPU)}; the engines passed the same limits on"
    return plan.model_copy(update={"judge": f"{judge} {verdict.gpu}"})
