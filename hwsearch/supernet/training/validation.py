"""Figures that a training logs as it goes."""

from __future__ import annotations

from collections.abc import Sequence

from hwsearch.data.open import open_dataset
from hwsearch.evaluation import EvaluationSet, evaluate, evaluation_set
from hwsearch.records import Framing
from hwsearch.supernet.supernet import Supernet
from hwsearch.supernet.training.train import Validate


def validation_sets(
    sources: Sequence[str], *, framing: Framing, max_views: int
) -> list[EvaluationSet]:
    """A few views of the validation split of each source."""
    return [
        evaluation_set(open_dataset(source, "val"), framing=framing, max_views=max_views)
        for source in sources
    ]


def validation(sources: Sequence[str], *, framing: Framing, max_views: int) -> Validate:
    """A function that gives the mIoU of the largest and the smallest subnet on each source.

    Args:
        sources: data folders, or `scenes`; their split `val` is used.
        framing: how the model sees the data.
        max_views: so many views of each source.
    """
    sets = validation_sets(sources, framing=framing, max_views=max_views)

    def validate(supernet: Supernet) -> dict[str, float]:
        space = supernet.space
        subnets = {"largest": space.largest}
        if space.smallest != space.largest:
            subnets["smallest"] = space.smallest
        figures: dict[str, float] = {}
        for name, config in subnets.items():
            sam = supernet.extract(config)
            mious = {chosen.data: evaluate(sam, chosen).miou for chosen in sets}
            figures |= {f"{name}/{data}": miou for data, miou in mious.items()}
            figures[f"{name}/mean"] = sum(mious.values()) / len(mious)
        return figures

    return validate
