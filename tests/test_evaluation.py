"""Accuracy, on rectangles: a box prompt tells all of them, so that a perfect model can be faked."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny import MIXED, Pictures, picture, randomised_sam, rectangle, tiny_supernet
from torch import Tensor, nn

from hwsearch import evaluation
from hwsearch.data.dataset import Sample
from hwsearch.errors import DataError
from hwsearch.evaluation import EvaluationSet, box_floor, evaluate, evaluation_set

RESOLUTION = 64
TOKENS = 4


class Faked(nn.Module):
    """An image encoder that hands its input on."""

    img_size = RESOLUTION

    def forward(self, images: Tensor) -> Tensor:
        return images


def faked_sam() -> SimpleNamespace:
    return SimpleNamespace(
        image_encoder=Faked(), pixel_mean=torch.zeros(3, 1, 1), pixel_std=torch.ones(3, 1, 1)
    )


class BoxPainter:
    """In the place of `decode`: answers each box with the filled box, in one of its tokens.

    Args:
        right: the token that answers rightly; the others see nothing.
        favourite: the token that gets the highest predicted IoU.
    """

    def __init__(self, *, right: int, favourite: int) -> None:
        self.right, self.favourite = right, favourite

    def __call__(
        self, sam: object, embeddings: Tensor, points: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        assert (labels == torch.tensor([2, 3])).all()
        images, prompts = points.shape[:2]
        side = RESOLUTION // 4
        logits = torch.full((images, prompts, TOKENS, side, side), -1.0)
        centres = 4 * (torch.arange(side) + 0.5)
        low, high = points[:, :, 0, :, None], points[:, :, 1, :, None]
        inside = (centres > low) & (centres < high)  # B×P×(x, y)×S
        filled = inside[:, :, 1, :, None] & inside[:, :, 0, None, :]
        logits[:, :, self.right][filled] = 1.0
        ious = torch.zeros(images, prompts, TOKENS)
        ious[:, :, self.favourite] = 0.5
        return logits, ious


def answering(monkeypatch: pytest.MonkeyPatch, *, right: int, favourite: int) -> None:
    monkeypatch.setattr(evaluation, "decode", BoxPainter(right=right, favourite=favourite))


@pytest.fixture
def bands():
    """Objects on the grid of the low-res masks, in a square and a wide image.

    They reach from edge to edge, since bilinear resizing rounds corners.
    """
    square, wide = (RESOLUTION, RESOLUTION), (RESOLUTION, 2 * RESOLUTION)
    samples = [
        picture([rectangle(square, 0, 16, 64, 60), rectangle(square, 44, 0, 56, 64)], key="0"),
        picture([rectangle(wide, 0, 8, 128, 40)], key="1"),
    ]
    return evaluation_set(Pictures(samples, split="val"), framing="image")


def test_a_perfect_model_is_found_perfect(monkeypatch: pytest.MonkeyPatch, bands: EvaluationSet):
    answering(monkeypatch, right=2, favourite=2)
    accuracy = evaluate(faked_sam(), bands)
    assert accuracy.miou == accuracy.miou_oracle == 1
    assert (accuracy.instances, accuracy.images) == (3, 2)
    assert (accuracy.data, accuracy.split, accuracy.framing) == ("pictures", "val", "image")
    assert accuracy.prompt == "box"


def test_the_predicted_iou_selects_the_mask(monkeypatch: pytest.MonkeyPatch, bands: EvaluationSet):
    """The right mask is there, but another one is thought better: only an oracle finds it."""
    answering(monkeypatch, right=2, favourite=3)
    accuracy = evaluate(faked_sam(), bands)
    assert accuracy.miou == 0
    assert accuracy.miou_oracle == 1


def test_the_single_mask_token_takes_no_part(monkeypatch: pytest.MonkeyPatch, bands: EvaluationSet):
    answering(monkeypatch, right=0, favourite=0)
    accuracy = evaluate(faked_sam(), bands)
    assert accuracy.miou_oracle == 0


@pytest.mark.parametrize("shape", [(200, 200), (150, 210), (230, 97), (40, 33)])
def test_masks_come_back_to_the_size_of_the_image(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int]
):
    answering(monkeypatch, right=1, favourite=1)
    height, width = shape
    mask = rectangle(shape, width // 5, height // 4, width - width // 4, height - height // 5)
    chosen = evaluation_set(Pictures([picture([mask])]), framing="image")
    # Off the low-res grid a rectangle is met to a cell's rounding.
    assert evaluate(faked_sam(), chosen).miou > 0.85


def test_instances_count_alike_and_are_told_apart_by_size(monkeypatch: pytest.MonkeyPatch):
    answering(monkeypatch, right=1, favourite=1)
    shape = (256, 256)
    objects = [
        rectangle(shape, 0, 0, 16, 16),
        rectangle(shape, 32, 32, 64, 64),  # 32² pixels: medium from here on
        rectangle(shape, 128, 128, 224, 224),  # 96² pixels: large from here on
    ]
    chosen = evaluation_set(Pictures([picture(objects)]), framing="image")
    accuracy = evaluate(faked_sam(), chosen)
    assert accuracy.miou_by_size.keys() == {"small", "medium", "large"}
    assert accuracy.miou == pytest.approx(np.mean(list(accuracy.miou_by_size.values())))
    assert accuracy.miou_by_size["large"] > 0.98


def textured(count: int) -> Sample:
    rng = np.random.default_rng(count)
    sample = picture(
        [rectangle((96, 128), 9 * i, 7 * i, 9 * i + 30, 7 * i + 25) for i in range(count)],
        key=str(count),
    )
    noise = rng.integers(0, 256, sample.image.shape, np.uint8)
    return Sample(key=sample.key, image=noise, instances=sample.instances)


@pytest.fixture
def noisy():
    """Images with 1, 5 and 3 objects."""
    return Pictures([textured(count) for count in (1, 5, 3)])


def test_no_selection_beats_the_oracle(noisy: Pictures):
    chosen = evaluation_set(noisy, framing="image")
    found = [evaluate(randomised_sam(seed), chosen) for seed in range(4)]
    assert all(accuracy.instances == 9 for accuracy in found)
    gaps = [accuracy.miou_oracle - accuracy.miou for accuracy in found]
    assert min(gaps) >= 0
    assert max(gaps) > 0.01


@pytest.mark.parametrize("framing", ["image", "object"])
def test_the_batch_changes_nothing(noisy: Pictures, framing: str):
    sam = tiny_supernet().extract(MIXED)
    chosen = evaluation_set(noisy, framing=framing)
    one, many = (evaluate(sam, chosen, batch=batch) for batch in (1, 4))
    assert one.miou == pytest.approx(many.miou, abs=1e-3)
    assert one.instances == many.instances == 9


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
