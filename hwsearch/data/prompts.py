"""Prompts drawn from ground truth: boxes with noise, points inside a mask."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from hwsearch.data.dataset import Boxes, Instance, Mask
from hwsearch.errors import UsageError


def jitter_boxes(
    boxes: Boxes, rng: np.random.Generator, amount: float, frame: tuple[int, int]
) -> Boxes:
    """Move each edge of each box by up to `amount` times the box's side, uniformly.

    Args:
        boxes: float32 (n, 4), x0, y0, x1, y1 along pixel edges.
        rng: Source of the noise.
        amount: 0 leaves the boxes as they are; below 0.5, so that no box turns inside out.
        frame: Rows and columns of the image that the boxes are clipped to.

    Returns:
        float32 (n, 4); inside the frame.

    Raises:
        UsageError: `amount` is not in [0, 0.5).
    """
    if not 0 <= amount < 0.5:
        raise UsageError(f"Boxes can be jittered by 0 up to below 0.5 of their side, not {amount}.")
    height, width = frame
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    moved = boxes + rng.uniform(-amount, amount, size=boxes.shape) * sides
    limits = np.array([width, height, width, height], dtype=np.float32)
    return np.clip(moved, 0, limits).astype(np.float32)


def interior_point(mask: Mask) -> tuple[float, float]:
    """The pixel (x, y) of a bool (H, W) mask that is farthest from the mask's edge.

    Everything beyond the array counts as outside. The point is a pixel's index, as SAM takes it:
    its prompt encoder adds the half pixel to the centre.

    Raises:
        DataError: the mask is empty.
    """
    part = Instance.from_mask(mask)
    distance = ndimage.distance_transform_edt(np.pad(part.mask, 1))
    row, column = np.unravel_index(int(np.argmax(distance)), distance.shape)
    return float(part.x + column - 1), float(part.y + row - 1)


def random_point(mask: Mask, rng: np.random.Generator) -> tuple[float, float]:
    """A pixel (x, y) of a bool (H, W) mask, each equally likely; an index as in `interior_point`.

    Raises:
        DataError: the mask is empty.
    """
    part = Instance.from_mask(mask)
    inside = np.flatnonzero(part.mask)
    row, column = divmod(int(inside[rng.integers(inside.size)]), part.width)
    return float(part.x + column), float(part.y + row)
