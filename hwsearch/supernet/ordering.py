"""Parameter prioritisation: neurons and heads in order of importance, the function unchanged.

Slicing keeps the first neurons of an MLP and the first heads of an attention, so the important
ones have to come first (SuperSAM, arXiv 2501.08504).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from segment_anything.modeling.common import MLPBlock
from segment_anything.modeling.image_encoder import Attention
from torch import Tensor

from hwsearch.supernet.scores import LayerScores
from hwsearch.supernet.supernet import Supernet


@dataclass(frozen=True, eq=False)
class LayerOrder:
    """Which neuron (M) and which head (H) comes to each place of a layer."""

    neurons: Tensor
    heads: Tensor


def reorder(supernet: Supernet, scores: Sequence[LayerScores]) -> tuple[LayerOrder, ...]:
    """Sort the neurons and heads of every layer by descending score, in place.

    Rows and columns move together, so the function stays the same up to rounding. What scores
    the same keeps its order.

    Args:
        supernet: its full encoder is permuted.
        scores: one for each layer.

    Returns:
        What was done, for `rearranged`.
    """
    orders = tuple(
        LayerOrder(neurons=_descending(layer.neurons), heads=_descending(layer.heads))
        for layer in scores
    )
    with torch.no_grad():
        for block, order in zip(supernet.sam.image_encoder.blocks, orders, strict=True):
            _permute_neurons(block.mlp, order.neurons)
            _permute_heads(block.attn, order.heads)
    return orders


def rearranged(
    scores: Sequence[LayerScores], orders: Sequence[LayerOrder]
) -> tuple[LayerScores, ...]:
    """Scores taken before `reorder`, as they stand after it."""
    return tuple(
        LayerScores(neurons=layer.neurons[order.neurons], heads=layer.heads[order.heads])
        for layer, order in zip(scores, orders, strict=True)
    )


def _descending(scores: Tensor) -> Tensor:
    return scores.argsort(descending=True, stable=True)


def _permute_neurons(mlp: MLPBlock, order: Tensor) -> None:
    mlp.lin1.weight.copy_(mlp.lin1.weight[order])
    mlp.lin1.bias.copy_(mlp.lin1.bias[order])
    mlp.lin2.weight.copy_(mlp.lin2.weight[:, order])


def _permute_heads(attention: Attention, order: Tensor) -> None:
    heads = attention.num_heads
    for packed in (attention.qkv.weight, attention.qkv.bias):
        by_head = packed.unflatten(0, (3, heads, -1))
        packed.copy_(by_head[:, order].flatten(0, 2))
    columns = attention.proj.weight.unflatten(1, (heads, -1))
    attention.proj.weight.copy_(columns[:, order].flatten(1, 2))
