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
    original size. Both steps are linear and work on rows and columns apart, so they are
    one matrix for the rows and one for the columns.
    """
    rows, columns = (
        _interpolation(inner, side) @ _interpolation(low, resolution)[:inner]
        for low, inner, side in zip(
            low_res.shape[-2:], fit_long_side(size, resolution), size, strict=True
        )
    )
    upscaled: Floats = rows @ low_res @ columns.T
    return upscaled


def _interpolation(length: int, new_length: int) -> Floats:
    """The new_length×length matrix of bilinear interpolation along one axis.

    `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`, with its float32
    arithmetic for the places.
    """
    scale = np.float32(length / new_length)
    places = np.maximum(scale * (np.arange(new_length, dtype=np.float32) + 0.5) - 0.5, 0)
    left = np.minimum(places.astype(np.int64), length - 1)
    right = np.minimum(left + 1, length - 1)
    share = (places - left).astype(np.float32)
    matrix = np.zeros((new_length, length), np.float32)
    index = np.arange(new_length)
    matrix[index, left] += 1 - share
    matrix[index, right] += share
    return matrix
