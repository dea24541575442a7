"""What models are compared on: views of a data set that are chosen once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from hwsearch.data.dataset import Dataset, Sample
from hwsearch.data.framing import View, image_view, object_view
from hwsearch.errors import DataError
from hwsearch.records import Framing, short_digest

OBJECT_CONTEXT = 3.0


class Shown(NamedTuple):
    """What a view shows: an image of the data set, and which of its objects.

    `categories` and `areas` are the objects' class ids, None where they have none, and their
    pixels.
    """

    image: int
    objects: tuple[int, ...]
    categories: tuple[int | None, ...]
    areas: tuple[int, ...]


@dataclass(frozen=True)
class Views(Sequence[View]):
    """Views that are cut when they are asked for, and not kept: at 1500 x 2250 px one has 64 MB.

    Args:
        dataset: what they are cut from; it keeps what it read last.
        shown: what each shows.
        framing: as in `EvaluationSet`.
    """

    dataset: Dataset
    shown: tuple[Shown, ...]
    framing: Framing

    def __len__(self) -> int:
        return len(self.shown)

    @overload
    def __getitem__(self, place: int) -> View: ...

    @overload
    def __getitem__(self, place: slice) -> Views: ...

    def __getitem__(self, place: int | slice) -> View | Views:
        if isinstance(place, slice):
            return replace(self, shown=self.shown[place])
        image, objects, *_ = self.shown[place]
        sample = self.dataset[image]
        if self.framing == "object":
            return object_view(sample, objects[0], context=OBJECT_CONTEXT, max_instances=1)
        return image_view(sample, objects)


@dataclass(frozen=True)
class EvaluationSet:
    """Views of a data set, fixed once, on which models are compared.

    Args:
        dataset: the images with their objects.
        shown: for each view, the image and the n objects that a model is shown.
        data: name of the data set.
        split: `train`, `val`, `test`, or a part of one.
        framing: "image": each view is a whole image with its objects. "object": each view is a
            square window around one object, three times as wide as the object.
        fingerprint: digest of all that the choice depends on.
    """

    dataset: Dataset
    shown: tuple[Shown, ...]
    data: str
    split: str
    framing: Framing
    fingerprint: str

    @property
    def views(self) -> Views:
        """What a model is shown, each with n objects."""
        return Views(self.dataset, self.shown, self.framing)

    @property
    def image_of(self) -> tuple[int, ...]:
        """For each view, the index of the image in the data set that it is cut from."""
        return tuple(view.image for view in self.shown)

    @property
    def categories(self) -> tuple[tuple[int | None, ...], ...]:
        """For each view, the class ids of its n objects; None where they have none."""
        return tuple(view.categories for view in self.shown)

    @property
    def instances(self) -> int:
        """How many masks are compared."""
        return sum(len(view.objects) for view in self.shown)

    @property
    def images(self) -> int:
        """How many images of the data set the views come from."""
        return len(set(self.image_of))

    @property
    def clusters(self) -> NDArray[np.int64]:
        """int64 (instances,): the image that each mask belongs to."""
        return np.repeat(np.array(self.image_of), [len(view.objects) for view in self.shown])

    @property
    def areas(self) -> NDArray[np.int64]:
        """int64 (instances,): pixels of each mask."""
        return np.array([area for view in self.shown for area in view.areas])

    @property
    def has_classes(self) -> bool:
        """Whether any object has a class."""
        return any(category is not None for view in self.shown for category in view.categories)


def evaluation_set(
    dataset: Dataset,
    *,
    framing: Framing,
    max_views: int | None = None,
    max_prompts: int = 16,
    seed: int = 0,
) -> EvaluationSet:
    """Choose what models will be compared on.

    Args:
        dataset: images with masks.
        framing: whole images, or a window around each object.
        max_views: at most so many views: whole images or single objects, drawn evenly over images.
        max_prompts: at most so many objects of one whole image.
        seed: source of the draw.

    Raises:
        DataError: the data set holds no object.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(dataset)).tolist()
    shown = (
        _whole_images(dataset, order[:max_views], max_prompts, rng)
        if framing == "image"
        else _single_objects(dataset, order, max_views, rng)
    )
    if not shown:
        raise DataError(f"{dataset.name} ({dataset.split}) holds no object to evaluate on.")
    parts = [dataset.fingerprint, framing, max_views, max_prompts, seed]
    return EvaluationSet(
        dataset=dataset,
        shown=tuple(shown),
        data=dataset.name,
        split=dataset.split,
        framing=framing,
        fingerprint=short_digest("/".join(map(str, parts))),
    )


def box_floor(chosen: EvaluationSet) -> float:
    """Mean IoU of the prompt itself: the filled box taken as the mask."""
    ious = []
    for view in chosen.views:
        for mask, (x0, y0, x1, y1) in zip(view.masks, np.rint(view.boxes).astype(int), strict=True):
            inside = mask[y0:y1, x0:x1].sum()
            ious.append(inside / ((y1 - y0) * (x1 - x0) + mask.sum() - inside))
    return float(np.mean(ious))


def _whole_images(
    dataset: Dataset, order: Sequence[int], max_prompts: int, rng: np.random.Generator
) -> list[Shown]:
    shown = []
    for image in order:
        sample = dataset[image]
        objects = list(range(len(sample.instances)))
        if len(objects) > max_prompts:
            objects = rng.permutation(len(objects))[:max_prompts].tolist()
        if objects:
            shown.append(_shown(sample, image, objects))
    return shown


def _single_objects(
    dataset: Dataset,
    order: Sequence[int],
    max_views: int | None,
    rng: np.random.Generator,
) -> list[Shown]:
    """One object of each image, then a second one of each, until there are enough.

    Images are read only as far as they are needed, since a data set may have thousands.
    """
    most = math.inf if max_views is None else max_views
    left: dict[int, list[int]] = {}
    chosen: list[tuple[int, int]] = []
    for image in order:
        if len(chosen) >= most:
            break
        objects = rng.permutation(len(dataset[image].instances)).tolist()
        if objects:
            chosen.append((image, objects.pop()))
            left[image] = objects
    while len(chosen) < most and any(left.values()):
        chosen += [(image, objects.pop()) for image, objects in left.items() if objects]
    return [_shown(dataset[image], image, [index]) for image, index in sorted(chosen[:max_views])]


def _shown(sample: Sample, image: int, objects: Sequence[int]) -> Shown:
    kept = [sample.instances[index] for index in objects]
    return Shown(
        image=image,
        objects=tuple(objects),
        categories=tuple(instance.category for instance in kept),
        areas=tuple(instance.area for instance in kept),
    )
