"""Accuracy of a model on a data set: mIoU by box and by click, intervals over images, mask AP.

Every figure belongs to a prompt (a ground-truth box, or one click) and to a selection of the mask
among the model's multi-mask outputs (by predicted IoU, or by ground truth: the oracle).
"""

from __future__ import annotations

from hwsearch.evaluation.accuracy import SIZE_BOUNDS, accuracy_of, evaluate, evaluate_segmenter
from hwsearch.evaluation.answers import default_batch
from hwsearch.evaluation.segmenter import SamSegmenter, Segmenter
from hwsearch.evaluation.sets import OBJECT_CONTEXT, EvaluationSet, box_floor, evaluation_set

__all__ = [
    "OBJECT_CONTEXT",
    "SIZE_BOUNDS",
    "EvaluationSet",
    "SamSegmenter",
    "Segmenter",
    "accuracy_of",
    "box_floor",
    "default_batch",
    "evaluate",
    "evaluate_segmenter",
    "evaluation_set",
]
