"""Figures of segmenters whose answers are known, and of real ones in relation to each other."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from painters import RESOLUTION, Painter
from tiny import MIXED, Pictures, picture, randomised_sam, rectangle, tiny_supernet
from torch import Tensor, nn

from hwsearch.data.dataset import Mask, Sample
from hwsearch.errors import UsageError
from hwsearch.evaluation import (
    EvaluationSet,
    SamSegmenter,
    answers,
    evaluate,
    evaluate_segmenter,
    evaluation_set,
    segmenter,
)
from hwsearch.evaluation.answers import ask
from hwsearch.records import Accuracy


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


def disc(shape: tuple[int, int], x: int, y: int, radius: int) -> Mask:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


@pytest.fixture
def discs():
    """Two discs of 32 pixels' radius in an image twice the model's size."""
    shape = (2 * RESOLUTION, 2 * RESOLUTION)
    objects = [disc(shape, 40, 36, 32), disc(shape, 84, 88, 32)]
    return evaluation_set(Pictures([picture(objects)]), framing="image")


def test_a_perfect_model_is_found_perfect(bands: EvaluationSet):
    accuracy = evaluate_segmenter(Painter(right=1, favourite=1), bands)
    assert accuracy.miou == accuracy.miou_oracle == 1
    assert accuracy.miou_interval == (1, 1)
    assert (accuracy.instances, accuracy.images) == (3, 2)
    assert (accuracy.data, accuracy.split, accuracy.framing) == ("pictures", "val", "image")
    assert (accuracy.prompt, accuracy.selection) == ("box", "predicted_iou")


def test_the_predicted_iou_selects_the_mask(bands: EvaluationSet):
    """The right mask is there, but another one is thought better: only an oracle finds it."""
    accuracy = evaluate_segmenter(Painter(right=1, favourite=2), bands, prompts=("box", "point"))
    assert accuracy.miou == 0
    assert accuracy.miou_oracle == 1
    assert accuracy.one_click_miou == 0
    assert accuracy.one_click_miou_oracle > 0.1


def test_boxes_alone_are_the_default(bands: EvaluationSet):
    spy = Painter()
    accuracy = evaluate_segmenter(spy, bands)
    assert set(spy.prompts) == {"box"}
    assert accuracy.one_click_miou is accuracy.one_click_miou_oracle is None


def test_box_and_click_share_an_encoding(discs: EvaluationSet):
    spy = Painter(radius=16)
    accuracy = evaluate_segmenter(spy, discs, prompts=("box", "point"))
    assert spy.encoded == 1
    assert spy.prompts == ["box", "point"]
    assert accuracy.prompt == "box"
    # A box covers 4 / π of its disc, to the cells' rounding.
    assert accuracy.miou == pytest.approx(np.pi / 4, abs=0.06)
    assert accuracy.one_click_miou > 0.9


def test_a_click_can_be_the_only_prompt(discs: EvaluationSet):
    both, click = (
        evaluate_segmenter(Painter(), discs, prompts=prompts)
        for prompts in (("box", "point"), ("point",))
    )
    assert click.prompt == "point"
    assert click.miou == click.one_click_miou == both.one_click_miou
    assert click.miou_oracle == both.one_click_miou_oracle


def test_clicks_lie_in_the_masks_at_their_broadest():
    """A broad and a thin arm: the click belongs into the broad one."""
    shape = (100, 128)
    broad, thin = rectangle(shape, 10, 20, 50, 60), rectangle(shape, 50, 38, 120, 42)
    chosen = evaluation_set(Pictures([picture([broad | thin])]), framing="image")
    spy = Painter()
    evaluate_segmenter(spy, chosen, prompts=("point",))
    ((x, y),) = spy.clicks
    scale = RESOLUTION / 128
    assert abs(x / scale - 30) <= 2
    assert abs(y / scale - 40) <= 2


def test_no_prompt_is_an_error(bands: EvaluationSet):
    with pytest.raises(UsageError, match="needs a prompt"):
        evaluate_segmenter(Painter(), bands, prompts=())


@pytest.mark.parametrize("shape", [(200, 200), (150, 210), (230, 97), (40, 33)])
def test_masks_come_back_to_the_size_of_the_image(shape: tuple[int, int]):
    height, width = shape
    mask = rectangle(shape, width // 5, height // 4, width - width // 4, height - height // 5)
    chosen = evaluation_set(Pictures([picture([mask])]), framing="image")
    # Off the low-res grid a rectangle is met to a cell's rounding.
    assert evaluate_segmenter(Painter(), chosen).miou > 0.85


def test_instances_count_alike_and_are_told_apart_by_size():
    shape = (256, 256)
    objects = [
        rectangle(shape, 0, 0, 16, 16),
        rectangle(shape, 32, 32, 64, 64),  # 32² pixels: medium from here on
        rectangle(shape, 128, 128, 224, 224),  # 96² pixels: large from here on
    ]
    chosen = evaluation_set(Pictures([picture(objects)]), framing="image")
    accuracy = evaluate_segmenter(Painter(), chosen)
    assert accuracy.miou_by_size.keys() == {"small", "medium", "large"}
    assert accuracy.miou == pytest.approx(np.mean(list(accuracy.miou_by_size.values())))
    assert accuracy.miou_by_size["large"] > 0.98


def test_one_image_has_no_interval(discs: EvaluationSet):
    assert evaluate_segmenter(Painter(), discs).miou_interval is None


def test_an_accuracy_from_before_clicks_and_intervals_is_read():
    old = (
        '{"miou":0.5,"miou_oracle":0.6,"instances":3,"images":2,"data":"coco","split":"val",'
        '"framing":"image","prompt":"box","selection":"predicted_iou","miou_by_size":{}}'
    )
    accuracy = Accuracy.from_json(old)
    assert accuracy.miou_interval is accuracy.one_click_miou is accuracy.ap is None
    full = accuracy.model_copy(update={"miou_interval": (0.4, 0.6), "one_click_miou": 0.25})
    assert Accuracy.from_json(full.to_json()) == full


class Faked(nn.Module):
    """An image encoder that hands its input on."""

    img_size = RESOLUTION

    def forward(self, images: Tensor) -> Tensor:
        return images


def test_the_single_mask_token_takes_no_part(monkeypatch: pytest.MonkeyPatch, bands: EvaluationSet):
    """SAM's decoder gives four masks, the first of them for prompts that are not ambiguous."""

    def decode(*arguments: Tensor) -> tuple[Tensor, Tensor]:
        logits, ious = Painter().decode(*arguments[1:])
        single, confident = -logits[:, :, 1:2], ious[:, :, :1] + 1
        return torch.cat([single, logits], dim=2), torch.cat([confident, ious], dim=2)

    monkeypatch.setattr(segmenter, "decode", decode)
    faked = SimpleNamespace(
        image_encoder=Faked(), pixel_mean=torch.zeros(3, 1, 1), pixel_std=torch.ones(3, 1, 1)
    )
    accuracy = evaluate(faked, bands)
    assert accuracy.miou == accuracy.miou_oracle == 1


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
    found = [evaluate(randomised_sam(seed), chosen, prompts=("box", "point")) for seed in range(4)]
    assert all(accuracy.instances == 9 for accuracy in found)
    gaps = [accuracy.miou_oracle - accuracy.miou for accuracy in found]
    assert min(gaps) >= 0
    assert max(gaps) > 0.01
    assert all(a.one_click_miou_oracle >= a.one_click_miou for a in found)


