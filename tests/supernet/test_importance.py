"""Which layers matter: found by leaving each one out."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from segment_anything.modeling import Sam
from tiny import GEOMETRY, random_images, randomised_sam, tiny_space

from hwsearch.progress import SilentProgress
from hwsearch.supernet.importance import (
    LEAST_REMOVED,
    MOST_REMOVED,
    graded,
    layer_importance,
    with_removal_order,
)
from hwsearch.supernet.supernet import Supernet

drops = st.dictionaries(
    st.integers(0, 20), st.floats(-0.5, 0.9, allow_nan=False), min_size=1, max_size=12
)
kinds = st.sets(st.integers(0, 20))


@given(drops, kinds)
def test_the_more_a_layer_matters_the_less_often_it_is_removed(
    drops: dict[int, float], global_layers: set[int]
):
    graded_layers = graded(drops, tuple(global_layers))
    assert [layer.index for layer in graded_layers] == sorted(drops)
    for is_global in (False, True):
        kind = [layer for layer in graded_layers if layer.is_global == is_global]
        assert all((layer.index in global_layers) == is_global for layer in kind)
        for lesser, greater in pairwise(sorted(kind, key=lambda layer: layer.miou_drop)):
            if greater.miou_drop > lesser.miou_drop:
                assert greater.removal_probability < lesser.removal_probability
        if len(kind) > 1:
            probabilities = [layer.removal_probability for layer in kind]
            assert max(probabilities) == pytest.approx(MOST_REMOVED)
            assert min(probabilities) == pytest.approx(LEAST_REMOVED)


def test_windowed_and_global_layers_are_ranked_apart():
    # Every global layer matters more than any windowed one; still one of them is often left out.
    found = graded({1: 0.01, 2: 0.02, 3: 0.03, 4: 0.5, 5: 0.6}, (4, 5))
    probabilities = {layer.index: layer.removal_probability for layer in found}
    assert probabilities == pytest.approx({1: 0.7, 2: 0.4, 3: 0.1, 4: 0.7, 5: 0.1})


def test_an_only_layer_of_its_kind_is_removed_half_way():
    (only,) = graded({3: 0.2}, (3,))
    assert only.removal_probability == pytest.approx(0.4)


def closeness(reference: torch.Tensor):
    """A score that is 1 for a model with the reference's embeddings, and falls with distance."""
    images = random_images(128, count=1)

    def score(sam: Sam) -> float:
        with torch.no_grad():
            return 1 / (1 + (sam.image_encoder(images) - reference).abs().mean().item())

    return score


@pytest.mark.parametrize("useless", [1, 2, 3])
def test_a_layer_that_does_nothing_is_found(useless: int):
    sam = randomised_sam(6)
    block = sam.image_encoder.blocks[useless]
    for layer in (block.attn.proj, block.mlp.lin2):
        layer.weight.data.zero_()
        layer.bias.data.zero_()
    supernet = Supernet(sam, GEOMETRY, tiny_space())
    before = supernet.weights_digest()
    with torch.no_grad():
        score = closeness(sam.image_encoder(random_images(128, count=1)))
    found = layer_importance(supernet, score)
    assert supernet.weights_digest() == before
    assert [layer.index for layer in found] == [1, 2, 3]  # layer 0 is not removable
    assert [layer.is_global for layer in found] == [True, False, True]
    loss = {layer.index: layer.miou_drop for layer in found}
    assert loss.pop(useless) == pytest.approx(0, abs=1e-6)
    assert min(loss.values()) > 0.01
    assert with_removal_order(supernet.space, found).removal_order[0] == useless


def test_only_one_layer_is_left_out_at_a_time(supernet: Supernet):
    depths = []

    def score(sam: Sam) -> float:
        depths.append(len(sam.image_encoder.blocks))
        return 0.5

    layer_importance(supernet, score, progress=SilentProgress())
    assert depths == [4, 3, 3, 3]


def test_the_removal_order_changes_nothing_else(supernet: Supernet):
    found = graded({1: 0.3, 2: -0.1, 3: 0.2}, (1, 3))
    ordered = with_removal_order(supernet.space, found)
    assert ordered.removal_order == (2, 3, 1)
    assert ordered.model_copy(update={"removal_order": (2, 1, 3)}) == supernet.space
