"""Figures that a training logs as it goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hwsearch.data.dataset import distinct_names
from hwsearch.data.open import open_dataset
from hwsearch.evaluation import EvaluationSet, evaluate, evaluation_set
from hwsearch.records import Framing, SubnetConfig
from hwsearch.space import SearchSpace
from hwsearch.supernet.supernet import Supernet
from hwsearch.supernet.training.train import Validate

VALIDATED = {"largest": 1.0, "two_thirds": 2 / 3, "one_third": 1 / 3, "smallest": 0.0}


def validation_sets(
    sources: Sequence[str], *, framing: Framing, max_views: int
) -> list[EvaluationSet]:
    """A few views of the validation split of each source."""
    return [
        evaluation_set(open_dataset(source, "val"), framing=framing, max_views=max_views)
        for source in sources
    ]


def validation(
    sources: Sequence[str],
    *,
    framing: Framing,
    max_views: int,
    subnets: Mapping[str, SubnetConfig] | None = None,
) -> Validate:
    """A function that gives the mIoU of a few fixed subnets on each source.

    Args:
        sources: data folders, or `scenes`; their split `val` is used.
        framing: how the model sees the data.
        max_views: so many views of each source.
        subnets: by the names that they are logged under; None for the largest, the smallest, and
            the regular ones a third and two thirds of the way up, each once.
    """
    sets = validation_sets(sources, framing=framing, max_views=max_views)
    names = distinct_names([chosen.data for chosen in sets])

    def validate(supernet: Supernet) -> dict[str, float]:
        figures: dict[str, float] = {}
        for name, config in (subnets or _regular(supernet.space)).items():
            sam = supernet.extract(config)
            mious = {
                data: evaluate(sam, chosen).miou for data, chosen in zip(names, sets, strict=True)
            }
            figures |= {f"{name}/{data}": miou for data, miou in mious.items()}
            figures[f"{name}/mean"] = sum(mious.values()) / len(mious)
        return figures

    return validate


def _regular(space: SearchSpace) -> dict[str, SubnetConfig]:
    """By name; where a small space has one subnet for several names, it has the first."""
    found: dict[str, SubnetConfig] = {}
    for name, share in VALIDATED.items():
        config = space.between(share)
        if config not in found.values():
            found[name] = config
    return found
