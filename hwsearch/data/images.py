"""Reading an image file into RGB pixels."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps

from hwsearch.data.dataset import Pixels
from hwsearch.errors import DataError

# Pillow's conversion of these to RGB clips at 255, which would turn a picture white in silence.
_DEEP_MODES = frozenset({"I", "F", "I;16", "I;16B", "I;16L", "I;16N"})
_DEEP_RAW_MODE = re.compile(r"(?<!BGR);16")  # as in RGB;16B; of BGR;16 a pixel has 16 bits


def read_rgb(path: Path, *, width: int, height: int) -> Pixels:
    """Read an image as uint8 (height, width, 3), whatever its colour mode.

    An EXIF orientation is applied, unless only the image as stored has the annotated size: then
    the annotations were made on the stored pixels.

    Raises:
        DataError: the file can't be read, has more than 8 bits a channel, or has another size.
    """
    try:
        with Image.open(path) as image:
            _refuse_deep(image, path)
            upright = ImageOps.exif_transpose(image)
            chosen = upright if upright.size == (width, height) else image
            if chosen.size != (width, height):
                raise DataError(
                    f"Image {path} is {chosen.width}x{chosen.height} pixels, but its annotation "
                    f"says {width}x{height}; correct the annotation or the image."
                )
            return np.asarray(chosen.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"Image {path} can't be read ({error}); replace it.") from error


def _refuse_deep(image: ImageFile.ImageFile, path: Path) -> None:
    # Of deep colours Pillow keeps the high bytes, and its mode is that of shallow ones: 12 bits
    # in 16 would turn black. The raw mode that its decoder was set up for still tells.
    if image.mode in _DEEP_MODES or _DEEP_RAW_MODE.search(str(image.tile)):
        raise DataError(
            f"Image {path} has more than 8 bits a channel; convert it to 8 bits a channel first."
        )
