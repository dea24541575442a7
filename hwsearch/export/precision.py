"""Chooses what a bundle's engines compute in: the first step of the ladder that passes the gate."""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from hwsearch.errors import UsageError
from hwsearch.export.compare import ParityLimits, faults
from hwsearch.export.gate import Gate, Probe, calibration_readings
from hwsearch.export.ladder import Part, Rung, block_ends, rungs
from hwsearch.export.manifest import (
    DECODER_FILE,
    ENCODER_FILE,
    Parity,
    PartPrecision,
    Precision,
    PrecisionAttempt,
    PrecisionPlan,
    Preprocessing,
)
from hwsearch.progress import Progress, SilentProgress
from hwsearch.runtime.onnx_export import METADATA_PREFIX, save_model
from hwsearch.runtime.onnx_qdq import quantized
from hwsearch.runtime.onnx_types import FLOATS, element_types
from hwsearch.runtime.runner import Array

_FILES: dict[Part, str] = {"encoder": ENCODER_FILE, "decoder": DECODER_FILE}
_JUDGE = (
    "ONNX Runtime {} on the CPU, on float32 replicas that round after each node as the files say"
)
NO_GPU = "; no GPU took part"
LOW_PRECISION_LIMITS = ParityLimits(
    embedding_cosine_min=0.99, mask_iou_mean=0.98, iou_prediction_max_error=0.02
)


@dataclass(frozen=True)
class PrecisionOptions:
    """A precision, and what it has to keep to.

    Args:
        precision: `fp16`, `bf16` or `int8`; `fp32` is what every bundle holds anyway.
        probes: images to judge on.
        calibration: images on which int8 finds its scales, others than `probes`.
        limits: what a step of the ladder has to reach against fp32.
        drawn: the images are drawn ones, not the user's.
    """

    precision: Precision
    probes: Sequence[Probe]
    calibration: Sequence[Probe] = ()
    limits: ParityLimits = LOW_PRECISION_LIMITS
    drawn: bool = False


@dataclass(frozen=True)
class _Choice:
    rung: Rung
    attempts: tuple[PrecisionAttempt, ...]


def choose_precision(
    folder: Path,
    *,
    how: Preprocessing,
    options: PrecisionOptions,
    threads: int = 1,
    progress: Progress | None = None,
) -> PrecisionPlan:
    """Write `encoder.PRECISION.onnx` and `decoder.PRECISION.onnx` beside the fp32 files.

    First the encoder is chosen with the fp32 decoder behind it, then the decoder with the chosen
    encoder before it. A part for which only fp32 passes gets no file of its own.

    Args:
        folder: holds `encoder.onnx` and `decoder.onnx` in fp32.
        how: how the encoder wants its images.
        options: what is asked for.
        threads: of ONNX Runtime.
        progress: is told of the steps.

    Raises:
        UsageError: there are no images, or an image is no H×W×3 uint8 array.
        ExportError: a model can't be converted or written, or gives no numbers in fp32.
        DeviceError: ONNX Runtime can't load a file.
    """
    if not options.probes or (options.precision == "int8" and not options.calibration):
        raise UsageError(
            f"{options.precision} is judged on images, and int8 calibrated on others: give some."
        )
    progress = progress or SilentProgress()
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix=".precision.") as scratch,
        progress.task(f"Trying {options.precision}", 2) as advance,
    ):
        gate = Gate(folder, scratch=Path(scratch), how=how, probes=options.probes, threads=threads)
        quantisers = _quantisers(folder, how=how, options=options, threads=threads)
        encoder = _climb(
            "encoder",
            folder,
            gate=gate,
            options=options,
            quantise=quantisers["encoder"],
            judge=lambda model: gate.judge(gate.embeddings(model)),
        )
        advance(note=f"encoder: {encoder.rung.name}")
        embeddings = (
            gate.expected_embeddings
            if encoder.rung.name == "fp32"
            else gate.embeddings(encoder.rung.model)
        )
        decoder = _climb(
            "decoder",
            folder,
            gate=gate,
            options=options,
            quantise=quantisers["decoder"],
            judge=lambda model: gate.judge(embeddings, model),
        )
        advance(note=f"decoder: {decoder.rung.name}")
        parity = decoder.attempts[-1].parity
    if parity is None:
        raise AssertionError("the last step is fp32, which gave numbers with this encoder")
    return PrecisionPlan(
        asked=options.precision,
        encoder=_written("encoder", folder, encoder, options.precision),
        decoder=_written("decoder", folder, decoder, options.precision),
        parity=parity,
        embedding_cosine_limit=options.limits.embedding_cosine_min,
        mask_iou_limit=options.limits.mask_iou_mean,
        iou_prediction_error_limit=options.limits.iou_prediction_max_error,
        judge=_JUDGE.format(importlib.metadata.version("onnxruntime")) + NO_GPU,
        images="drawn" if options.drawn else "data",
        calibration_images=len(options.calibration) if options.precision == "int8" else 0,
    )


