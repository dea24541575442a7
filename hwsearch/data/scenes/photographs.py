"""The photographs that come with scikit-image and scikit-learn, one split for each.

Only files inside the two wheels are used. A photograph belongs to one split, so that nothing seen
in training turns up in validation or test.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

import numpy as np
from PIL import Image

from hwsearch.data.dataset import Boxes, Pixels, Split
from hwsearch.errors import DataError, UsageError

_SKIMAGE = ("skimage", "data")
_SKLEARN = ("sklearn.datasets", "images")


@dataclass(frozen=True, slots=True)
class Photograph:
    """A photograph: the package and folder that ship its file, and the split it belongs to."""

    name: str
    split: Split
    file: str
    home: tuple[str, str] = _SKIMAGE


# motorcycle_right, the other half of a stereo pair, is left out; so are drawings and scans of them.
PHOTOGRAPHS = (
    Photograph("astronaut", "train", "astronaut.png"),
    Photograph("brick", "train", "brick.png"),
    Photograph("cell", "train", "cell.png"),
    Photograph("china", "train", "china.jpg", _SKLEARN),
    Photograph("grass", "train", "grass.png"),
    Photograph("gravel", "train", "gravel.png"),
    Photograph("hubble_deep_field", "train", "hubble_deep_field.jpg"),
    Photograph("moon", "train", "moon.png"),
    Photograph("motorcycle_left", "train", "motorcycle_left.png"),
    Photograph("retina", "train", "retina.jpg"),
    Photograph("chelsea", "val", "chelsea.png"),
    Photograph("coffee", "val", "coffee.png"),
    Photograph("coins", "val", "coins.png"),
    Photograph("flower", "val", "flower.jpg", _SKLEARN),
    Photograph("camera", "test", "camera.png"),
    Photograph("immunohistochemistry", "test", "ihc.png"),
    Photograph("rocket", "test", "rocket.jpg"),
    Photograph("text", "test", "text.png"),
)
_BY_NAME = {photograph.name: photograph for photograph in PHOTOGRAPHS}


@dataclass(frozen=True, slots=True, eq=False)
class Showcase:
    """An untouched photograph, uint8 RGB (H, W, 3), with hand-chosen boxes, float32 (n, 4) xyxy."""

    name: str
    image: Pixels
    boxes: Boxes


# Read off the pictures by eye: x0, y0, x1, y1 in pixels.
_SHOWCASE_BOXES = {
    "coins": (
        (305, 15, 365, 72),
        (22, 34, 67, 75),
        (245, 94, 297, 145),
        (315, 155, 380, 219),
        (18, 231, 75, 289),
    ),
    # The face, both eyes, the nose.
    "chelsea": ((32, 0, 364, 290), (134, 84, 207, 149), (296, 109, 345, 165), (230, 226, 292, 267)),
    # The saucer, the cup, the coffee, the spoon's bowl.
    "coffee": ((76, 60, 480, 390), (172, 17, 408, 309), (203, 94, 372, 196), (325, 240, 407, 327)),
    # The rocket, and the pedestal below it.
    "rocket": ((308, 125, 336, 407), (266, 406, 375, 427)),
}


def names(split: Split) -> tuple[str, ...]:
    """Names of a split's photographs."""
    return tuple(photograph.name for photograph in PHOTOGRAPHS if photograph.split == split)


@cache
def untouched(name: str) -> Pixels:
    """A photograph as it was shipped: uint8 RGB (H, W, 3), not writable.

    Raises:
        UsageError: there is no photograph of this name.
        DataError: the installed package lacks the file.
    """
    if name not in _BY_NAME:
        raise UsageError(f"There is no photograph {name!r}; there are {', '.join(_BY_NAME)}.")
    path = _path(_BY_NAME[name])
    try:
        with path.open("rb") as file, Image.open(file) as image:
            pixels = np.array(image.convert("RGB"))
    except OSError as error:
        raise DataError(_missing(name)) from error
    pixels.setflags(write=False)
    return pixels


@cache
def digest(split: Split) -> str:
    """SHA-256 over the files of a split's photographs.

    Raises:
        DataError: the installed package lacks a file.
    """
    total = hashlib.sha256()
    for name in names(split):
        try:
            total.update(_path(_BY_NAME[name]).read_bytes())
        except OSError as error:
            raise DataError(_missing(name)) from error
    return total.hexdigest()


def showcase() -> tuple[Showcase, ...]:
    """Photographs to show results on, with boxes around two to five obvious objects each.

    They come from the val and test splits. They have no masks: nothing is measured on them.
    """
    return tuple(
        Showcase(name=name, image=untouched(name), boxes=np.array(boxes, dtype=np.float32))
        for name, boxes in _SHOWCASE_BOXES.items()
    )


def _path(photograph: Photograph) -> Traversable:
    package, folder = photograph.home
    return files(package) / folder / photograph.file


def _missing(name: str) -> str:
    return (
        f"Photograph {name!r} is missing from the installed {_BY_NAME[name].home[0]} package; "
        "reinstall scikit-image and scikit-learn from their wheels."
    )
