"""COCO segmentations, polygons or run-length encodings, read and written through pycocotools."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from pycocotools import mask as coco_mask

from hwsearch.data.dataset import Instance, Mask
from hwsearch.errors import DataError

# What pycocotools calls an RLE: {"size": [height, width], "counts": bytes}.
Rle: TypeAlias = dict[str, Any]
Segmentation: TypeAlias = "list[list[float]] | Rle"

# A polygon that is narrower than this on average may fall between the pixels and cover none.
_THIN_PIXELS = 2.0


def check_segmentation(raw: object, *, height: int, width: int, where: str) -> Segmentation:
    """Check a COCO segmentation against its image without rasterising it.

    Args:
        raw: List of polygons, compressed RLE, or uncompressed RLE, as the JSON has it.
        height: Rows of the image.
        width: Columns of the image.
        where: Names the annotation in error messages.

    Returns:
        The polygons as they came, or a compressed RLE.

    Raises:
        DataError: it is missing, empty, of another size, or of no known form.
    """
    if isinstance(raw, list) and raw:
        return _check_polygons(raw, where)
    if isinstance(raw, Mapping) and raw:
        return _check_runs(raw, height, width, where)
    raise DataError(
        f"{where} has no segmentation; each annotation needs a list of polygons or an RLE."
    )


def is_invisible(segmentation: Segmentation, *, height: int, width: int) -> bool:
    """Whether these are polygons that cover no pixel of the image: too thin, or outside of it.

    COCO 2017 itself has a few. Only those that may are rasterised: its file has 860,000.
    """
    if isinstance(segmentation, dict):
        return False
    if not all(_may_be_invisible(polygon, height, width) for polygon in segmentation):
        return False
    return not coco_mask.area(_rasterised(segmentation, height, width))


def to_instance(
    segmentation: Segmentation,
    *,
    height: int,
    width: int,
    where: str,
    category: int | None = None,
) -> Instance:
    """Decode a checked segmentation into a mask cropped to its bounding box.

    Raises:
        DataError: the mask is empty, or its runs don't add up to the image.
    """
    rle = segmentation
    if not isinstance(rle, dict):
        rle = _rasterised(rle, height, width)
    area = int(coco_mask.area(rle))
    if not area:
        raise DataError(f"{where} has a mask that covers no pixel; leave the annotation out.")
    try:
        mask: Mask = coco_mask.decode(rle).view(np.bool_)
    except ValueError as error:
        raise DataError(f"{where} has an RLE that can't be decoded ({error}).") from error
    # Where runs fall short of the image, pycocotools leaves the rest of the mask uninitialised.
    if np.count_nonzero(mask) != area:
        raise DataError(f"{where} has an RLE whose runs don't add up to {height}x{width} pixels.")
    x, y, w, h = (int(value) for value in coco_mask.toBbox(rle))
    return Instance(
        x=x, y=y, mask=np.ascontiguousarray(mask[y : y + h, x : x + w]), category=category
    )


def encode(mask: Mask) -> dict[str, object]:
    """Compressed RLE of a bool (H, W) mask, ready for JSON."""
    rle: Rle = coco_mask.encode(np.asfortranarray(mask.view(np.uint8)))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def _rasterised(polygons: list[list[float]], height: int, width: int) -> Rle:
    rle: Rle = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    return rle


def _may_be_invisible(polygon: list[float], height: int, width: int) -> bool:
    """Whether it reaches out of the image, or its area over its length is less than two pixels."""
    xs, ys = polygon[::2], polygon[1::2]
    left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
    if left < 0 or top < 0 or right > width or bottom > height:
        return True
    # Twice the area (the shoelace formula), in what is fastest for a dozen numbers.
    falling: float = sum(map(operator.mul, xs, ys[1:] + ys[:1]))
    rising: float = sum(map(operator.mul, ys, xs[1:] + xs[:1]))
    return abs(falling - rising) < 2 * _THIN_PIXELS * max(right - left, bottom - top, _THIN_PIXELS)


def _check_polygons(polygons: list[Any], where: str) -> list[list[float]]:
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise DataError(
                f"{where} has a polygon that is no flat list of at least three x, y pairs; "
                "correct it or leave the annotation out."
            )
        if not all(map(_is_coordinate, polygon)):
            raise DataError(f"{where} has a polygon with a coordinate that is no number of pixels.")
    return polygons


def _is_coordinate(value: object) -> bool:
    # Beyond this, pycocotools' rasteriser would run out of memory; it also keeps out NaN.
    return isinstance(value, int | float) and abs(value) < 1e5


def _check_runs(raw: Mapping[str, Any], height: int, width: int, where: str) -> Rle:
    size, counts = raw.get("size"), raw.get("counts")
    if size != [height, width]:
        raise DataError(
            f"{where} has a mask of size {size}, but its image is {height} rows by {width} columns."
        )
    if isinstance(counts, list):
        counts = _compressed(counts, height, width, where)
    if not isinstance(counts, str) or not counts.isascii():
        raise DataError(f"{where} has an RLE without readable counts; correct it or leave it out.")
    rle = {"size": size, "counts": counts.encode()}
    if not coco_mask.area(rle):
        raise DataError(f"{where} has an empty mask; leave the annotation out.")
    return rle


def _compressed(counts: list[Any], height: int, width: int, where: str) -> str:
    if not all(isinstance(run, int) and run >= 0 for run in counts):
        raise DataError(f"{where} has runs that are not whole numbers of pixels.")
    if sum(counts) != height * width:
        raise DataError(f"{where} has runs of {sum(counts)} pixels in all, not {height}x{width}.")
    rle: Rle = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    text: str = rle["counts"].decode("ascii")
    return text
