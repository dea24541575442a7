"""How much each neuron and each head matters: by its weights, or by weights and activations.

`taylor.py` has the third method, which asks the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from segment_anything.modeling.common import MLPBlock
from segment_anything.modeling.image_encoder import Attention
from torch import Tensor

from hwsearch.errors import UsageError
from hwsearch.supernet.activations import ActivationNorms
from hwsearch.supernet.supernet import Supernet

Ordering = Literal["none", "magnitude", "wanda", "taylor"]
ORDERINGS: tuple[Ordering, ...] = get_args(Ordering)


@dataclass(frozen=True, eq=False)
class LayerScores:
    """Scores of a layer's MLP neurons (M) and heads (H); what scores low is cut off first."""

    neurons: Tensor
    heads: Tensor


def parse_ordering(text: str) -> Ordering:
    """The ordering of this name.

    Raises:
        UsageError: there is none.
    """
    for ordering in ORDERINGS:
        if text == ordering:
            return ordering
    raise UsageError(f"There is no ordering {text!r}: take one of {', '.join(ORDERINGS)}.")


@torch.no_grad()
def magnitude_scores(supernet: Supernet) -> tuple[LayerScores, ...]:
    """Mean |W| of each neuron and head of the full encoder, layer by layer.

    A neuron owns its row of lin1 and its column of lin2, a head its rows of q, k and v and its
    columns of proj; biases are left out.
    """
    return tuple(
        LayerScores(neurons=_neuron_magnitude(block.mlp), heads=_head_magnitude(block.attn))
        for block in supernet.sam.image_encoder.blocks
    )


def _neuron_magnitude(mlp: MLPBlock) -> Tensor:
    incoming, outgoing = mlp.lin1.weight.abs().mean(dim=1), mlp.lin2.weight.abs().mean(dim=0)
    mean: Tensor = (incoming + outgoing) / 2
    return mean


def _head_magnitude(attention: Attention) -> Tensor:
    heads = attention.num_heads
    rows = attention.qkv.weight.abs().unflatten(0, (3, heads, -1)).mean(dim=(2, 3))
    columns = attention.proj.weight.abs().unflatten(1, (heads, -1)).mean(dim=(0, 2))
    # The four matrices of a head are of one size, so the mean of their means is that of all.
    mean: Tensor = torch.cat([rows, columns[None]]).mean(dim=0)
    return mean


@torch.no_grad()
def wanda_scores(supernet: Supernet, norms: Sequence[ActivationNorms]) -> tuple[LayerScores, ...]:
    """Wanda-style score of each neuron and head of the full encoder, layer by layer.

    Neurons: with a_i = Σ_j |W1[i,j]|·‖X1[:,j]‖₂ over a neuron's row of lin1, and
    b_i = Σ_k |W2[k,i]|·‖X2[:,i]‖₂ over its column of lin2, the score is (a_i/J + b_i/K) / 2:
    the mean over each matrix's entries (Wanda, arXiv 2306.11695; SuperSAM, arXiv 2501.08504).
    Heads: mean |W|·‖X‖₂ over a head's columns of proj.

    Args:
        supernet: whose weights are looked at.
        norms: one for each layer, as `activation_norms` returns them.
    """
    return tuple(
        LayerScores(neurons=_neuron_wanda(block.mlp, seen), heads=_head_wanda(block.attn, seen))
        for block, seen in zip(supernet.sam.image_encoder.blocks, norms, strict=True)
    )


def _neuron_wanda(mlp: MLPBlock, norms: ActivationNorms) -> Tensor:
    incoming = (mlp.lin1.weight.abs() * norms.mlp_input).mean(dim=1)
    outgoing = mlp.lin2.weight.abs().mean(dim=0) * norms.mlp_hidden
    scores: Tensor = (incoming + outgoing) / 2
    return scores


def _head_wanda(attention: Attention, norms: ActivationNorms) -> Tensor:
    columns = attention.proj.weight.abs().mean(dim=0) * norms.attention_output
    scores: Tensor = columns.unflatten(0, (attention.num_heads, -1)).mean(dim=1)
    return scores
