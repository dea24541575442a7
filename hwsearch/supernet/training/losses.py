"""What a step minimises: mask losses, the IoU head's loss, and distillation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms. Focal to dice is 20 : 1 as in Segment Anything (arXiv 2304.02643)."""

    bce: float = 1.0
    focal: float = 0.0
    dice: float = 1.0
    iou: float = 1.0
    mask_distillation: float = 1.0
    embedding_distillation: float = 1.0


def mask_loss(logits: Tensor, targets: Tensor, weights: LossWeights) -> Tensor:
    """Segmentation loss of each mask.

    Args:
        logits: …×H×W mask logits.
        targets: …×H×W soft masks in 0 … 1, broadcastable to `logits`.
        weights: weights of BCE, focal and dice.

    Returns:
        One loss for each mask (…).
    """
    targets = targets.expand_as(logits)
    loss = weights.dice * dice_loss(logits, targets)
    bce = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    if weights.bce:
        loss = loss + weights.bce * bce.mean(dim=(-2, -1))
    if weights.focal:
        probability = logits.sigmoid()
        miss = probability + targets - 2 * probability * targets
        alpha = 0.25 * targets + 0.75 * (1 - targets)
        loss = loss + weights.focal * (alpha * miss.square() * bce).mean(dim=(-2, -1))
    return loss


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """1 − soft Dice coefficient of each mask (…), smoothed by 1 as in V-Net (arXiv 1606.04797)."""
    probability = logits.sigmoid()
    overlap = (probability * targets).sum(dim=(-2, -1))
    total = probability.sum(dim=(-2, -1)) + targets.sum(dim=(-2, -1))
    return 1 - (2 * overlap + 1) / (total + 1)


def soft_iou(logits: Tensor, targets: Tensor) -> Tensor:
    """IoU (…) of the thresholded masks (…×H×W) with soft targets, without gradient."""
    with torch.no_grad():
        predicted = (logits > 0).float()
        overlap = torch.minimum(predicted, targets).sum(dim=(-2, -1))
        union = torch.maximum(predicted, targets).sum(dim=(-2, -1))
        return overlap / union.clamp(min=1e-6)


def sam_loss(
    logits: Tensor, ious: Tensor, targets: Tensor, present: Tensor, weights: LossWeights
) -> Tensor:
    """Loss of all mask tokens of a batch.

    The single-mask token always learns the mask; of the multi-mask tokens only the best one does
    (Segment Anything, arXiv 2304.02643, appendix A); the IoU head learns the IoU of each token.

    Args:
        logits: B×P×T×H×W mask logits.
        ious: B×P×T predicted IoUs.
        targets: B×P×H×W soft masks.
        present: B×P, False where a prompt only fills up the batch.
        weights: weights of the terms.

    Returns:
        The mean over the prompts that are present.
    """
    targets = targets.unsqueeze(2)
    segmentation = mask_loss(logits, targets, weights)
    single, best = segmentation[..., 0], segmentation[..., 1:].min(dim=-1).values
    quality = F.mse_loss(ious, soft_iou(logits, targets), reduction="none").sum(dim=-1)
    return _mean_over(single + best + weights.iou * quality, present)


def distillation_loss(
    student: tuple[Tensor, Tensor],
    teacher: tuple[Tensor, Tensor],
    present: Tensor,
    weights: LossWeights,
) -> Tensor:
    """How far a subnet is from the largest one, which is not changed by it.

    Args:
        student: B×P×T×H×W mask logits and B×C×G×G image embeddings of the subnet.
        teacher: the same of the largest subnet; resized where the resolution differs.
        present: B×P, False where a prompt only fills up the batch.
        weights: weights of the terms.
    """
    logits, embeddings = student
    goal = _resized(teacher[0].detach().sigmoid().flatten(1, 2), logits).unflatten(
        1, logits.shape[1:3]
    )
    masks = F.binary_cross_entropy_with_logits(logits, goal, reduction="none")
    features = F.mse_loss(embeddings, _resized(teacher[1].detach(), embeddings))
    return (
        weights.mask_distillation * _mean_over(masks.mean(dim=(-3, -2, -1)), present)
        + weights.embedding_distillation * features
    )


def _resized(maps: Tensor, like: Tensor) -> Tensor:
    if maps.shape[-2:] == like.shape[-2:]:
        return maps
    return F.interpolate(maps, size=like.shape[-2:], mode="bilinear", antialias=True)


def _mean_over(values: Tensor, present: Tensor) -> Tensor:
    return (values * present).sum() / present.sum().clamp(min=1)
