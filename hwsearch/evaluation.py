"""Accuracy of a model on a data set: box-prompted mIoU with the mask that predicted IoU selects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import Sam
from torch import Tensor
from torch.nn import functional as F

from hwsearch.data.dataset import Dataset
from hwsearch.data.framing import FittedView, View, fit, image_view, object_view
from hwsearch.errors import DataError
from hwsearch.progress import Progress, SilentProgress
from hwsearch.records import Accuracy, Framing, short_digest
from hwsearch.sam import decode, normalise

OBJECT_CONTEXT = 3.0
# COCO's bounds between small, medium and large objects, in pixels of area.
SIZE_BOUNDS = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 10**12)}


@dataclass(frozen=True)
class EvaluationSet:
    """Views of a data set, fixed once, on which models are compared.

    `framing` "image": each view is a whole image with its objects. "object": each view is a
    square window around one object, three times as wide as the object.
    """

    views: tuple[View, ...]
    data: str
    split: str
    framing: Framing
    fingerprint: str

    @property
    def instances(self) -> int:
        """How many masks are compared."""
        return sum(len(view.masks) for view in self.views)


def evaluation_set(
    dataset: Dataset,
    *,
    framing: Framing,
    max_views: int | None = None,
    max_prompts: int = 16,
    seed: int = 0,
) -> EvaluationSet:
    """Choose what models will be compared on.

    Args:
        dataset: images with masks.
        framing: whole images, or a window around each object.
        max_views: at most so many views: whole images or single objects, drawn evenly over images.
        max_prompts: at most so many objects of one whole image.
        seed: source of the draw.

    Raises:
        DataError: the data set holds no object.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(dataset))
    views = (
        _image_views(dataset, order[:max_views], max_prompts, rng)
        if framing == "image"
        else _object_views(dataset, order, max_views, rng)
    )
    if not views:
        raise DataError(f"{dataset.name} ({dataset.split}) holds no object to evaluate on.")
    parts = [dataset.fingerprint, framing, max_views, max_prompts, seed]
    return EvaluationSet(
        views=tuple(views),
        data=dataset.name,
        split=dataset.split,
        framing=framing,
        fingerprint=short_digest("/".join(map(str, parts))),
    )


def _image_views(
    dataset: Dataset, order: NDArray[np.int64], max_prompts: int, rng: np.random.Generator
) -> list[View]:
    samples = (dataset[int(index)] for index in order)
    return [
        image_view(sample, max_instances=max_prompts, rng=rng)
        for sample in samples
        if sample.instances
    ]


def _object_views(
    dataset: Dataset,
    order: NDArray[np.int64],
    max_views: int | None,
    rng: np.random.Generator,
) -> list[View]:
    """One object of each image, then a second one of each, until there are enough.

    Images are read only as far as they are needed, since a data set may have thousands.
    """
    most = math.inf if max_views is None else max_views
    left: dict[int, list[int]] = {}
    chosen: list[tuple[int, int]] = []
    for index in order.tolist():
        if len(chosen) >= most:
            break
        objects = rng.permutation(len(dataset[index].instances)).tolist()
        if objects:
            chosen.append((index, objects.pop()))
            left[index] = objects
    while len(chosen) < most and any(left.values()):
        chosen += [(index, objects.pop()) for index, objects in left.items() if objects]
    views = [
        object_view(dataset[image], instance, context=OBJECT_CONTEXT)
        for image, instance in sorted(chosen[:max_views])
    ]
    return [View(view.image, view.masks[:1], view.boxes[:1]) for view in views]


