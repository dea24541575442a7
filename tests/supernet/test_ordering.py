"""Prioritisation: the important neurons and heads come first, and the function stays the same."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from segment_anything.modeling.image_encoder import window_partition
from tiny import GEOMETRY, random_images, randomised_sam, subnet, tiny_space
from torch import Tensor, nn
from torch.nn import functional as F

from hwsearch.supernet.ordering import (
    LayerStatistics,
    collect_statistics,
    head_scores,
    neuron_scores,
    reorder,
)
from hwsearch.supernet.supernet import Supernet


def calibrate(supernet: Supernet) -> tuple[LayerStatistics, ...]:
    """Statistics over two batches."""

    def run() -> None:
        for seed in (1, 2):
            supernet.sam.image_encoder(random_images(128, seed=seed))

    return collect_statistics(supernet, run)


def norms(tokens: list[Tensor]) -> Tensor:
    """L2 norm of each feature over all tokens."""
    return torch.cat([some.flatten(0, -2) for some in tokens]).norm(dim=0)


def test_statistics_are_norms_over_all_images(supernet: Supernet):
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
        collect_statistics(supernet, fail)
    assert not any(module._forward_pre_hooks for module in supernet.sam.modules())


def test_neuron_scores_follow_their_formula(supernet: Supernet):
    block, seen = supernet.sam.image_encoder.blocks[1], calibrate(supernet)[1]
    w1, w2 = block.mlp.lin1.weight.tolist(), block.mlp.lin2.weight.tolist()
    x1, x2 = seen.mlp_input.tolist(), seen.mlp_hidden.tolist()
    scores = neuron_scores(block.mlp, seen).tolist()
    for i, score in enumerate(scores):
        a = math.fsum(abs(w1[i][j]) * x1[j] for j in range(32))
        b = math.fsum(abs(w2[k][i]) * x2[i] for k in range(32))
        assert score == pytest.approx((a / 32 + b / 32) / 2, rel=1e-4)


def test_head_scores_follow_their_formula(supernet: Supernet):
    attention, seen = supernet.sam.image_encoder.blocks[1].attn, calibrate(supernet)[1]
    weight, norm = attention.proj.weight.tolist(), seen.attention_output.tolist()
    scores = head_scores(attention, seen).tolist()
    for head, score in enumerate(scores):
        columns = range(8 * head, 8 * head + 8)
        entries = [
            abs(weight[row][column]) * norm[column] for row in range(32) for column in columns
        ]
        assert score == pytest.approx(math.fsum(entries) / len(entries), rel=1e-4)


def test_reordering_leaves_the_function_unchanged(supernet: Supernet):
    images = random_images(128, seed=3)
    with torch.no_grad():
        before = supernet.sam.image_encoder(images)
        digest = supernet.weights_digest()
        reorder(supernet, calibrate(supernet))
        after = supernet.sam.image_encoder(images)
    assert supernet.weights_digest() != digest
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


def test_after_reordering_the_first_have_the_higher_scores(supernet: Supernet):
    blocks = supernet.sam.image_encoder.blocks

    def scores() -> list[tuple[Tensor, Tensor]]:
        seen = calibrate(supernet)
        return [
            (neuron_scores(b.mlp, s), head_scores(b.attn, s))
            for b, s in zip(blocks, seen, strict=True)
        ]

    before = scores()
    reorder(supernet, calibrate(supernet))
    for old, new in zip(before, scores(), strict=True):
        for mixed_up, in_order in zip(old, new, strict=True):
            assert (mixed_up.diff() > 0).any()
            # The same scores, sorted; within rounding, as the sums have another order now.
            torch.testing.assert_close(
                in_order, mixed_up.sort(descending=True).values, rtol=1e-4, atol=0
            )


def silence_every_other_neuron(sam: nn.Module) -> None:
    for block in sam.image_encoder.blocks:
        block.mlp.lin1.weight.data[::2] = 0
        block.mlp.lin1.bias.data[::2] = 0
        block.mlp.lin2.weight.data[:, ::2] = 0


def silence_every_other_head(sam: nn.Module) -> None:
    for block in sam.image_encoder.blocks:
        block.attn.proj.weight.data.unflatten(1, (4, 8))[:, ::2] = 0


@pytest.mark.parametrize(
    ("silence", "change"),
    [
        (silence_every_other_neuron, {"mlp_width": 32}),
        (silence_every_other_head, {"heads": 2}),
    ],
)
def test_what_does_nothing_is_cut_off_first(
    silence: Callable[[nn.Module], None], change: dict[str, int]
):
    """Half of the parts are silent: after reordering, the half-size subnet is the full model."""
    sam = randomised_sam(5)
    silence(sam)
    supernet = Supernet(sam, GEOMETRY, tiny_space())
    images = random_images(128, seed=3)
    with torch.no_grad():
        full = supernet.sam.image_encoder(images)
        before = supernet.extract(subnet(**change)).image_encoder(images)
        reorder(supernet, calibrate(supernet))
        after = supernet.extract(subnet(**change)).image_encoder(images)
    assert (before - full).abs().max() > 0.1
    torch.testing.assert_close(after, full, rtol=1e-4, atol=1e-4)
