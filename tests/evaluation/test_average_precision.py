"""COCO's AP of prompted masks, on answers whose AP is known."""

import numpy as np
import pytest
from painters import Painter
from tiny import Pictures, picture, rectangle

from hwsearch.data.dataset import Instance, Mask, Sample
from hwsearch.data.rle import encode
from hwsearch.errors import UsageError
from hwsearch.evaluation import EvaluationSet, evaluate_segmenter, evaluation_set
from hwsearch.evaluation.accuracy import accuracy_of
from hwsearch.evaluation.answers import Answers, ask
from hwsearch.evaluation.average_precision import average_precision

SHAPE = (64, 96)
CATEGORIES = (7, 3)


def scene(categories: tuple[int | None, ...], key: str) -> Sample:
    masks = [
        rectangle(SHAPE, 20 * place, 10, 20 * place + 16, 50) for place in range(len(categories))
    ]
    instances = tuple(
        Instance.from_mask(mask, category=category)
        for mask, category in zip(masks, categories, strict=True)
    )
    return Sample(key=key, image=picture(masks).image, instances=instances)


def shown(*categories: tuple[int | None, ...]) -> EvaluationSet:
    samples = [scene(each, str(number)) for number, each in enumerate(categories)]
    return evaluation_set(Pictures(samples), framing="image")


@pytest.fixture
def chosen():
    """Five objects of two classes on two images."""
    return shown((7, 7, 3), (3, 7))


def answered(masks: list[Mask], confidence: list[float]) -> Answers:
    irrelevant = np.zeros(len(masks))
    return Answers(
        selected=irrelevant,
        oracle=irrelevant,
        confidence=np.array(confidence),
        masks=tuple(map(encode, masks)),
    )


def true_masks(chosen: EvaluationSet) -> list[Mask]:
    return [mask for view in chosen.views for mask in view.masks]


def with_a_wrong_one(chosen: EvaluationSet) -> list[Mask]:
    """The first object is answered with a mask elsewhere."""
    wrong = rectangle(SHAPE, 0, 0, 96, 4)
    return [wrong, *true_masks(chosen)[1:]]


@pytest.mark.parametrize("framing", ["image", "object"])
def test_perfect_masks(framing: str):
    samples = [scene((7, 7, 3), "0"), scene((3, 7), "1")]
    chosen = evaluation_set(Pictures(samples), framing=framing)
    found = average_precision(chosen, answered(true_masks(chosen), [0.9, 0.1, 0.5, 0.3, 0.7]))
    assert found == pytest.approx((1, 1))


def test_wrong_masks_cost_more_the_better_they_are_rated():
    chosen = shown((7, 7, 7, 7))
    masks = with_a_wrong_one(chosen)
    last = average_precision(chosen, answered(masks, [0.1, 0.8, 0.7, 0.6]))
    first = average_precision(chosen, answered(masks, [0.9, 0.8, 0.7, 0.6]))
    # Three of four are found, at precision 1 where the wrong one is rated last. COCO reads
    # precision at 101 recalls, 76 of which lie up to 0.75.
    assert last.ap == pytest.approx(76 / 101)
    # Rated first, it leaves precisions 1/2, 2/3 and 3/4, of which COCO takes the running maximum.
    assert first.ap == pytest.approx(76 / 101 * 0.75)
    assert first.ap50 == pytest.approx(first.ap)


def test_ap_is_a_mean_over_classes():
    chosen = shown((7, 7, 7, 3))
    masks = with_a_wrong_one(chosen)
    found = average_precision(chosen, answered(masks, [0.1, 0.8, 0.7, 0.6]))
    first_class = 67 / 101  # two of three are found, which covers recalls 0, 0.01 … 0.66
    assert found.ap == pytest.approx((first_class + 1) / 2)


def test_ap_asks_for_closer_masks_than_ap50():
    """Each mask covers three quarters of its object: right at thresholds 0.5 … 0.75."""
    chosen = shown((7, 7), (3,))
    masks = [mask & rectangle(SHAPE, 0, 0, 96, 40) for mask in true_masks(chosen)]
    found = average_precision(chosen, answered(masks, [0.5, 0.4, 0.3]))
    assert found.ap50 == 1
    assert found.ap == pytest.approx(0.6)


def test_without_classes_there_is_no_ap():
    chosen = shown((None, None))
    assert average_precision(chosen, answered(true_masks(chosen), [0.5, 0.5])) is None
    kept = ask(Painter(), chosen, keep_masks=("box",))
    accuracy = accuracy_of(chosen, kept)
    assert accuracy.ap is accuracy.ap50 is None


def test_objects_without_a_class_take_no_part():
    chosen = shown((None, 7))
    masks = with_a_wrong_one(chosen)
    found = average_precision(chosen, answered(masks, [0.9, 0.5]))
    assert found == pytest.approx((1, 1))


def test_masks_have_to_be_kept(chosen: EvaluationSet):
    answers = ask(Painter(), chosen)["box"]
    with pytest.raises(UsageError, match="keep_masks"):
        average_precision(chosen, answers)
    assert evaluate_segmenter(Painter(), chosen).ap is None


def test_the_selected_masks_are_the_ones_that_are_judged(
    chosen: EvaluationSet, capsys: pytest.CaptureFixture[str]
):
    """The painter has each box right in one mask, and nothing in the others."""
    right, wrong = (
        accuracy_of(chosen, ask(Painter(right=1, favourite=favourite), chosen, keep_masks=("box",)))
        for favourite in (1, 2)
    )
    assert right.ap50 == 1
    assert 0.5 < right.ap <= 1
    assert wrong.ap == wrong.ap50 == 0
    assert capsys.readouterr().out == ""