def evaluate(
    sam: Sam,
    chosen: EvaluationSet,
    *,
    batch: int | None = None,
    progress: Progress | None = None,
) -> Accuracy:
    """Mean IoU over all instances, each prompted by its ground-truth box.

    `miou` takes the multi-mask output of the highest predicted IoU, `miou_oracle` the best of
    them by ground truth. Masks are compared at the resolution of the view.

    Args:
        sam: a plain model, such as an extracted subnet.
        chosen: what to evaluate on.
        batch: images encoded at once; None for as many as `default_batch` says.
        progress: who shows the images.
    """
    progress = progress or SilentProgress()
    resolution = sam.image_encoder.img_size
    batch = batch or default_batch(resolution)
    selected: list[float] = []
    oracle: list[float] = []
    areas: list[int] = []
    with progress.task("evaluating", len(chosen.views)) as advance, torch.inference_mode():
        for start in range(0, len(chosen.views), batch):
            views = chosen.views[start : start + batch]
            fitted = [fit(view, resolution) for view in views]
            logits, ious = _predict(sam, fitted, resolution)
            for place, (view, frame) in enumerate(zip(views, fitted, strict=True)):
                count = len(view.masks)
                overlaps = _overlaps(logits[place, :count], view, frame, resolution)
                best = ious[place, :count].argmax(dim=-1, keepdim=True)
                selected += overlaps.gather(-1, best)[:, 0].tolist()
                oracle += overlaps.max(dim=-1).values.tolist()
                areas += view.masks.sum(axis=(1, 2)).tolist()
            advance(len(views))
    return Accuracy(
        miou=float(np.mean(selected)),
        miou_oracle=float(np.mean(oracle)),
        instances=len(selected),
        images=len(chosen.views),
        data=chosen.data,
        split=chosen.split,
        framing=chosen.framing,
        miou_by_size=_by_size(selected, areas),
    )


def default_batch(resolution: int) -> int:
    """Images at once: 8 at 256 px, 1 at 1024 px, where one global attention map has 0.8 GB."""
    return max(1, 8 * 256**2 // resolution**2)


def box_floor(chosen: EvaluationSet) -> float:
    """Mean IoU of the prompt itself: the filled box taken as the mask."""
    ious = []
    for view in chosen.views:
        for mask, (x0, y0, x1, y1) in zip(view.masks, np.rint(view.boxes).astype(int), strict=True):
            inside = mask[y0:y1, x0:x1].sum()
            ious.append(inside / ((y1 - y0) * (x1 - x0) + mask.sum() - inside))
    return float(np.mean(ious))


def _predict(sam: Sam, fitted: Sequence[FittedView], resolution: int) -> tuple[Tensor, Tensor]:
    """Multi-mask logits (B×P×3×S×S) and predicted IoUs (B×P×3) of box-prompted views."""
    prompts = max(len(frame.boxes) for frame in fitted)
    images = torch.zeros(len(fitted), 3, resolution, resolution)
    points = torch.zeros(len(fitted), prompts, 2, 2)
    for place, frame in enumerate(fitted):
        height, width = frame.image.shape[:2]
        pixels = torch.tensor(frame.image).permute(2, 0, 1)
        images[place, :, :height, :width] = normalise(sam, pixels)
        points[place, : len(frame.boxes)] = torch.from_numpy(frame.boxes).view(-1, 2, 2)
    labels = torch.tensor([2, 3]).expand(len(fitted), prompts, 2)
    logits, ious = decode(sam, sam.image_encoder(images), points, labels)
    return logits[:, :, 1:], ious[:, :, 1:]


def _overlaps(logits: Tensor, view: View, frame: FittedView, resolution: int) -> Tensor:
    """IoU (P×3) of each predicted mask, brought to the view's size, with the true one."""
    height, width = frame.image.shape[:2]
    upscaled = F.interpolate(logits, (resolution, resolution), mode="bilinear")
    restored = F.interpolate(upscaled[..., :height, :width], view.image.shape[:2], mode="bilinear")
    predicted = (restored > 0).flatten(2)
    truth = torch.from_numpy(view.masks).flatten(1).unsqueeze(1)
    overlap = (predicted & truth).sum(dim=-1)
    return overlap / (predicted | truth).sum(dim=-1).clamp(min=1)


def _by_size(ious: list[float], areas: list[int]) -> dict[str, float]:
    values, sizes = np.array(ious), np.array(areas)
    groups = {
        name: values[(sizes >= low) & (sizes < high)] for name, (low, high) in SIZE_BOUNDS.items()
    }
    return {name: float(group.mean()) for name, group in groups.items() if len(group)}
