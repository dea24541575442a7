"""The parity gate: exported files against the model in torch, before anything ships."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from segment_anything.modeling import Sam
from torch import Tensor

from hwsearch.errors import ExportError
from hwsearch.export.manifest import Parity, Preprocessing
from hwsearch.export.pixels import Floats, Pixels, check_image, preprocess
from hwsearch.runtime.onnx_export import decimals
from hwsearch.runtime.onnxruntime import OnnxRuntimeRunner
from hwsearch.runtime.runner import Runner

PROMPTS_OF_A_KIND = 4


@dataclass(frozen=True)
class ParityLimits:
    """What an export has to reach. The defaults are for fp32 files.

    fp32 exports of ViT-B reach a cosine of 1 − 1e-6 and mask IoUs of 1; a wrong weight or a wrong
    permutation is orders of magnitude away.
    """

    embedding_cosine_min: float = 0.9999
    mask_iou_mean: float = 0.99
    iou_prediction_max_error: float = 0.005


@dataclass(frozen=True)
class _Outputs:
    """One image through a model: embeddings 1×C×G×G, logits K×M×4G×4G, predicted IoUs K×M."""

    embeddings: Floats
    logits: Floats
    ious: Floats


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
            boxes, points = _draw_prompts(rng, how.resolution)
            expected = _run_torch(sam, frame, boxes, points)
            got = _run_exported(encoder, decoder, frame, boxes, points)
            _require_finite(expected, "model's weights")
            _require_finite(got, "exported files")
            pairs.append((expected, got))
    parity = _compare(pairs, threshold=how.mask_threshold)
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


def _draw_prompts(rng: np.random.Generator, resolution: int) -> tuple[Floats, Floats]:
    """K×4 boxes and K×1×2 points in the input frame, K of each kind."""
    corners = np.sort(rng.uniform(0, resolution, (PROMPTS_OF_A_KIND, 2, 2)), axis=1)
    points = rng.uniform(0, resolution, (PROMPTS_OF_A_KIND, 1, 2))
    return corners.reshape(-1, 4).astype(np.float32), points.astype(np.float32)


@torch.inference_mode()
def _run_torch(sam: Sam, frame: Floats, boxes: Floats, points: Floats) -> _Outputs:
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
    return _Outputs(
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


def _run_exported(
    encoder: Runner, decoder: Runner, frame: Floats, boxes: Floats, points: Floats
) -> _Outputs:
    embeddings = encoder.infer({"image": frame})["image_embeddings"]
    corners = boxes.reshape(-1, 2, 2)
    padding = np.zeros_like(points)
    prompts = [
        (corners, (2, 3)),
        (np.concatenate([points, padding], axis=1), (1, -1)),
        (np.concatenate([points, corners], axis=1), (1, 2, 3)),
    ]
    results = [
        decoder.infer(
            {
                "image_embeddings": embeddings,
                "point_coords": coords,
                "point_labels": np.tile(np.array(labels, np.float32), (len(coords), 1)),
            }
        )
        for coords, labels in prompts
    ]
    return _Outputs(
        embeddings=np.asarray(embeddings, np.float32),
        logits=np.concatenate([result["low_res_masks"] for result in results]).astype(np.float32),
        ious=np.concatenate([result["iou_predictions"] for result in results]).astype(np.float32),
    )


def _compare(pairs: Sequence[tuple[_Outputs, _Outputs]], *, threshold: float) -> Parity:
    ious = np.concatenate(
        [_mask_ious(want.logits > threshold, got.logits > threshold) for want, got in pairs]
    )
    return Parity(
        embedding_cosine_min=min(
            _cosines(want.embeddings, got.embeddings).min() for want, got in pairs
        ),
        embedding_max_abs_error=max(
            _max_error(want.embeddings, got.embeddings) for want, got in pairs
        ),
        mask_iou_min=ious.min(),
        mask_iou_mean=ious.mean(),
        iou_prediction_max_error=max(_max_error(want.ious, got.ious) for want, got in pairs),
        images=len(pairs),
        prompts=sum(len(want.ious) for want, _ in pairs),
    )


def _cosines(want: Floats, got: Floats) -> NDArray[np.float64]:
    """Cosine of the two C-vectors at each place of B×C×G×G embeddings."""
    a, b = want.astype(np.float64), got.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines: NDArray[np.float64] = (a * b).sum(axis=1) / np.maximum(norms, 1e-12)
    return cosines


def _mask_ious(want: NDArray[np.bool_], got: NDArray[np.bool_]) -> NDArray[np.float64]:
    """IoU of each pair of K×M masks; two empty masks agree."""
    union = (want | got).sum(axis=(-2, -1))
    overlap = (want & got).sum(axis=(-2, -1))
    return np.where(union > 0, overlap / np.maximum(union, 1), 1.0).ravel()


def _max_error(want: Floats, got: Floats) -> float:
    return float(np.abs(want - got).max())


def _require_finite(outputs: _Outputs, who: str) -> None:
    arrays = (outputs.embeddings, outputs.logits, outputs.ious)
    if not all(np.isfinite(array).all() for array in arrays):
        raise ExportError(
            f"The {who} give infinite or undefined numbers, so the export can't be checked: "
            "look at the weights, and for low precision at overflow."
        )


def _gate(parity: Parity, limits: ParityLimits) -> None:
    faults = [
        fault
        for reached, fault in (
            (
                parity.embedding_cosine_min >= limits.embedding_cosine_min,
                f"the embeddings' cosine falls to {parity.embedding_cosine_min:.6f} "
                f"(at least {limits.embedding_cosine_min})",
            ),
            (
                parity.mask_iou_mean >= limits.mask_iou_mean,
                f"the masks overlap by {parity.mask_iou_mean:.4f} on average "
                f"(at least {limits.mask_iou_mean})",
            ),
            (
                parity.iou_prediction_max_error <= limits.iou_prediction_max_error,
                f"the predicted IoUs differ by up to {parity.iou_prediction_max_error:.4f} "
                f"(at most {limits.iou_prediction_max_error})",
            ),
        )
        if not reached
    ]
    if faults:
        raise ExportError(
            f"The exported files don't compute what the model computes: {'; '.join(faults)}. "
            "They are not to be used; export again, and report it if it stays so."
        )
