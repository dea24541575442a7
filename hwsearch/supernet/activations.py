"""What flows through a layer: norms of activations over calibration images."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hwsearch.supernet.supernet import Supernet


@dataclass(frozen=True, eq=False)
class ActivationNorms:
    """L2 norms over all tokens seen: inputs of `lin1` (C), of `lin2` (M) and of `proj` (H·D)."""

    mlp_input: Tensor
    mlp_hidden: Tensor
    attention_output: Tensor


def activation_norms(supernet: Supernet, run: Callable[[], object]) -> tuple[ActivationNorms, ...]:
    """Watch the activations of the full encoder while `run` passes calibration images through it.

    Args:
        supernet: its full image encoder is watched.
        run: encodes the images with `supernet.sam`.

    Returns:
        One record for each layer.
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
    return tuple(ActivationNorms(*(total.sqrt().clone() for total in three)) for three in sums)


def _watched(stack: ExitStack, module: nn.Linear) -> Tensor:
    """Sums of the squares of a module's input features, growing with each call in the context."""
    total = torch.zeros(module.in_features, device=module.weight.device)

    def add(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        total.add_(inputs[0].float().square().flatten(0, -2).sum(dim=0))

    handle = module.register_forward_pre_hook(add)
    stack.callback(handle.remove)
    return total
