"""Masks and boxes drawn over an image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import binary_erosion

from hwsearch.errors import UsageError

# Okabe and Ito's colours, told apart with any colour vision (jfly.uni-koeln.de/color).
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0))
OPACITY = 0.45


def draw_overlay(
    image: NDArray[np.uint8], masks: NDArray[np.bool_], boxes: NDArray[np.floating]
) -> NDArray[np.uint8]:
    """A copy of the image with translucent masks, their outlines and boxes, a colour each.

    Args:
        image: (H, W, 3) RGB.
        masks: (N, H, W), true inside.
        boxes: (N, 4) or (0, 4): left, top, right, bottom in pixels; as many as masks, or none.

    Raises:
        UsageError: the shapes don't belong together.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise UsageError(
            f"An overlay needs an RGB image of shape (H, W, 3) and type uint8, "
            f"not {image.shape} of {image.dtype}."
        )
    if masks.ndim != 3 or masks.shape[1:] != image.shape[:2]:
        raise UsageError(
            f"Masks of shape {masks.shape} don't fit an image of {image.shape[:2]}: "
            "give (N, H, W) of the image's own size."
        )
    if boxes.ndim != 2 or boxes.shape[1] != 4 or len(boxes) not in (0, len(masks)):
        raise UsageError(
            f"Boxes of shape {boxes.shape} don't fit {len(masks)} masks: give (N, 4) or (0, 4)."
        )
    canvas = image.astype(np.float32)
    for number, mask in enumerate(masks.astype(bool)):
        colour = np.array(_colour(number), dtype=np.float32)
        canvas[mask] = (1 - OPACITY) * canvas[mask] + OPACITY * colour
        canvas[mask & ~binary_erosion(mask)] = colour
    picture = Image.fromarray(canvas.round().astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    width = max(1, round(min(picture.size) / 300))
    for number, box in enumerate(boxes.tolist()):
        left, top, right, bottom = box
        pen.rectangle((left, top, right, bottom), outline=_colour(number), width=width)
    return np.asarray(picture)


def _colour(number: int) -> tuple[int, int, int]:
    return COLOURS[number % len(COLOURS)]