def _climb(
    part: Part,
    folder: Path,
    *,
    gate: Gate,
    options: PrecisionOptions,
    quantise: Callable[[list[str]], onnx.ModelProto],
    judge: Callable[[onnx.ModelProto], Parity | None],
) -> _Choice:
    """The first rung that passes; the last one, fp32, is taken in any case."""
    source = onnx.load(folder / _FILES[part])
    ends = list(block_ends(source).values())
    inputs = gate.encoder_inputs() if part == "encoder" else gate.decoder_inputs()
    attempts: list[PrecisionAttempt] = []
    steps = rungs(
        options.precision,
        source,
        quantise=quantise,
        drift=lambda low: gate.drift(source, low, ends, inputs),
    )
    for rung in steps:
        parity = judge(rung.model)
        passed = parity is not None and not faults(parity, options.limits)
        attempts.append(PrecisionAttempt(step=rung.name, parity=parity, passed=passed))
        if passed or rung.name == "fp32":
            return _Choice(rung, tuple(attempts))
    raise AssertionError("the ladder ends with fp32")


def _quantisers(
    folder: Path, *, how: Preprocessing, options: PrecisionOptions, threads: int
) -> dict[Part, Callable[[list[str]], onnx.ModelProto]]:
    readings: dict[Part, list[dict[str, Array]]] = {"encoder": [], "decoder": []}
    if options.precision == "int8":
        readings["encoder"], readings["decoder"] = calibration_readings(
            options.calibration, how, folder / ENCODER_FILE, threads=threads
        )

    def quantiser(part: Part) -> Callable[[list[str]], onnx.ModelProto]:
        path = folder / _FILES[part]
        return lambda products: quantized(
            path,
            products=products,
            readings=readings[part],
            external=path.with_name(f"{path.name}.data").exists(),
        )

    return {"encoder": quantiser("encoder"), "decoder": quantiser("decoder")}


def _written(part: Part, folder: Path, choice: _Choice, precision: Precision) -> PartPrecision:
    model, name = choice.rung.model, _FILES[part]
    if choice.rung.name != "fp32":
        name = f"{part}.{precision}.onnx"
        model.metadata_props.add(key=f"{METADATA_PREFIX}precision", value=choice.rung.name)
        save_model(model, folder / name)
    kinds = _kinds(model)
    return PartPrecision(
        file=name,
        step=choice.rung.name,
        low_nodes=kinds["low"],
        fp32_nodes=kinds["fp32"],
        int8_products=kinds["int8"],
        fp32_blocks=choice.rung.fp32_blocks,
        attempts=choice.attempts,
    )


def _kinds(model: onnx.ModelProto) -> Counter[str]:
    """How many nodes give fp32, give less, and multiply int8 matrices; casts are not counted."""
    types = element_types(model)
    kinds: Counter[str] = Counter()
    dequantised = {
        node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"
    }
    for node in model.graph.node:
        given = types[node.output[0]]
        if node.op_type in {"Cast", "QuantizeLinear", "DequantizeLinear"} or given not in FLOATS:
            continue
        kinds["fp32" if given == onnx.TensorProto.FLOAT else "low"] += 1
        kinds["int8"] += node.op_type == "MatMul" and set(node.input) <= dequantised
    return kinds
