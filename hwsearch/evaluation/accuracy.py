"""From a model and a data set to the record of its accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from segment_anything.modeling import Sam

from hwsearch.errors import UsageError
from hwsearch.evaluation.answers import Answers, Floats, ask
from hwsearch.evaluation.average_precision import average_precision
from hwsearch.evaluation.intervals import Clustered, mean_interval
from hwsearch.evaluation.prompts import Prompt
from hwsearch.evaluation.segmenter import SamSegmenter, Segmenter
from hwsearch.evaluation.sets import EvaluationSet
from hwsearch.progress import Progress
from hwsearch.records import Accuracy

# COCO's bounds between small, medium and large objects, in pixels of area.
SIZE_BOUNDS = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 10**12)}


def evaluate(
    sam: Sam,
    chosen: EvaluationSet,
    *,
    prompts: Sequence[Prompt] = ("box",),
    batch: int | None = None,
    progress: Progress | None = None,
) -> Accuracy:
    """Mean IoU over all instances, each prompted from its ground truth.

    `miou` takes the multi-mask output of the highest predicted IoU, `miou_oracle` the best of
    them by ground truth. Masks are compared at the resolution of the view. AP is left out; see
    `accuracy_of`.

    Args:
        sam: a plain model, such as an extracted subnet.
        chosen: what to evaluate on.
        prompts: "box" for ground-truth boxes, "point" for one click, or both from one encoding.
            The first is the prompt of `miou`; with "point", `one_click_miou` is given too.
        batch: images encoded at once; None for as many as `default_batch` says.
        progress: who shows the images.

    Raises:
        UsageError: there is no prompt.
    """
    return evaluate_segmenter(
        SamSegmenter(sam), chosen, prompts=prompts, batch=batch, progress=progress
    )


def evaluate_segmenter(
    segmenter: Segmenter,
    chosen: EvaluationSet,
    *,
    prompts: Sequence[Prompt] = ("box",),
    batch: int | None = None,
    progress: Progress | None = None,
) -> Accuracy:
    """As `evaluate`, for anything that segments, such as an exported bundle."""
    answers = ask(segmenter, chosen, prompts=prompts, batch=batch, progress=progress)
    return accuracy_of(chosen, answers)


def accuracy_of(chosen: EvaluationSet, answers: Mapping[Prompt, Answers]) -> Accuracy:
    """Sum up a model's answers; the first prompt is the one of `miou`.

    AP is computed where objects have classes and the masks of box prompts were kept.

    Raises:
        UsageError: there are no answers.
    """
    if not answers:
        raise UsageError("Accuracy needs a prompt: ask with box, point or both.")
    prompt, main = next(iter(answers.items()))
    click, box = answers.get("point"), answers.get("box")
    precision = average_precision(chosen, box) if box and box.masks else None
    return Accuracy(
        miou=float(main.selected.mean()),
        miou_oracle=float(main.oracle.mean()),
        miou_interval=mean_interval([Clustered(main.selected, chosen.clusters)]),
        instances=chosen.instances,
        images=chosen.images,
        data=chosen.data,
        split=chosen.split,
        framing=chosen.framing,
        prompt=prompt,
        miou_by_size=_by_size(main.selected, chosen),
        one_click_miou=float(click.selected.mean()) if click else None,
        one_click_miou_oracle=float(click.oracle.mean()) if click else None,
        ap=precision.ap if precision else None,
        ap50=precision.ap50 if precision else None,
    )


def _by_size(ious: Floats, chosen: EvaluationSet) -> dict[str, float]:
    areas = chosen.areas
    groups = {
        name: ious[(areas >= low) & (areas < high)] for name, (low, high) in SIZE_BOUNDS.items()
    }
    return {name: float(group.mean()) for name, group in groups.items() if len(group)}
