"""Training batches: several data sets sampled evenly, cropped around objects, as tensors."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import data

from hwsearch.data.dataset import Boxes, Dataset
from hwsearch.data.framing import View, fit, image_view, low_res_masks, object_view
from hwsearch.data.prompts import jitter_boxes, random_point
from hwsearch.errors import DataError, HwsearchError, UsageError
from hwsearch.sam import PIXEL_MEAN, PIXEL_STD

MOST_DRAWS = 500
_MEAN, _STD = np.array(PIXEL_MEAN, np.float32), np.array(PIXEL_STD, np.float32)


@dataclass(frozen=True)
class BatchSettings:
    """What a batch holds.

    `context` bounds the side of the window around an object, in units of the object's longer
    side. `min_object` is the least side of an object, in pixels of the model's input.
    """

    images: int = 8
    prompts: int = 4
    context: tuple[float, float] = (1.5, 5.0)
    whole_image_share: float = 0.2
    point_share: float = 0.2
    box_jitter: float = 0.05
    min_object: float = 20.0


@dataclass(frozen=True)
class TrainingBatch:
    """Tensors of one step: B images with P prompts each.

    `images` B×3×R×R normalised and padded; `points` B×P×2×2 in pixels of the input frame (a box
    as its corners, a click with a padding point) with `labels` B×P×2; `masks` B×P×S×S soft masks
    on the padded frame; `present` B×P, False where a prompt only fills up; `extents` B×2, the
    shares of the frame's height and width that are picture, the rest being padding.
    """

    images: Tensor
    points: Tensor
    labels: Tensor
    masks: Tensor
    present: Tensor
    extents: Tensor

    def to(self, device: torch.device) -> TrainingBatch:
        """The same batch on a device."""
        return TrainingBatch(
            **{field.name: getattr(self, field.name).to(device) for field in fields(self)}
        )


def training_batches(
    datasets: Sequence[Dataset],
    *,
    resolution: int,
    mask_size: int,
    settings: BatchSettings,
    seed: int,
    start: int,
    stop: int,
    workers: int = 0,
) -> Iterator[TrainingBatch]:
    """Batches of the steps `start` … `stop` − 1, prepared while earlier ones are in use.

    A batch depends only on the seed and its step, so a resumed run sees what it would have seen,
    whatever the number of workers.

    Args:
        datasets: drawn from evenly.
        resolution: side of the input frame in pixels.
        mask_size: side of the soft masks in cells.
        settings: what a batch holds.
        seed: of all draws.
        start: the first step.
        stop: the step after the last.
        workers: processes that prepare batches, each with caches of its own, and with two batches
            waiting in shared memory; 0 for one thread.

    Raises:
        DataError: an image can't be read, or no object is large enough.
        UsageError: fewer than no workers.
    """
    if workers < 0:
        raise UsageError(f"{workers} processes can't prepare batches: take 0 or more.")
    batches = _StepBatches(datasets, resolution, mask_size, settings, seed)
    for batch in _in_turn(batches, range(start, stop), workers):
        if isinstance(batch, HwsearchError):
            raise batch
        yield batch


def _in_turn(
    batches: _StepBatches, steps: range, workers: int
) -> Iterator[TrainingBatch | HwsearchError]:
    if workers:
        yield from data.DataLoader(
            batches,
            batch_size=None,
            sampler=steps,
            num_workers=workers,
            worker_init_fn=_leave_interrupts_to_the_main_process,
        )
        return
    with ThreadPoolExecutor(1) as pool:
        upcoming = [pool.submit(batches.__getitem__, step) for step in steps[:1]]
        for step in steps:
            batch = upcoming.pop().result()
            if step + 1 in steps:
                upcoming.append(pool.submit(batches.__getitem__, step + 1))
            yield batch


def _leave_interrupts_to_the_main_process(_number: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@dataclass(frozen=True)
class _StepBatches(data.Dataset["TrainingBatch | HwsearchError"]):
    """The batch of each step, as a data loader's workers ask for it.

    An error is handed over as it is: raised in a worker, it would arrive within a traceback.
    """

    datasets: Sequence[Dataset]
    resolution: int
    mask_size: int
    settings: BatchSettings
    seed: int

    def __getitem__(self, step: int) -> TrainingBatch | HwsearchError:
        rng = np.random.default_rng([self.seed, step])
        try:
            return compose_batch(self.datasets, self.resolution, self.mask_size, self.settings, rng)
        except HwsearchError as error:
            return error


def compose_batch(
    datasets: Sequence[Dataset],
    resolution: int,
    mask_size: int,
    settings: BatchSettings,
    rng: np.random.Generator,
) -> TrainingBatch:
    """Draw data set, image and object evenly, in this order, until the batch is full."""
    size = (settings.images, settings.prompts)
    images = np.zeros((settings.images, 3, resolution, resolution), np.float32)
    points = np.zeros((*size, 2, 2), np.float32)
    labels = np.full((*size, 2), -1, np.int64)
    masks = np.zeros((*size, mask_size, mask_size), np.float32)
    present = np.zeros(size, bool)
    extents = np.zeros((settings.images, 2), np.float32)
    for place in range(settings.images):
        view = _flipped(_draw_view(datasets, resolution, settings, rng), rng)
        fitted = fit(view, resolution)
        height, width = fitted.image.shape[:2]
        pixels = (fitted.image.astype(np.float32) - _MEAN) / _STD
        images[place, :, :height, :width] = pixels.transpose(2, 0, 1)
        extents[place] = height / resolution, width / resolution
        count = len(view.masks)
        masks[place, :count] = low_res_masks(view, resolution, mask_size)
        present[place, :count] = True
        frame = view.image.shape[0], view.image.shape[1]
        boxes = jitter_boxes(view.boxes, rng, settings.box_jitter, frame)
        for prompt in range(count):
            if rng.random() < settings.point_share:
                points[place, prompt, 0] = random_point(view.masks[prompt], rng)
                labels[place, prompt, 0] = 1
            else:
                points[place, prompt] = boxes[prompt].reshape(2, 2)
                labels[place, prompt] = (2, 3)
        points[place] *= fitted.scale
    return TrainingBatch(
        images=torch.from_numpy(images),
        points=torch.from_numpy(points),
        labels=torch.from_numpy(labels),
        masks=torch.from_numpy(masks),
        present=torch.from_numpy(present),
        extents=torch.from_numpy(extents),
    )


def _draw_view(
    datasets: Sequence[Dataset],
    resolution: int,
    settings: BatchSettings,
    rng: np.random.Generator,
) -> View:
    dataset = datasets[int(rng.integers(len(datasets)))]
    for _ in range(MOST_DRAWS):
        sample = dataset[int(rng.integers(len(dataset)))]
        if rng.random() < settings.whole_image_share:
            # Only what is kept is painted: an image of SA-1B has a hundred masks.
            boxes = np.array([instance.box for instance in sample.instances])
            chosen = _prompted(boxes, sample.image.shape, resolution, settings, rng)
            if chosen.size:
                kept = tuple(sample.instances[place] for place in chosen)
                return image_view(replace(sample, instances=kept))
        else:
            index = int(rng.integers(len(sample.instances)))
            context = rng.uniform(*settings.context)
            view = object_view(sample, index, context=context, rng=rng)
            chosen = _prompted(view.boxes, view.image.shape, resolution, settings, rng)
            if chosen.size:
                return View(view.image, view.masks[chosen], view.boxes[chosen])
    raise DataError(
        f"In {MOST_DRAWS} draws from {dataset.name} no object had {settings.min_object:g} pixels a "
        f"side at {resolution} px: it can't be trained on as it is shown."
    )


def _prompted(
    boxes: Boxes,
    shape: Sequence[int],
    resolution: int,
    settings: BatchSettings,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Places of the objects that are shown: large enough ones, as many as there are prompts."""
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1) * (resolution / max(shape[:2]))
    large = np.flatnonzero(sides >= settings.min_object)
    if len(large) > settings.prompts:
        return rng.choice(large, settings.prompts, replace=False)
    return large


def _flipped(view: View, rng: np.random.Generator) -> View:
    image, masks, boxes = view.image, view.masks, view.boxes
    height, width = image.shape[:2]
    if rng.random() < 0.5:
        image, masks = image[:, ::-1], masks[:, :, ::-1]
        boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)
    if rng.random() < 0.5:
        image, masks = image[::-1], masks[:, ::-1]
        boxes = np.stack([boxes[:, 0], height - boxes[:, 3], boxes[:, 2], height - boxes[:, 1]], 1)
    return View(image, masks, boxes)
