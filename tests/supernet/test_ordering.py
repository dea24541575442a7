"""Prioritisation: the important neurons and heads come first, and the function stays the same."""

from collections.abc import Callable

import pytest
import torch
from scoring import METHODS
from tiny import GEOMETRY, random_images, randomised_sam, subnet, tiny_space
from torch import nn

from hwsearch.supernet.ordering import rearranged, reorder
from hwsearch.supernet.scores import LayerScores
from hwsearch.supernet.supernet import Supernet

each_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
Method = Callable[[Supernet], tuple[LayerScores, ...]]


@each_method
def test_reordering_leaves_the_function_unchanged(supernet: Supernet, method: Method):
    images = random_images(128, seed=3)
    scores = method(supernet)
    with torch.no_grad():
        before = supernet.sam.image_encoder(images)
        digest = supernet.weights_digest()
        reorder(supernet, scores)
        after = supernet.sam.image_encoder(images)
    assert supernet.weights_digest() != digest
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


@each_method
def test_after_reordering_the_first_have_the_higher_scores(supernet: Supernet, method: Method):
    """Measured anew, the scores are those from before in their new places, and descend."""
    before = method(supernet)
    moved = rearranged(before, reorder(supernet, before))
    for old, new, expected in zip(before, method(supernet), moved, strict=True):
        for kind in ("neurons", "heads"):
            mixed_up, in_order = getattr(old, kind), getattr(new, kind)
            assert (mixed_up.diff() > 0).any()
            assert (getattr(expected, kind).diff() <= 0).all()
            # Within rounding, as the sums have another order now.
            scale = mixed_up.max().item()
            torch.testing.assert_close(
                in_order, getattr(expected, kind), rtol=2e-3, atol=1e-4 * scale
            )


def test_what_scores_the_same_keeps_its_place(supernet: Supernet):
    digest = supernet.weights_digest()
    even = LayerScores(neurons=torch.ones(64), heads=torch.zeros(4))
    reorder(supernet, [even] * GEOMETRY.depth)
    assert supernet.weights_digest() == digest


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
@each_method
def test_what_does_nothing_is_cut_off_first(
    method: Method, silence: Callable[[nn.Module], None], change: dict[str, int]
):
    """Half of the parts are silent: after reordering, the half-size subnet is the full model."""
    sam = randomised_sam(5)
    silence(sam)
    supernet = Supernet(sam, GEOMETRY, tiny_space())
    scores = method(supernet)
    images = random_images(128, seed=3)
    with torch.no_grad():
        full = supernet.sam.image_encoder(images)
        before = supernet.extract(subnet(**change)).image_encoder(images)
        reorder(supernet, scores)
        after = supernet.extract(subnet(**change)).image_encoder(images)
    assert (before - full).abs().max() > 0.1
    torch.testing.assert_close(after, full, rtol=1e-4, atol=1e-4)
