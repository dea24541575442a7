"""What each layer, and its MLP alone, is worth: found by few-shot evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from segment_anything.modeling import Sam
from torch import nn

from hwsearch.progress import Progress, SilentProgress
from hwsearch.records import LayerImportance
from hwsearch.space import SearchSpace
from hwsearch.supernet.supernet import Supernet

Score = Callable[[Sam], float]

# The least and the most important layer of a kind are left out with these probabilities.
MOST_REMOVED, LEAST_REMOVED = 0.7, 0.1


def layer_importance(
    supernet: Supernet, score: Score, *, progress: Progress | None = None
) -> tuple[LayerImportance, ...]:
    """Take away each removable layer of the largest subnet in turn, and then its MLP alone.

    Args:
        supernet: not changed.
        score: mIoU of a model on a few images.
        progress: who shows the layers.

    Returns:
        One record for each removable layer, in the order of the layers.
    """
    progress = progress or SilentProgress()
    removable = [choices.index for choices in supernet.space.layers if choices.removable]
    drops: dict[int, float] = {}
    mlp_drops: dict[int, float] = {}
    with progress.task("layer importance", 2 * len(removable) + 1) as advance:
        full = score(supernet.sam)
        advance(1, f"all layers: mIoU {full:.3f}")
        for index in removable:
            drops[index] = full - score(_without_layer(supernet, index))
            advance(1, f"without layer {index}: {-drops[index]:+.3f}")
            mlp_drops[index] = full - score(_without_mlp(supernet, index))
            advance(1, f"without the MLP of layer {index}: {-mlp_drops[index]:+.3f}")
    return graded(drops, supernet.geometry.global_layers, mlp_drops=mlp_drops)


def _without_layer(supernet: Supernet, index: int) -> Sam:
    largest = supernet.space.largest
    rest = tuple(layer for layer in largest.layers if layer.index != index)
    return supernet.extract_any(largest.model_copy(update={"layers": rest}))


def _without_mlp(supernet: Supernet, index: int) -> Sam:
    """The largest subnet, a copy, in which the MLP of a layer adds nothing to its tokens."""
    sam = supernet.extract(supernet.space.largest)
    last = sam.image_encoder.blocks[index].mlp.lin2
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return sam


def graded(
    drops: Mapping[int, float],
    global_layers: Sequence[int],
    *,
    mlp_drops: Mapping[int, float] | None = None,
) -> tuple[LayerImportance, ...]:
    """Removal probabilities by rank of importance, windowed and global layers ranked apart.

    The two kinds differ in cost and number, so that one ranking would empty the cheaper kind.
    Layers of equal importance share the mean of their ranks.

    Args:
        drops: layer index → mIoU lost without that layer.
        global_layers: indices of the layers with global attention.
        mlp_drops: layer index → mIoU lost without that layer's MLP; only passed on.
    """
    mlp_drops = mlp_drops or {}
    return tuple(
        LayerImportance(
            index=index,
            is_global=index in global_layers,
            miou_drop=drop,
            mlp_drop=mlp_drops.get(index),
            removal_probability=_removal_probability(
                drop,
                [
                    other
                    for place, other in drops.items()
                    if (place in global_layers) == (index in global_layers)
                ],
            ),
        )
        for index, drop in sorted(drops.items())
    )


def _removal_probability(drop: float, of_its_kind: Sequence[float]) -> float:
    if len(of_its_kind) == 1:
        return (MOST_REMOVED + LEAST_REMOVED) / 2
    lesser = sum(other < drop for other in of_its_kind)
    ties = sum(other == drop for other in of_its_kind) - 1
    share = (lesser + ties / 2) / (len(of_its_kind) - 1)
    return MOST_REMOVED + share * (LEAST_REMOVED - MOST_REMOVED)


def with_uniform_removal(importance: Sequence[LayerImportance]) -> tuple[LayerImportance, ...]:
    """The same records, each with the mean of all removal probabilities.

    Random subnets are then as deep on average, but drawn blind to what a layer is worth: what
    graded probabilities bring is measured against it. Only where more layers are drawn than may
    go does the order of removal still decide.
    """
    if not importance:
        return ()
    mean = fmean(layer.removal_probability for layer in importance)
    return tuple(layer.model_copy(update={"removal_probability": mean}) for layer in importance)


def with_removal_order(space: SearchSpace, importance: Sequence[LayerImportance]) -> SearchSpace:
    """The same space, its least important layers first in the order of removal."""
    ranked = sorted(importance, key=lambda layer: layer.miou_drop)
    order = tuple(layer.index for layer in ranked)
    return SearchSpace.model_validate(space.model_dump() | {"removal_order": order})