@pytest.mark.parametrize("framing", ["image", "object"])
def test_the_batch_changes_nothing(noisy: Pictures, framing: str):
    sam = tiny_supernet().extract(MIXED)
    chosen = evaluation_set(noisy, framing=framing)
    one, many = (evaluate(sam, chosen, batch=batch, prompts=("box", "point")) for batch in (1, 4))
    assert one.miou == pytest.approx(many.miou, abs=1e-3)
    assert one.one_click_miou == pytest.approx(many.one_click_miou, abs=1e-3)
    assert one.instances == many.instances == 9
    assert one.images == many.images == 3


def test_how_many_masks_are_restored_at_once_changes_nothing(
    noisy: Pictures, monkeypatch: pytest.MonkeyPatch
):
    views = evaluation_set(noisy, framing="image")
    assert max(len(view.masks) for view in views.views) > 1
    model = SamSegmenter(randomised_sam(seed=0))
    together = ask(model, views, keep_masks=("box",))["box"]
    monkeypatch.setattr(answers, "MOST_PIXELS", 1)
    one_by_one = ask(model, views, keep_masks=("box",))["box"]
    for name in ("selected", "oracle", "confidence"):
        assert np.array_equal(getattr(together, name), getattr(one_by_one, name))
    assert together.masks == one_by_one.masks
    assert len(together.masks) == views.instances


def test_clicks_are_decoded_as_sams_own_predictor_does(noisy: Pictures):
    from segment_anything import SamPredictor

    from hwsearch.data.prompts import interior_point

    sam = tiny_supernet(seed=2).extract(MIXED)
    chosen = evaluation_set(noisy, framing="image")
    predictor, ious = SamPredictor(sam), []
    for view in chosen.views:
        predictor.set_image(view.image)
        for mask in view.masks:
            click = np.array([interior_point(mask)])
            masks, confidence, _ = predictor.predict(click, np.array([1]))
            best = masks[confidence.argmax()]
            ious.append((best & mask).sum() / (best | mask).sum())
    found = evaluate(sam, chosen, prompts=("point",)).miou
    assert 0.02 < found < 0.98
    assert found == pytest.approx(np.mean(ious), abs=2e-3)
