"""Two models on the same images and prompts: what they give, and how far apart that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwsearch.errors import ExportError
from hwsearch.export.manifest import Parity
from hwsearch.export.pixels import Floats
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
class Outputs:
    """One image through a model: embeddings 1×C×G×G, logits K×M×4G×4G, predicted IoUs K×M."""

    embeddings: Floats
    logits: Floats
    ious: Floats

    @property
    def finite(self) -> bool:
        """Whether all of it is numbers."""
        return all(np.isfinite(part).all() for part in (self.embeddings, self.logits, self.ious))


def draw_prompts(rng: np.random.Generator, resolution: int) -> tuple[Floats, Floats]:
    """K×4 boxes and K×1×2 points in the input frame, K of each kind."""
    corners = np.sort(rng.uniform(0, resolution, (PROMPTS_OF_A_KIND, 2, 2)), axis=1)
    points = rng.uniform(0, resolution, (PROMPTS_OF_A_KIND, 1, 2))
    return corners.reshape(-1, 4).astype(np.float32), points.astype(np.float32)


def embed(encoder: Runner, frame: Floats) -> Floats:
    """1×C×G×G embeddings of a 1×3×R×R frame."""
    return np.asarray(encoder.infer({"image": frame})["image_embeddings"], np.float32)


def prompt_inputs(
    embeddings: Floats, boxes: Floats, points: Floats
) -> list[dict[str, NDArray[np.float32]]]:
    """What a decoder is given for the boxes, for the points, and for both together."""
    corners = boxes.reshape(-1, 2, 2)
    prompts = [
        (corners, (2, 3)),
        (np.concatenate([points, np.zeros_like(points)], axis=1), (1, -1)),
        (np.concatenate([points, corners], axis=1), (1, 2, 3)),
    ]
    return [
        {
            "image_embeddings": embeddings,
            "point_coords": coords,
            "point_labels": np.tile(np.array(labels, np.float32), (len(coords), 1)),
        }
        for coords, labels in prompts
    ]


def decode(decoder: Runner, embeddings: Floats, boxes: Floats, points: Floats) -> Outputs:
    """Masks and predicted IoUs of all prompts on one image."""
    results = [decoder.infer(inputs) for inputs in prompt_inputs(embeddings, boxes, points)]
    return Outputs(
        embeddings=embeddings,
        logits=np.concatenate([result["low_res_masks"] for result in results]).astype(np.float32),
        ious=np.concatenate([result["iou_predictions"] for result in results]).astype(np.float32),
    )


def compare(pairs: Sequence[tuple[Outputs, Outputs]], *, threshold: float) -> Parity:
    """How far the second of each pair is from the first."""
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


def faults(parity: Parity, limits: ParityLimits) -> list[str]:
    """Each limit that is not reached, as a phrase."""
    return [
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


def require_finite(outputs: Outputs, who: str) -> None:
    """Do nothing if all outputs are numbers.

    Raises:
        ExportError: some are not.
    """
    if not outputs.finite:
        raise ExportError(
            f"The {who} give infinite or undefined numbers, so the export can't be checked: "
            "look at the weights, and for low precision at overflow."
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
