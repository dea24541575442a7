"""What models are compared on: the draw of images and objects."""

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny import Pictures, picture, rectangle

from hwsearch.data.dataset import Instance, Sample
from hwsearch.errors import DataError
from hwsearch.evaluation import EvaluationSet, box_floor, evaluation_set


def test_box_floor_by_hand():
    shape = (40, 40)
    half = rectangle(shape, 10, 10, 30, 30)
    half[20:30, 20:30] = False  # three quarters of its box
    other = rectangle(shape, 2, 2, 8, 8)
    chosen = evaluation_set(Pictures([picture([half, other])]), framing="image")
    assert box_floor(chosen) == pytest.approx((0.75 + 1) / 2)


def images_of(chosen: EvaluationSet, dataset: Pictures) -> NDArray[np.int64]:
    """How many views come from each image, told by their pixels."""
    values = [int(sample.image.max()) for sample in dataset.samples]
    found = [values.index(int(view.image.max())) for view in chosen.views]
    return np.bincount(found, minlength=len(values))


@pytest.fixture
def shades():
    """Images with 1, 5, 3 and 5 objects, each in a brightness of its own."""
    shape = (400, 400)
    return Pictures(
        [
            picture(
                [rectangle(shape, 70 * i, 70 * i, 70 * i + 20, 70 * i + 30) for i in range(count)],
                ground=10 * place,
                objects=10 * place + 5,
            )
            for place, count in enumerate((1, 5, 3, 5), start=1)
        ]
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("most", [1, 4, 7, 11, None])
def test_single_objects_are_drawn_evenly_over_images(shades: Pictures, most: int | None, seed: int):
    chosen = evaluation_set(shades, framing="object", max_views=most, seed=seed)
    counts = images_of(chosen, shades)
    assert counts.sum() == (most or 14)
    # An image gives another object only once all others gave as many, or have no more.
    available = np.array([1, 5, 3, 5])
    assert all(counts.max() - counts[i] <= 1 or counts[i] == available[i] for i in range(4))
    assert all(len(view.masks) == 1 for view in chosen.views)


def test_a_single_object_is_seen_in_a_window_three_times_its_size(shades: Pictures):
    chosen = evaluation_set(shades, framing="object")
    inner = [view for view in chosen.views if view.boxes[0, :2].min() > 20]
    assert inner
    assert {view.image.shape for view in inner} == {(90, 90, 3)}


def test_no_object_is_drawn_twice(shades: Pictures):
    chosen = evaluation_set(shades, framing="object")
    assert len(chosen.views) == chosen.instances == 14
    assert images_of(chosen, shades).tolist() == [1, 5, 3, 5]


def test_whole_images_show_so_many_objects_at_most(shades: Pictures):
    chosen = evaluation_set(shades, framing="image", max_views=3, max_prompts=2)
    assert len(chosen.views) == 3
    assert all(len(view.masks) <= 2 for view in chosen.views)
    assert evaluation_set(shades, framing="image").instances == 14


def test_a_choice_is_named_by_all_that_it_depends_on(shades: Pictures):
    def fingerprint(**changes: object) -> str:
        fields: dict[str, object] = {"framing": "object", "max_views": 3, "seed": 0}
        return evaluation_set(shades, **(fields | changes)).fingerprint

    variants = [{}, {"framing": "image"}, {"max_views": 4}, {"seed": 1}, {"max_prompts": 3}]
    assert fingerprint() == fingerprint()
    assert len({fingerprint(**variant) for variant in variants}) == len(variants)
    shades.fingerprint = "1"
    assert fingerprint() not in {fingerprint(seed=1)}


def test_the_choice_depends_on_the_seed(shades: Pictures):
    first, again, other = (
        evaluation_set(shades, framing="object", max_views=4, seed=seed) for seed in (0, 0, 2)
    )
    assert all(
        np.array_equal(one.image, two.image)
        for one, two in zip(first.views, again.views, strict=True)
    )
    assert any(
        not np.array_equal(one.boxes, two.boxes)
        for one, two in zip(first.views, other.views, strict=True)
    )


def test_nothing_to_evaluate_on_is_an_error():
    with pytest.raises(DataError, match="holds no object"):
        evaluation_set(Pictures([]), framing="object")


def classed(sample: Sample, categories: list[int | None]) -> Sample:
    instances = tuple(
        Instance(x=each.x, y=each.y, mask=each.mask, category=category)
        for each, category in zip(sample.instances, categories, strict=True)
    )
    return Sample(key=sample.key, image=sample.image, instances=instances)


@pytest.mark.parametrize("framing", ["image", "object"])
def test_each_mask_keeps_its_image_and_its_class(shades: Pictures, framing: str):
    """The class is told by the object's column, the image by its brightness."""
    shades.samples = [
        classed(sample, [each.x // 70 if each.x else None for each in sample.instances])
        for sample in shades.samples
    ]
    chosen = evaluation_set(shades, framing=framing, max_prompts=3, max_views=11)
    assert chosen.has_classes
    bright = np.repeat([int(view.image.max()) for view in chosen.views], _counts(chosen))
    assert (bright == 10 * (chosen.clusters + 1) + 5).all()
    assert chosen.images == 4
    for view, image, categories in zip(
        chosen.views, chosen.image_of, chosen.categories, strict=True
    ):
        known = {
            each.category: each.paint(400, 400).sum() for each in shades.samples[image].instances
        }
        assert len(categories) == len(view.masks)
        assert all(category in known for category in categories)
        if framing == "image":
            columns = (view.boxes[:, 0] // 70).astype(int).tolist()
            assert [category or 0 for category in categories] == columns


def _counts(chosen: EvaluationSet) -> list[int]:
    return [len(view.masks) for view in chosen.views]


def test_the_objects_of_an_image_are_drawn_at_random(shades: Pictures):
    drawn = [evaluation_set(shades, framing="image", max_prompts=2, seed=seed) for seed in range(4)]
    lefts = {
        tuple(view.boxes[:, 0].tolist())
        for chosen in drawn
        for view, image in zip(chosen.views, chosen.image_of, strict=True)
        if image == 1
    }
    assert len(lefts) > 1
    assert all(len(set(pair)) == 2 for pair in lefts)


def test_areas_are_those_of_the_masks(shades: Pictures):
    chosen = evaluation_set(shades, framing="image")
    assert (chosen.areas == 20 * 30).all()
    assert len(chosen.areas) == len(chosen.clusters) == chosen.instances
    assert not chosen.has_classes
