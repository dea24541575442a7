"""What a data set is: samples of an image and its object masks.

Boxes are `(x0, y0, x1, y1)` in pixels of the image, measured along pixel edges: a mask that covers
columns 3 to 7 has x0 = 3 and x1 = 8.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from hwsearch.errors import DataError
from hwsearch.records import short_digest

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Boxes = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Instance:
    """One object: its mask, cropped to its bounding box, and where that box begins.

    Storing only the crop keeps tens of thousands of small objects in memory.

    Args:
        x: Column of the mask's left edge in the image.
        y: Row of the mask's top edge in the image.
        mask: bool (h, w), true on the object; first and last rows and columns are not empty.
        category: Category id of the data set, or None where it has none.
    """

    x: int
    y: int
    mask: Mask
    category: int | None = None

    @classmethod
    def from_mask(cls, mask: Mask, *, x: int = 0, y: int = 0, category: int | None = None) -> Self:
        """Crop a bool (H, W) mask, whose top left pixel lies at (x, y), to its bounding box.

        Raises:
            DataError: the mask is empty.
        """
        rows = np.flatnonzero(mask.any(axis=1))
        columns = np.flatnonzero(mask.any(axis=0))
        if not rows.size:
            raise DataError("An object's mask is empty; each mask has to cover at least one pixel.")
        top, left = int(rows[0]), int(columns[0])
        crop = mask[top : rows[-1] + 1, left : columns[-1] + 1].copy()
        return cls(x=x + left, y=y + top, mask=crop, category=category)

    @property
    def width(self) -> int:
        """Columns of the bounding box."""
        return int(self.mask.shape[1])

    @property
    def height(self) -> int:
        """Rows of the bounding box."""
        return int(self.mask.shape[0])

    @property
    def box(self) -> Boxes:
        """float32 (4,): x0, y0, x1, y1 along pixel edges."""
        return np.array(
            [self.x, self.y, self.x + self.width, self.y + self.height], dtype=np.float32
        )

    @property
    def area(self) -> int:
        """Pixels that the mask covers."""
        return int(np.count_nonzero(self.mask))

    def paint(self, height: int, width: int) -> Mask:
        """The mask in its place in an image: bool (height, width)."""
        canvas = np.zeros((height, width), dtype=bool)
        canvas[self.y : self.y + self.height, self.x : self.x + self.width] = self.mask
        return canvas


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """An image, uint8 RGB (H, W, 3), and its objects; `key` names it within its data set."""

    key: str
    image: Pixels
    instances: tuple[Instance, ...]

    @property
    def nbytes(self) -> int:
        """Bytes that the image and the masks take."""
        return self.image.nbytes + sum(instance.mask.nbytes for instance in self.instances)


class Dataset(Protocol):
    """A fixed sequence of samples, each with at least one object.

    `fingerprint` is a digest of what an accuracy on this data depends on: two data sets of the
    same fingerprint give a model the same accuracy.
    """

    @property
    def name(self) -> str:
        """Short name for reports."""
        ...

    @property
    def split(self) -> str:
        """`train`, `val`, `test`, or a part of one."""
        ...

    @property
    def fingerprint(self) -> str:
        """Digest of annotations, images and split."""
        ...

    def __len__(self) -> int:
        """How many samples there are."""
        ...

    def __getitem__(self, index: int) -> Sample:
        """The sample; reads its image if need be."""
        ...

    def key(self, index: int) -> str:
        """The sample's key, without reading its image."""
        ...


class Subset:
    """Some samples of a data set, in the order of `indices`; `part` is appended to its split."""

    def __init__(self, dataset: Dataset, indices: Sequence[int], *, part: str) -> None:
        self._dataset = dataset
        self._indices = tuple(indices)
        self.name = dataset.name
        self.split = f"{dataset.split}/{part}"
        chosen = ",".join(map(str, self._indices))
        self.fingerprint = short_digest(f"{dataset.fingerprint}:{chosen}")

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        return self._dataset[self._indices[index]]

    def key(self, index: int) -> str:
        """The sample's key, without reading its image."""
        return self._dataset.key(self._indices[index])


def distinct_names(names: Sequence[str]) -> list[str]:
    """The names of data sets, numbered where several have the same."""
    earlier = [names[:place].count(name) for place, name in enumerate(names)]
    return [f"{name} ({n + 1})" if n else name for name, n in zip(names, earlier, strict=True)]


def split_in_half(dataset: Dataset) -> tuple[Subset, Subset]:
    """Two disjoint halves that depend on the samples' keys alone, not on their order.

    Samples are ranked by the SHA-256 of their key; the lower half of the ranking comes first.
    A search that has no test split looks at the first half and reports the second.

    Raises:
        DataError: there are fewer than two samples.
    """
    if len(dataset) < 2:
        raise DataError(
            f"Data set {dataset.name!r} has {len(dataset)} sample(s) in split {dataset.split!r}, "
            "too few to search on one half and report the other; give it at least two."
        )
    ranked = sorted(range(len(dataset)), key=lambda index: _rank(dataset.key(index)))
    middle = len(ranked) // 2
    first, second = sorted(ranked[:middle]), sorted(ranked[middle:])
    return Subset(dataset, first, part="a"), Subset(dataset, second, part="b")


def _rank(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
