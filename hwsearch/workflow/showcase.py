"""Pictures of a bundle's masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hwsearch.data.framing import View
from hwsearch.data.scenes.photographs import showcase
from hwsearch.export.load import Bundle
from hwsearch.files import replace_file
from hwsearch.report.overlay import draw_overlay


def best_masks(
    bundle: Bundle, image: NDArray[np.uint8], boxes: NDArray[np.float32]
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """The mask of each box that the bundle itself rates best, and that rating.

    Args:
        bundle: an open bundle.
        image: H×W×3 uint8 RGB.
        boxes: n×4, x0, y0, x1, y1 in pixels.

    Returns:
        n×H×W masks and n predicted IoUs.
    """
    bundle.set_image(image)
    masks, ious, _ = bundle.predict_boxes(boxes)
    best = ious.argmax(axis=1)
    rows = np.arange(len(boxes))
    return masks[rows, best].astype(bool), ious[rows, best]


def draw_showcase(bundle: Bundle, folder: Path) -> list[Path]:
    """Masks on photographs that nothing was composed into: coins, cat, coffee cup, rocket."""
    return [
        _draw(bundle, photograph.image, photograph.boxes, folder / f"{photograph.name}.png")
        for photograph in showcase()
    ]


def draw_views(bundle: Bundle, views: Sequence[View], folder: Path, name: str) -> list[Path]:
    """Masks on views of a data set, prompted by their ground-truth boxes."""
    return [
        _draw(bundle, view.image, view.boxes, folder / f"{name}_{number}.png")
        for number, view in enumerate(views)
    ]


def _draw(bundle: Bundle, image: NDArray[np.uint8], boxes: NDArray[np.float32], path: Path) -> Path:
    masks, _ = best_masks(bundle, image, boxes)
    write_png(path, draw_overlay(image, masks, boxes))
    return path


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an RGB image in one rename."""
    with replace_file(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG")
