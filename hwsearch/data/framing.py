"""What a model is shown of a sample: the whole image, or a window around one object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import sparse

from hwsearch.data.dataset import Boxes, Instance, Mask, Pixels, Sample
from hwsearch.errors import UsageError

# An instance joins a window if at least this share of its pixels lies inside.
MIN_SHARE_INSIDE = 0.8
# A jittered window moves by at most this share of the room that the object leaves in it.
_JITTER_SHARE = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A part of an image with n objects.

    Args:
        image: uint8 RGB (h, w, 3).
        masks: bool (n, h, w).
        boxes: float32 (n, 4), x0, y0, x1, y1 along the view's pixel edges.
    """

    image: Pixels
    masks: Mask
    boxes: Boxes


@dataclass(frozen=True, slots=True, eq=False)
class FittedView:
    """A view whose long side was brought to a model's resolution, not yet padded.

    Args:
        image: uint8 RGB (h', w', 3), max(h', w') = resolution.
        boxes: float32 (n, 4) in pixels of this image.
        scale: float32 (2,), the factors from the view's x and y to this image's.
        masks: bool (n, h, w) at the view's own size.
    """

    image: Pixels
    boxes: Boxes
    scale: Boxes
    masks: Mask


class _Window(NamedTuple):
    x0: int
    y0: int
    x1: int
    y1: int


def image_view(sample: Sample) -> View:
    """The whole image, with all its objects."""
    height, width = sample.image.shape[:2]
    return _view(sample, _Window(0, 0, width, height), sample.instances)


def object_view(
    sample: Sample,
    index: int,
    *,
    context: float,
    rng: np.random.Generator | None = None,
    min_side: int = 24,
    max_instances: int | None = 8,
) -> View:
    """A square window around one object, which comes first among the view's objects.

    The window's side is `context` times the longer side of the object's box. It is shifted to lie
    in the image, and clipped where the image is smaller. Other objects are included if at least
    80 % of their pixels lie inside; what sticks out is cut off.

    Args:
        sample: Image and objects.
        index: The object.
        context: Side of the window in units of the longer box side, at least 1.
        rng: Moves the window at random, the object staying inside, and draws which other objects
            are kept; without it, the object is centred and the first ones are kept.
        min_side: Smallest side of the window in pixels.
        max_instances: At most so many objects, the first included; None for all.

    Raises:
        UsageError: `context` is below 1.
    """
    if context < 1:
        raise UsageError(
            f"A context of {context} would cut the object; it has to be 1 or more, 2 shows as much "
            "around the object as the object is long."
        )
    chosen = sample.instances[index]
    side = max(int(np.ceil(context * max(chosen.width, chosen.height))), min_side)
    height, width = sample.image.shape[:2]
    x0, x1 = _span(chosen.x, chosen.width, side, width, rng)
    y0, y1 = _span(chosen.y, chosen.height, side, height, rng)
    window = _Window(x0, y0, x1, y1)
    others = [
        other
        for other, instance in enumerate(sample.instances)
        if instance is not chosen and _lies_inside(instance, window)
    ]
    room = None if max_instances is None else max(max_instances - 1, 0)
    kept = [sample.instances[other] for other in _choose(others, room, rng)]
    return _view(sample, window, [chosen, *kept])


def fit(view: View, resolution: int) -> FittedView:
    """Bring the long side to `resolution` pixels, as SAM's `ResizeLongestSide` does.

    The short side is rounded half up, pixels are resampled by Pillow's antialiased bilinear
    filter, and boxes are scaled by the sides' exact factors. Padding on the right and below is
    left to the model, since it follows normalisation.
    """
    height, width = view.image.shape[:2]
    new_height, new_width = fitted_size(height, width, resolution)
    resized = Image.fromarray(view.image).resize((new_width, new_height), Image.Resampling.BILINEAR)
    scale = np.array([new_width / width, new_height / height], dtype=np.float32)
    return FittedView(
        image=np.asarray(resized),
        boxes=view.boxes * np.tile(scale, 2),
        scale=scale,
        masks=view.masks,
    )


def fitted_size(height: int, width: int, resolution: int) -> tuple[int, int]:
    """Rows and columns once the long side is `resolution` (`get_preprocess_shape` in SAM)."""
    scale = resolution / max(height, width)
    return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)


