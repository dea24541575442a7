"""COCO's mask AP of prompted masks, by pycocotools."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import redirect_stdout
from typing import Any, NamedTuple

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hwsearch.data.rle import encode
from hwsearch.errors import UsageError
from hwsearch.evaluation.answers import Answers
from hwsearch.evaluation.sets import EvaluationSet


class AveragePrecision(NamedTuple):
    """COCO's mask AP, over IoU thresholds 0.5 … 0.95, and AP50, at 0.5; means over classes."""

    ap: float
    ap50: float


def average_precision(chosen: EvaluationSet, answers: Answers) -> AveragePrecision | None:
    """AP of masks that were prompted with ground truth.

    SAM knows no classes and finds no objects by itself. So each object's selected mask counts as
    a detection of the object's class with the predicted IoU as its score: the figure tells how
    good the masks are and how well predicted IoU ranks them, not how well objects are found. It
    can't be compared with the AP of a detector, or with SAM's AP on a detector's boxes.

    Each view counts as an image. Objects without a class take no part.

    Args:
        chosen: what was evaluated on.
        answers: to one prompt an object, with their masks.

    Returns:
        None where no object has a class.

    Raises:
        UsageError: the masks were not kept.
    """
    if len(answers.masks) != chosen.instances:
        raise UsageError("AP needs the selected masks: ask with keep_masks.")
    objects = list(_classed_objects(chosen, answers))
    if not objects:
        return None
    truth, found = COCO(), [detection for _, detection in objects]
    truth.dataset = {
        "images": [
            {"id": image, "height": sample.image.shape[0], "width": sample.image.shape[1]}
            for image, sample in enumerate(chosen.samples)
        ],
        "categories": [{"id": category} for category in {each["category_id"] for each in found}],
        "annotations": [annotation for annotation, _ in objects],
    }
    with redirect_stdout(io.StringIO()):  # pycocotools prints its progress and a table
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(found), iouType="segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return AveragePrecision(ap=float(evaluation.stats[0]), ap50=float(evaluation.stats[1]))


def _classed_objects(
    chosen: EvaluationSet, answers: Answers
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """COCO's annotation of each object that has a class, and its detection."""
    # From 1 on, since pycocotools takes an annotation with id 0 for no match.
    number = 0
    for image, (view, categories) in enumerate(zip(chosen.views, chosen.categories, strict=True)):
        for mask, category in zip(view.masks, categories, strict=True):
            number += 1
            if category is None:
                continue
            shared = {"image_id": image, "category_id": category}
            annotation = {
                **shared,
                "id": number,
                "segmentation": encode(mask),
                "area": int(mask.sum()),
                "iscrowd": 0,
            }
            detection = {
                **shared,
                "segmentation": answers.masks[number - 1],
                "score": float(answers.confidence[number - 1]),
            }
            yield annotation, detection
