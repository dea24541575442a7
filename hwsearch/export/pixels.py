"""Images in and masks out in NumPy, equal to what SamPredictor does with torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hwsearch.errors import UsageError
from hwsearch.export.manifest import Preprocessing

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Size = tuple[int, int]


def check_image(image: Pixels) -> None:
    """Do nothing if `image` is an H×W×3 uint8 array with pixels in it.

    Raises:
        UsageError: it is not.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise UsageError(
            f"An image of shape {image.shape} and type {image.dtype} can't be used: give H×W×3 "
            "uint8 pixels."
        )


def fit_long_side(size: Size, resolution: int) -> Size:
    """Height and width of an image whose long side becomes `resolution` pixels."""
    scale = resolution / max(size)
    height, width = (max(1, int(side * scale + 0.5)) for side in size)
    return height, width


def preprocess(image: Pixels, how: Preprocessing) -> Floats:
    """H×W×3 RGB pixels to the encoder's input, 1×3×R×R."""
    height, width = fit_long_side((image.shape[0], image.shape[1]), how.resolution)
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    mean, std = (np.array(values, np.float32) for values in (how.pixel_mean, how.pixel_std))
    frame = np.zeros((1, 3, how.resolution, how.resolution), np.float32)
    frame[0, :, :height, :width] = ((np.asarray(resized) - mean) / std).transpose(2, 0, 1)
    return frame


def upscale_masks(low_res: Floats, *, resolution: int, size: Size) -> Floats:
    """Low-resolution logits (…×4G×4G) to logits of the original image (…×H×W).

    As `Sam.postprocess_masks`: bilinear to the input frame, padding cut off, bilinear to the
    original size.
    """
    height, width = fit_long_side(size, resolution)
    frame = _interpolate(low_res, -2, resolution, keep=height)
    frame = _interpolate(frame, -1, resolution, keep=width)
    return _interpolate(_interpolate(frame, -2, size[0]), -1, size[1])


def _interpolate(values: Floats, axis: int, length: int, *, keep: int | None = None) -> Floats:
    """Linear interpolation along one axis to `length` places, of which the first `keep` are made.

    Rows and columns one after the other are `torch.nn.functional.interpolate(mode="bilinear",
    align_corners=False)`, with its float32 arithmetic for the places. Products of matrices would
    be shorter, but BLAS threads cost 100 ms where the cores are busy.
    """
    old_length = values.shape[axis]
    scale = np.float32(old_length / length)
    places = np.arange(keep or length, dtype=np.float32)
    places = np.maximum(scale * (places + np.float32(0.5)) - np.float32(0.5), 0)
    left = np.minimum(places.astype(np.int64), old_length - 1)
    share = places - left.astype(np.float32)
    if axis == -2:
        share = share[:, None]
    start: Floats = values.take(left, axis)
    change = values.take(np.minimum(left + 1, old_length - 1), axis)
    change -= start
    change *= share
    start += change
    return start