def low_res_masks(view: View, resolution: int, size: int) -> NDArray[np.float32]:
    """The masks as a training loss wants them: on the padded frame, averaged into coarse cells.

    Args:
        view: A view with n objects, before `fit`.
        resolution: Side of the model's padded input in pixels.
        size: Cells a side; SAM's decoder gives resolution / 4.

    Returns:
        float32 (n, size, size): the share of each cell that the object covers, 0 in the padding.
    """
    count, height, width = view.masks.shape
    new_height, new_width = fitted_size(height, width, resolution)
    rows = _averaging(height, new_height, resolution, size)
    columns = _averaging(width, new_width, resolution, size)
    averaged = np.empty((count, size, size), dtype=np.float32)
    for mask, out in zip(view.masks, averaged, strict=True):
        out[:] = (columns @ (rows @ mask.astype(np.float32)).T).T
    return averaged


@lru_cache(maxsize=256)
def _averaging(length: int, new_length: int, resolution: int, size: int) -> sparse.csr_array:
    """The (size, length) matrix that averages pixels of a side into the frame's cells.

    Entry (k, p) is the length of the overlap of pixel p with cell k, over the length of the cell.
    """
    cell = resolution / size * length / new_length
    edges = np.arange(size + 1) * cell
    pixels = np.arange(length)
    first, last = edges[:-1, None], edges[1:, None]
    overlap = np.minimum(last, pixels + 1) - np.maximum(first, pixels)
    return sparse.csr_array((overlap.clip(min=0) / cell).astype(np.float32))


def _choose(
    indices: Sequence[int], limit: int | None, rng: np.random.Generator | None
) -> Sequence[int]:
    if limit is None or len(indices) <= limit:
        return indices
    if rng is None:
        return indices[:limit]
    return [indices[place] for place in rng.permutation(len(indices))[:limit]]


def _span(
    start: int, length: int, side: int, limit: int, rng: np.random.Generator | None
) -> tuple[int, int]:
    """First and past-the-last pixel of the window along one axis of `limit` pixels."""
    if side >= limit:
        return 0, limit
    room = side - length
    share = 0.5 if rng is None else 0.5 + _JITTER_SHARE * rng.uniform(-0.5, 0.5)
    begin = min(max(start - round(room * share), 0), limit - side)
    return begin, begin + side


def _lies_inside(instance: Instance, window: _Window) -> bool:
    left, top = max(window.x0 - instance.x, 0), max(window.y0 - instance.y, 0)
    right = min(window.x1 - instance.x, instance.width)
    bottom = min(window.y1 - instance.y, instance.height)
    if right <= left or bottom <= top:
        return False
    if (right - left, bottom - top) == (instance.width, instance.height):
        return True
    inside = np.count_nonzero(instance.mask[top:bottom, left:right])
    return bool(inside >= MIN_SHARE_INSIDE * instance.area)


def _view(sample: Sample, window: _Window, instances: Sequence[Instance]) -> View:
    height, width = window.y1 - window.y0, window.x1 - window.x0
    masks = np.zeros((len(instances), height, width), dtype=bool)
    boxes = np.empty((len(instances), 4), dtype=np.float32)
    for number, instance in enumerate(instances):
        part = _cut(instance, window)
        masks[number, part.y : part.y + part.height, part.x : part.x + part.width] = part.mask
        boxes[number] = part.box
    image = np.ascontiguousarray(sample.image[window.y0 : window.y1, window.x0 : window.x1])
    return View(image=image, masks=masks, boxes=boxes)


def _cut(instance: Instance, window: _Window) -> Instance:
    """The instance in the window's coordinates, without what sticks out."""
    x, y = instance.x - window.x0, instance.y - window.y0
    left, top = max(-x, 0), max(-y, 0)
    right, bottom = window.x1 - instance.x, window.y1 - instance.y
    if left == top == 0 and right >= instance.width and bottom >= instance.height:
        return Instance(x=x, y=y, mask=instance.mask, category=instance.category)
    inside = instance.mask[top:bottom, left:right]
    return Instance.from_mask(inside, x=x + left, y=y + top, category=instance.category)
