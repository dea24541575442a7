"""The plain way: export each subnet, run it a hundred times, go on to the next."""

from __future__ import annotations

import contextlib
import io
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hwsearch.profiler.inputs import decoder_inputs, encoder_inputs
from hwsearch.profiler.timer import Floats, bootstrap_median
from hwsearch.records import SubnetConfig, Target
from hwsearch.runtime.model_files import export_decoder_for, export_encoder_for, model_suffix
from hwsearch.runtime.open import open_runner
from hwsearch.supernet.supernet import Supernet

RUNS, UNTIMED = 100, 10

# Writes a subnet's image encoder for a target.
Export = Callable[[Supernet, SubnetConfig, Target, Path], None]


@dataclass(frozen=True)
class PlainTiming:
    """Median of encoder plus decoder, its interval's half-width as a share of it, and the export.

    `export_s` is how long writing the encoder took.
    """

    latency_ms: float
    relative_half_width: float
    export_s: float


def time_plainly(
    supernet: Supernet,
    configs: Sequence[SubnetConfig],
    target: Target,
    folder: Path,
    *,
    export: Export,
) -> list[PlainTiming]:
    """Export and time subnets one after the other, in the order given.

    Decoders are shared by subnets of one resolution and written by hwsearch: what is compared is
    the encoder's way.
    """
    rng = np.random.default_rng(0)
    found = []
    for config in configs:
        encoder = folder / f"{config.id}.onnx"
        begin = time.monotonic()
        export(supernet, config, target, encoder)
        export_s = time.monotonic() - begin
        decoder = folder / f"decoder-{config.resolution}{model_suffix(target)}"
        if not decoder.exists():
            export_decoder_for(target, supernet.extract(config), decoder, name=supernet.id)
        seconds = _timed(encoder, decoder, config, target, rng)
        low, high = bootstrap_median(seconds, rng=rng)
        median = float(np.median(seconds))
        found.append(PlainTiming(1e3 * median, (high - low) / 2 / median, export_s))
        encoder.unlink()
    return found


def write_encoder(supernet: Supernet, config: SubnetConfig, target: Target, path: Path) -> None:
    """Write a subnet's image encoder as hwsearch does, node by node."""
    export_encoder_for(target, supernet.extract(config), path, name=config.id)


def trace_encoder(supernet: Supernet, config: SubnetConfig, target: Target, path: Path) -> None:
    """Write a subnet's image encoder as fp32 ONNX by PyTorch's own exporter, at batch 1."""
    side = config.resolution
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        torch.inference_mode(False),
    ):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            supernet.extract(config).image_encoder,
            (torch.zeros(1, 3, side, side),),
            path,
            input_names=["image"],
            output_names=["image_embeddings"],
            external_data=False,
            verbose=False,
        )


def _timed(
    encoder: Path, decoder: Path, config: SubnetConfig, target: Target, rng: np.random.Generator
) -> Floats:
    with (
        open_runner(target, encoder) as image_encoder,
        open_runner(target, decoder) as masks,
    ):
        image = encoder_inputs(image_encoder.inputs, batch=target.batch, rng=rng)
        prompt = decoder_inputs(
            masks.inputs,
            image_encoder.infer(image),
            resolution=config.resolution,
            rng=rng,
        )
        calls = RUNS + UNTIMED
        encoded = image_encoder.time(image, calls)[UNTIMED:]
        decoded = masks.time(prompt, calls)[UNTIMED:]
    both: Floats = np.asarray(encoded) + np.asarray(decoded)
    return both
