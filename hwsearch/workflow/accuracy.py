"""Which images a search sees, and which are kept for its final figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hwsearch.data.dataset import split_in_half
from hwsearch.data.open import has_split, open_dataset
from hwsearch.evaluation import EvaluationSet, evaluate, evaluation_set
from hwsearch.records import Framing, Precision, SubnetConfig
from hwsearch.search.accuracy_cache import AccuracyContext
from hwsearch.supernet.supernet import Supernet

DEFAULT_VIEWS = 96


@dataclass(frozen=True)
class SearchData:
    """Two disjoint sets: `search` decides between subnets, `final` gives the figures to quote.

    `final_split` says what the second one is: `test`, or a half of `val` where there is no test.
    """

    search: EvaluationSet
    final: EvaluationSet
    search_split: str
    final_split: str


def search_data(
    source: str, *, framing: Framing, max_views: int = DEFAULT_VIEWS, seed: int = 0
) -> SearchData:
    """The two sets of a data folder, or of `scenes`.

    Without a test split the validation images are halved by a hash of their names.

    Args:
        source: a data folder, or `scenes`.
        framing: whole images, or windows around objects.
        max_views: at most so many views in each set.
        seed: draws the views.

    Raises:
        DataError: the data can't be used, or has no split `val`.
    """
    validation = open_dataset(source, "val")
    if has_split(source, "test"):
        parts, names = (validation, open_dataset(source, "test")), ("val", "test")
    else:
        parts, names = split_in_half(validation), ("val, first half", "val, second half")
    search, final = (
        evaluation_set(part, framing=framing, max_views=max_views, seed=seed) for part in parts
    )
    return SearchData(search=search, final=final, search_split=names[0], final_split=names[1])


def inherited_accuracy(
    supernet: Supernet, chosen: EvaluationSet
) -> Callable[[SubnetConfig], float]:
    """A function from a subnet to its mIoU with the supernet's weights as they are."""
    return lambda config: evaluate(supernet.extract(config), chosen).miou


def accuracy_context(
    supernet: Supernet,
    chosen: EvaluationSet,
    split: str,
    *,
    runtimes: Mapping[Precision, str] | None = None,
) -> AccuracyContext:
    """What such an accuracy depends on; it keys the cache.

    Args:
        supernet: whose subnets are judged.
        chosen: what they are judged on.
        split: what that is called.
        runtimes: what computes each precision that PyTorch does not.
    """
    return AccuracyContext(
        supernet_id=supernet.id,
        weights_digest=supernet.weights_digest(),
        data=chosen.data,
        data_fingerprint=chosen.fingerprint,
        split=split,
        framing=chosen.framing,
        runtimes=dict(runtimes or {}),
    )
