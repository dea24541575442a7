"""Activations are watched exactly while calibration images pass."""

import copy

import pytest
import torch
from segment_anything.modeling.image_encoder import window_partition
from tiny import GEOMETRY, random_images
from torch import Tensor, nn
from torch.nn import functional as F

from hwsearch.supernet.activations import ActivationNorms, activation_norms
from hwsearch.supernet.supernet import Supernet


def calibrate(supernet: Supernet) -> tuple[ActivationNorms, ...]:
    """Norms over two batches."""

    def run() -> None:
        for seed in (1, 2):
            supernet.sam.image_encoder(random_images(128, seed=seed))

    return activation_norms(supernet, run)


def norms(tokens: list[Tensor]) -> Tensor:
    """L2 norm of each feature over all tokens."""
    return torch.cat([some.flatten(0, -2) for some in tokens]).norm(dim=0)


def test_norms_are_taken_over_all_images(supernet: Supernet):
    """Layer 0 worked out step by step."""
    encoder = supernet.sam.image_encoder
    block = encoder.blocks[0]
    open_attention = copy.deepcopy(block.attn)  # shows what goes into its proj
    open_attention.proj = nn.Identity()
    first_half = copy.deepcopy(block)  # its MLP adds nothing
    nn.init.zeros_(first_half.mlp.lin2.weight)
    nn.init.zeros_(first_half.mlp.lin2.bias)
    inputs, hidden, heads = [], [], []
    with torch.no_grad():
        for seed in (1, 2):
            x = encoder.patch_embed(random_images(128, seed=seed)) + encoder.pos_embed
            heads.append(open_attention(window_partition(block.norm1(x), 3)[0]))
            inputs.append(block.norm2(first_half(x)))
            hidden.append(F.gelu(block.mlp.lin1(inputs[-1])))
    seen = calibrate(supernet)[0]
    torch.testing.assert_close(seen.attention_output, norms(heads))
    torch.testing.assert_close(seen.mlp_input, norms(inputs))
    torch.testing.assert_close(seen.mlp_hidden, norms(hidden))


def test_watching_ends_with_the_run(supernet: Supernet):
    first, second = calibrate(supernet), calibrate(supernet)
    assert len(first) == GEOMETRY.depth
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.mlp_hidden, other.mlp_hidden)
    assert not any(module._forward_pre_hooks for module in supernet.sam.modules())


def test_watching_ends_after_a_failure(supernet: Supernet):
    def fail() -> None:
        raise OSError("unreadable image")

    with pytest.raises(OSError, match="unreadable image"):
        activation_norms(supernet, fail)
    assert not any(module._forward_pre_hooks for module in supernet.sam.modules())
