"""What a model answers to prompts, and how well each answer meets the ground truth."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from hwsearch.compute import exact_convolutions
from hwsearch.data.framing import FittedView, View, fit
from hwsearch.data.rle import Rle, encode
from hwsearch.evaluation.prompts import Prompt, prompt_points
from hwsearch.evaluation.segmenter import Segmenter
from hwsearch.evaluation.sets import EvaluationSet
from hwsearch.progress import Progress, SilentProgress

Floats = NDArray[np.float64]
MOST_PIXELS = 16_000_000  # of all objects that are restored at once, each with three masks


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers to one kind of prompt, one for each of n objects.

    Args:
        selected: float64 (n,), IoU of the mask of the highest predicted IoU with the true one.
        oracle: float64 (n,), IoU of the best mask by ground truth.
        confidence: float64 (n,), predicted IoU of the selected mask.
        masks: the n selected masks at the size of their views, or none if they were not kept.
    """

    selected: Floats
    oracle: Floats
    confidence: Floats
    masks: tuple[Rle, ...] = ()


def ask(
    segmenter: Segmenter,
    chosen: EvaluationSet,
    *,
    prompts: Sequence[Prompt] = ("box",),
    keep_masks: Collection[Prompt] = (),
    batch: int | None = None,
    progress: Progress | None = None,
) -> dict[Prompt, Answers]:
    """Prompt a model for every object; each image is encoded once, whatever the prompts.

    Args:
        segmenter: the model.
        chosen: what to evaluate on.
        prompts: the kinds of prompts.
        keep_masks: those of them whose selected masks are kept.
        batch: images encoded at once; None for as many as `default_batch` says.
        progress: who shows the images.
    """
    progress = progress or SilentProgress()
    resolution = segmenter.resolution
    batch = batch or default_batch(resolution)
    parts: dict[Prompt, list[Answers]] = {prompt: [] for prompt in prompts}
    with (
        progress.task("evaluating", len(chosen.views)) as advance,
        torch.inference_mode(),
        exact_convolutions(),
    ):
        for start in range(0, len(chosen.views), batch):
            views = list(chosen.views[start : start + batch])
            fitted = [fit(view, resolution) for view in views]
            embeddings = segmenter.encode([frame.image for frame in fitted])
            for prompt in prompts:
                logits, ious = segmenter.decode(embeddings, *prompt_points(prompt, fitted))
                for place, (view, frame) in enumerate(zip(views, fitted, strict=True)):
                    for some in _handfuls(view):
                        masks = _restore(logits[place, some], view, frame, resolution)
                        truth = torch.from_numpy(view.masks[some]).to(masks.device)
                        keep = prompt in keep_masks
                        parts[prompt].append(_judge(masks, ious[place, some], truth, keep=keep))
            advance(len(views))
    return {prompt: _join(answers) for prompt, answers in parts.items()}


def default_batch(resolution: int) -> int:
    """Images at once: 8 at 256 px, 1 at 1024 px, where one global attention map has 0.8 GB."""
    return max(1, 8 * 256**2 // resolution**2)


def _handfuls(view: View) -> list[slice]:
    """A view's objects, in parts whose masks take no more than some hundred megabytes at once."""
    most = max(1, MOST_PIXELS // math.prod(view.image.shape[:2]))
    count = len(view.masks)  # of a batch's other views there may be more prompts
    return [slice(first, min(first + most, count)) for first in range(0, count, most)]


def _restore(logits: Tensor, view: View, frame: FittedView, resolution: int) -> Tensor:
    """Logits of the input frame (P×M×S×S) to bool masks of the view (P×M×H×W)."""
    height, width = frame.image.shape[:2]
    upscaled = F.interpolate(logits, (resolution, resolution), mode="bilinear")
    restored = F.interpolate(upscaled[..., :height, :width], view.image.shape[:2], mode="bilinear")
    return restored > 0


def _judge(masks: Tensor, ious: Tensor, truth: Tensor, *, keep: bool) -> Answers:
    """Hold P×M masks and their P×M predicted IoUs against P objects (P×H×W)."""
    predicted, truth = masks.flatten(2), truth.flatten(1).unsqueeze(1)
    overlap = (predicted & truth).sum(dim=-1)
    found = overlap / (predicted | truth).sum(dim=-1).clamp(min=1)
    best = ious.argmax(dim=-1, keepdim=True)
    rows = torch.arange(len(masks), device=masks.device)
    selected = masks[rows, best[:, 0]].cpu().numpy() if keep else ()
    return Answers(
        selected=_floats(found.gather(-1, best)[:, 0]),
        oracle=_floats(found.max(dim=-1).values),
        confidence=_floats(ious.gather(-1, best)[:, 0]),
        masks=tuple(encode(mask) for mask in selected),
    )


def _join(parts: Sequence[Answers]) -> Answers:
    return Answers(
        selected=np.concatenate([part.selected for part in parts]),
        oracle=np.concatenate([part.oracle for part in parts]),
        confidence=np.concatenate([part.confidence for part in parts]),
        masks=tuple(mask for part in parts for mask in part.masks),
    )


def _floats(values: Tensor) -> Floats:
    return values.cpu().numpy().astype(np.float64)
