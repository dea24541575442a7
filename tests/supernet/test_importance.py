"""Which layers matter: found by leaving each one out."""

from itertools import pairwise
from statistics import mean

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
    with_uniform_removal,
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
            else:
                assert greater.removal_probability == lesser.removal_probability
        if kind:
            probabilities = [layer.removal_probability for layer in kind]
            assert mean(probabilities) == pytest.approx((MOST_REMOVED + LEAST_REMOVED) / 2)
        if len({layer.miou_drop for layer in kind}) == len(kind) > 1:
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


def test_equal_layers_share_the_mean_of_their_ranks():
    found = graded({1: 0.2, 2: 0.0, 3: 0.0, 4: 0.0, 5: 0.3}, ())
    probabilities = [layer.removal_probability for layer in found]
    assert probabilities == pytest.approx([0.25, 0.55, 0.55, 0.55, 0.1])
    alike = graded({1: 0.2, 2: 0.2, 3: 0.2}, (2,))
    assert [layer.removal_probability for layer in alike] == pytest.approx([0.4, 0.4, 0.4])


@given(drops, kinds)
def test_uniform_removal_leaves_out_as_many_layers_on_average(
    drops: dict[int, float], global_layers: set[int]
):
    importance = graded(drops, tuple(global_layers), mlp_drops=drops)
    uniform = with_uniform_removal(importance)
    assert len({layer.removal_probability for layer in uniform}) == 1
    assert sum(layer.removal_probability for layer in uniform) == pytest.approx(
        sum(layer.removal_probability for layer in importance)
    )
    for layer, before in zip(uniform, importance, strict=True):
        assert layer.mlp_drop == layer.miou_drop == drops[layer.index]
        same = {"removal_probability": before.removal_probability}
        assert layer.model_copy(update=same) == before


def test_without_layers_there_is_nothing_to_remove():
    assert with_uniform_removal(()) == ()


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
    for name in ("miou_drop", "mlp_drop"):
        loss = {layer.index: getattr(layer, name) for layer in found}
        assert loss.pop(useless) == pytest.approx(0, abs=1e-6)
        assert min(loss.values()) > 0.01
    assert with_removal_order(supernet.space, found).removal_order[0] == useless


def test_an_mlp_that_does_nothing_is_told_from_its_layer():
    sam = randomised_sam(6)
    for tensor in sam.image_encoder.blocks[2].mlp.lin2.parameters():
        tensor.data.zero_()
    with torch.no_grad():
        score = closeness(sam.image_encoder(random_images(128, count=1)))
    found = {
        layer.index: layer
        for layer in layer_importance(Supernet(sam, GEOMETRY, tiny_space()), score)
    }
    assert found[2].mlp_drop == pytest.approx(0, abs=1e-6)
    assert found[2].miou_drop > 0.01  # its attention still counts
    assert found[1].mlp_drop > 0.01


def test_each_layer_is_left_out_alone_and_then_its_mlp_alone(supernet: Supernet):
    depths: list[int] = []
    silent: list[list[int]] = []

    def score(sam: Sam) -> float:
        blocks = sam.image_encoder.blocks
        depths.append(len(blocks))
        silent.append([i for i, b in enumerate(blocks) if not b.mlp.lin2.weight.any()])
        return 0.5

    layer_importance(supernet, score, progress=SilentProgress())
    assert depths == [4, 3, 4, 3, 4, 3, 4]
    assert silent == [[], [], [1], [], [2], [], [3]]


def test_the_removal_order_changes_nothing_else(supernet: Supernet):
    found = graded({1: 0.3, 2: -0.1, 3: 0.2}, (1, 3))
    ordered = with_removal_order(supernet.space, found)
    assert ordered.removal_order == (2, 3, 1)
    assert ordered.model_copy(update={"removal_order": (2, 1, 3)}) == supernet.space
