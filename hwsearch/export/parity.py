"""The parity gate: exported files against the model in torch, before anything ships."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from segment_anything.modeling import Sam
from torch import Tensor

from hwsearch.errors import ExportError
from hwsearch.export.compare import (
    Outputs,
    ParityLimits,
    compare,
    decode,
    draw_prompts,
    embed,
    faults,
    require_finite,
)
from hwsearch.export.manifest import Parity, Preprocessing
from hwsearch.export.pixels import Floats, Pixels, check_image, preprocess
from hwsearch.runtime.onnx_export import decimals
from hwsearch.runtime.onnxruntime import OnnxRuntimeRunner


def check_parity(
    sam: Sam,
    encoder_onnx: Path,
    decoder_onnx: Path,
    *,
    images: Sequence[Pixels] | None = None,
    threads: int = 1,
    limits: ParityLimits | None = None,
) -> Parity:
    """Compare exported files with the model that they came from, image to mask.

    Every image gets boxes, points, and both together. The exported decoder works on what
    the exported encoder gave, so that errors add up as they do in use.

    Args:
        sam: the model, a plain Segment Anything.
        encoder_onnx: what `export_encoder` wrote.
        decoder_onnx: what `export_decoder` wrote.
        images: H×W×3 uint8 RGB images; without them, two that are drawn.
        threads: threads of ONNX Runtime.
        limits: what has to be reached.

    Raises:
        ExportError: a limit is not reached; the message says which and by how much.
        DeviceError: ONNX Runtime can't load a file.
        UsageError: an image is no H×W×3 uint8 array.
    """
    images = drawn_images() if images is None else images
    how = preprocessing_of(sam)
    rng = np.random.default_rng(0)
    pairs = []
    with (
        OnnxRuntimeRunner(encoder_onnx, threads=threads) as encoder,
        OnnxRuntimeRunner(decoder_onnx, threads=threads) as decoder,
    ):
        for image in images:
            check_image(image)
            frame = preprocess(image, how)
            boxes, points = draw_prompts(rng, how.resolution)
            expected = _run_torch(sam, frame, boxes, points)
            got = decode(decoder, embed(encoder, frame), boxes, points)
            require_finite(expected, "model's weights")
            require_finite(got, "exported files")
            pairs.append((expected, got))
    parity = compare(pairs, threshold=how.mask_threshold)
    _gate(parity, limits or ParityLimits())
    return parity


def preprocessing_of(sam: Sam) -> Preprocessing:
    """How a model wants its images."""
    return Preprocessing(
        resolution=sam.image_encoder.img_size,
        pixel_mean=decimals(sam.pixel_mean),
        pixel_std=decimals(sam.pixel_std),
        mask_threshold=float(sam.mask_threshold),
    )


def drawn_images(count: int = 2, *, seed: int = 0) -> list[Pixels]:
    """Images with smooth shading, edges and noise, wide and tall in turn."""
    rng = np.random.default_rng(seed)
    images = []
    for index in range(count):
        height, width = (240, 320) if index % 2 == 0 else (320, 200)
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        shaded = coarse.resize((width, height), Image.Resampling.BICUBIC)
        pixels = np.asarray(shaded).astype(np.int16)
        for _ in range(5):
            top, left = rng.integers(0, height * 3 // 4), rng.integers(0, width * 3 // 4)
            pixels[top : top + height // 4, left : left + width // 4] = rng.integers(0, 256, 3)
        pixels += rng.integers(-12, 13, pixels.shape, dtype=np.int16)
        images.append(pixels.clip(0, 255).astype(np.uint8))
    return images


@torch.inference_mode()
def _run_torch(sam: Sam, frame: Floats, boxes: Floats, points: Floats) -> Outputs:
    embeddings = sam.image_encoder(torch.from_numpy(frame).to(sam.device))
    box = torch.from_numpy(boxes).to(sam.device)
    point = (
        torch.from_numpy(points).to(sam.device),
        torch.ones(points.shape[:2], dtype=torch.int, device=sam.device),
    )
    results = [
        _decode_torch(sam, embeddings, boxes=box, points=None),
        _decode_torch(sam, embeddings, boxes=None, points=point),
        _decode_torch(sam, embeddings, boxes=box, points=point),
    ]
    return Outputs(
        embeddings=embeddings.cpu().numpy(),
        logits=torch.cat([logits for logits, _ in results]).cpu().numpy(),
        ious=torch.cat([ious for _, ious in results]).cpu().numpy(),
    )


def _decode_torch(
    sam: Sam, embeddings: Tensor, *, boxes: Tensor | None, points: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor]:
    sparse, dense = sam.prompt_encoder(points=points, boxes=boxes, masks=None)
    logits, ious = sam.mask_decoder.predict_masks(
        image_embeddings=embeddings,
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
    )
    return logits, ious


def _gate(parity: Parity, limits: ParityLimits) -> None:
    found = faults(parity, limits)
    if found:
        raise ExportError(
            f"The exported files don't compute what the model computes: {'; '.join(found)}. "
            "They are not to be used; export again, and report it if it stays so."
        )
