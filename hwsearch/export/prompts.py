"""Point and box prompts in the form that the exported decoder takes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwsearch.errors import UsageError
from hwsearch.export.pixels import Size, fit_long_side

Floats = NDArray[np.float32]
POINT_LABELS = (-1, 0, 1)
PADDING_LABEL = -1
BOX_LABELS = (2, 3)


def encode_prompt(
    *,
    points: ArrayLike | None,
    labels: ArrayLike | None,
    box: ArrayLike | None,
    size: Size,
    resolution: int,
) -> tuple[Floats, Floats]:
    """One prompt of points, a box or both.

    Args:
        points: N×2 points, (x, y) in pixels of the original image.
        labels: N labels: 1 object, 0 background.
        box: x0, y0, x1, y1 in pixels of the original image.
        size: height and width of the original image.
        resolution: side of the input frame.

    Returns:
        1×K×2 points of the input frame and their 1×K labels; a prompt without a box ends with a
        padding point, as `SamPredictor` adds it.

    Raises:
        UsageError: neither points nor box, or arrays of another form.
    """
    if points is None and box is None:
        raise UsageError("There is nothing to segment: give points with labels, or a box.")
    coords, kinds = _check_points(points, labels)
    if box is None:
        coords = np.concatenate([to_frame(coords, size, resolution), np.zeros((1, 2))])
        kinds = np.append(kinds, PADDING_LABEL)
    else:
        corners = _check_boxes(np.atleast_2d(np.asarray(box, np.float64)), one=True)
        coords = to_frame(np.concatenate([coords, corners[0]]), size, resolution)
        kinds = np.append(kinds, BOX_LABELS)
    return coords.astype(np.float32)[None], kinds.astype(np.float32)[None]


def encode_boxes(boxes: ArrayLike, *, size: Size, resolution: int) -> tuple[Floats, Floats]:
    """Boxes (n×4: x0, y0, x1, y1 in pixels of the original image) as n prompts: n×2×2 and n×2.

    Raises:
        UsageError: the array has another form.
    """
    corners = _check_boxes(np.asarray(boxes, np.float64), one=False)
    coords = to_frame(corners, size, resolution).astype(np.float32)
    return coords, np.tile(np.array(BOX_LABELS, np.float32), (len(corners), 1))


def to_frame(coords: NDArray[np.float64], size: Size, resolution: int) -> NDArray[np.float64]:
    """Points (…×2) of the original image in pixels of the input frame."""
    height, width = fit_long_side(size, resolution)
    scale: NDArray[np.float64] = coords * np.array([width / size[1], height / size[0]])
    return scale


def _check_points(
    points: ArrayLike | None, labels: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if points is None:
        if labels is not None:
            raise UsageError("There are point labels without points: give both or neither.")
        return np.zeros((0, 2)), np.zeros(0)
    if labels is None:
        raise UsageError("Points need labels: 1 for the object, 0 for the background.")
    coords, kinds = np.asarray(points, np.float64), np.asarray(labels, np.float64)
    if coords.ndim != 2 or coords.shape[1] != 2 or kinds.shape != coords.shape[:1]:
        raise UsageError(
            f"Points of shape {coords.shape} with labels of shape {kinds.shape} can't be used: "
            "give N×2 points and N labels."
        )
    if not np.isin(kinds, POINT_LABELS).all():
        raise UsageError("A point label can be 1 (object), 0 (background) or -1 (no point).")
    if not np.isfinite(coords).all():
        raise UsageError("Points have to be finite numbers.")
    return coords, kinds


def _check_boxes(boxes: NDArray[np.float64], *, one: bool) -> NDArray[np.float64]:
    """The n×2×2 corners of n×4 boxes."""
    if boxes.ndim != 2 or boxes.shape[1] != 4 or (one and len(boxes) != 1):
        wanted = "four numbers" if one else "n×4 numbers"
        raise UsageError(
            f"Boxes of shape {boxes.shape} can't be used: give {wanted}, x0, y0, x1, y1."
        )
    if not np.isfinite(boxes).all():
        raise UsageError("Boxes have to be finite numbers.")
    return boxes.reshape(-1, 2, 2)
