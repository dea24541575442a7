"""What each layer is worth, found by few-shot evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from segment_anything.modeling import Sam

from hwsearch.progress import Progress, SilentProgress
from hwsearch.records import LayerImportance, SubnetConfig
from hwsearch.space import SearchSpace
from hwsearch.supernet.supernet import Supernet

Score = Callable[[Sam], float]

# The least and the most important layer of a kind are left out with these probabilities.
MOST_REMOVED, LEAST_REMOVED = 0.7, 0.1


def layer_importance(
    supernet: Supernet, score: Score, *, progress: Progress | None = None
) -> tuple[LayerImportance, ...]:
    """Leave out each removable layer of the largest subnet in turn, and score what is left.

    Args:
        supernet: not changed.
        score: mIoU of a model on a few images.
        progress: who shows the layers.

    Returns:
        One record for each removable layer, in the order of the layers.
    """
    progress = progress or SilentProgress()
    removable = [choices.index for choices in supernet.space.layers if choices.removable]
    largest = supernet.space.largest
    with progress.task("layer importance", len(removable) + 1) as advance:
        full = score(supernet.sam)
        advance(1, f"all layers: mIoU {full:.3f}")
        drops = {}
        for index in removable:
            drops[index] = full - score(_without(supernet, largest, index))
            advance(1, f"without layer {index}: {-drops[index]:+.3f}")
    return graded(drops, supernet.geometry.global_layers)


def _without(supernet: Supernet, config: SubnetConfig, index: int) -> Sam:
    rest = tuple(layer for layer in config.layers if layer.index != index)
    return supernet.extract_any(config.model_copy(update={"layers": rest}))


def graded(drops: dict[int, float], global_layers: Sequence[int]) -> tuple[LayerImportance, ...]:
    """Removal probabilities by rank of importance, windowed and global layers ranked apart.

    The two kinds differ in cost and number, so that one ranking would empty the cheaper kind.

    Args:
        drops: layer index → mIoU lost without that layer.
        global_layers: indices of the layers with global attention.
    """
    probabilities: dict[int, float] = {}
    for is_global in (False, True):
        kind = [index for index in drops if (index in global_layers) == is_global]
        ranked = sorted(kind, key=lambda index: drops[index])
        for rank, index in enumerate(ranked):
            share = rank / (len(ranked) - 1) if len(ranked) > 1 else 0.5
            probabilities[index] = MOST_REMOVED + share * (LEAST_REMOVED - MOST_REMOVED)
    return tuple(
        LayerImportance(
            index=index,
            is_global=index in global_layers,
            miou_drop=drop,
            removal_probability=probabilities[index],
        )
        for index, drop in sorted(drops.items())
    )


def with_removal_order(space: SearchSpace, importance: Sequence[LayerImportance]) -> SearchSpace:
    """The same space, its least important layers first in the order of removal."""
    ranked = sorted(importance, key=lambda layer: layer.miou_drop)
    order = tuple(layer.index for layer in ranked)
    return SearchSpace.model_validate(space.model_dump() | {"removal_order": order})
