"""What models are compared on: views of a data set that are chosen once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
from numpy.typing import NDArray

from hwsearch.data.dataset import Dataset, Instance, Sample
from hwsearch.data.framing import View, image_view, object_view
from hwsearch.errors import DataError
from hwsearch.records import Framing, short_digest

OBJECT_CONTEXT = 3.0


@dataclass(frozen=True)
class Views(Sequence[View]):
    """Views whose masks are painted when they are asked for.

    Painted, the 16 masks of an image of 1500 x 2250 px take 54 MB; cropped, as they are kept here,
    they take little beside the 10 MB of the image.
    """

    samples: tuple[Sample, ...]

    def __len__(self) -> int:
        return len(self.samples)

    @overload
    def __getitem__(self, place: int) -> View: ...

    @overload
    def __getitem__(self, place: slice) -> Views: ...

    def __getitem__(self, place: int | slice) -> View | Views:
        if isinstance(place, slice):
            return Views(self.samples[place])
        return image_view(self.samples[place])


@dataclass(frozen=True)
class EvaluationSet:
    """Views of a data set, fixed once, on which models are compared.

    Args:
        samples: what each view shows, with the n objects that are prompted.
        image_of: for each view, the index of the image in the data set that it was cut from.
        data: name of the data set.
        split: `train`, `val`, `test`, or a part of one.
        framing: "image": each view is a whole image with its objects. "object": each view is a
            square window around one object, three times as wide as the object.
        fingerprint: digest of all that the choice depends on.
    """

    samples: tuple[Sample, ...]
    image_of: tuple[int, ...]
    data: str
    split: str
    framing: Framing
    fingerprint: str

    @property
    def views(self) -> Views:
        """What a model is shown, each with n objects."""
        return Views(self.samples)

    @property
    def categories(self) -> tuple[tuple[int | None, ...], ...]:
        """For each view, the class ids of its n objects; None where they have none."""
        return tuple(
            tuple(instance.category for instance in sample.instances) for sample in self.samples
        )

    @property
    def instances(self) -> int:
        """How many masks are compared."""
        return sum(len(sample.instances) for sample in self.samples)

    @property
    def images(self) -> int:
        """How many images of the data set the views come from."""
        return len(set(self.image_of))

    @property
    def clusters(self) -> NDArray[np.int64]:
        """int64 (instances,): the image that each mask belongs to."""
        counts = [len(sample.instances) for sample in self.samples]
        return np.repeat(np.array(self.image_of), counts)

    @property
    def areas(self) -> NDArray[np.int64]:
        """int64 (instances,): pixels of each mask."""
        return np.array([instance.area for sample in self.samples for instance in sample.instances])

    @property
    def has_classes(self) -> bool:
        """Whether any object has a class."""
        return any(category is not None for view in self.categories for category in view)


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
    samples, image_of = zip(*shown, strict=True)
    parts = [dataset.fingerprint, framing, max_views, max_prompts, seed]
    return EvaluationSet(
        samples=samples,
        image_of=image_of,
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
) -> list[tuple[Sample, int]]:
    """Images with some of their objects, and their places in the data set."""
    shown = []
    for image in order:
        sample = dataset[image]
        kept = sample.instances
        if len(kept) > max_prompts:
            drawn = rng.permutation(len(kept))[:max_prompts]
            kept = tuple(kept[index] for index in drawn.tolist())
        if kept:
            shown.append((replace(sample, instances=kept), image))
    return shown


def _single_objects(
    dataset: Dataset,
    order: Sequence[int],
    max_views: int | None,
    rng: np.random.Generator,
) -> list[tuple[Sample, int]]:
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
    return [_window(dataset, image, index) for image, index in sorted(chosen[:max_views])]


def _window(dataset: Dataset, image: int, index: int) -> tuple[Sample, int]:
    sample = dataset[image]
    view = object_view(sample, index, context=OBJECT_CONTEXT, max_instances=1)
    category = sample.instances[index].category
    instance = Instance.from_mask(view.masks[0], category=category)
    return Sample(key=sample.key, image=view.image, instances=(instance,)), image
