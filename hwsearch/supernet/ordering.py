"""Parameter prioritisation: neurons and heads in order of importance, the function unchanged.

Slicing keeps the first neurons of an MLP and the first heads of an attention, so the important
ones have to come first (SuperSAM, arXiv 2501.08504).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from segment_anything.modeling.common import MLPBlock
from segment_anything.modeling.image_encoder import Attention
from torch import Tensor, nn

from hwsearch.supernet.supernet import Supernet


@dataclass(frozen=True)
class LayerStatistics:
    """L2 norms over all tokens seen: inputs of `lin1` (C), of `lin2` (M) and of `proj` (H·D)."""

    mlp_input: Tensor
    mlp_hidden: Tensor
    attention_output: Tensor


def collect_statistics(
    supernet: Supernet, run: Callable[[], object]
) -> tuple[LayerStatistics, ...]:
    """Watch the activations of the full encoder while `run` passes calibration images through it.

    Args:
        supernet: its full image encoder is watched.
        run: encodes the images with `supernet.sam`.
    """
    blocks = supernet.sam.image_encoder.blocks
    with ExitStack() as stack:
        sums = [
            tuple(
                _watched(stack, module)
                for module in (block.mlp.lin1, block.mlp.lin2, block.attn.proj)
            )
            for block in blocks
        ]
        with torch.inference_mode():
            run()
    return tuple(LayerStatistics(*(total.sqrt().clone() for total in three)) for three in sums)


def _watched(stack: ExitStack, module: nn.Linear) -> Tensor:
    """Sums of the squares of a module's input features, growing with each call in the context."""
    total = torch.zeros(module.in_features, device=module.weight.device)

    def add(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        total.add_(inputs[0].float().square().flatten(0, -2).sum(dim=0))

    handle = module.register_forward_pre_hook(add)
    stack.callback(handle.remove)
    return total


def neuron_scores(mlp: MLPBlock, statistics: LayerStatistics) -> Tensor:
    """Wanda-style score (M) of each MLP neuron.

    With a_i = Σ_j |W1[i,j]|·‖X1[:,j]‖₂ over a neuron's row of lin1, and
    b_i = Σ_k |W2[k,i]|·‖X2[:,i]‖₂ over its column of lin2, the score is (a_i/J + b_i/K) / 2:
    the mean over each matrix's entries (Wanda, arXiv 2306.11695; SuperSAM, arXiv 2501.08504).
    """
    incoming = (mlp.lin1.weight.abs() * statistics.mlp_input).mean(dim=1)
    outgoing = mlp.lin2.weight.abs().mean(dim=0) * statistics.mlp_hidden
    scores: Tensor = (incoming + outgoing) / 2
    return scores


def head_scores(attention: Attention, statistics: LayerStatistics) -> Tensor:
    """Wanda-style score (H) of each head: mean |W|·‖X‖₂ over its columns of proj."""
    columns = attention.proj.weight.abs().mean(dim=0) * statistics.attention_output
    scores: Tensor = columns.unflatten(0, (attention.num_heads, -1)).mean(dim=1)
    return scores


@torch.no_grad()
def reorder(supernet: Supernet, statistics: tuple[LayerStatistics, ...]) -> None:
    """Sort the neurons and heads of every layer by descending score, in place.

    Rows and columns move together, so the function stays the same up to rounding.

    Args:
        supernet: its full encoder is permuted.
        statistics: one for each layer, as `collect_statistics` returns them.
    """
    for block, seen in zip(supernet.sam.image_encoder.blocks, statistics, strict=True):
        _permute_neurons(block.mlp, neuron_scores(block.mlp, seen).argsort(descending=True))
        _permute_heads(block.attn, head_scores(block.attn, seen).argsort(descending=True))


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
