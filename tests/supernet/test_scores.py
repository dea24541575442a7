"""Scores follow their formulas, and find what was planted."""

import math
from collections.abc import Callable

import pytest
import torch
from scoring import METHODS
from tiny import random_images

from hwsearch.errors import UsageError
from hwsearch.supernet.activations import activation_norms
from hwsearch.supernet.scores import (
    ORDERINGS,
    LayerScores,
    magnitude_scores,
    parse_ordering,
    wanda_scores,
)
from hwsearch.supernet.supernet import Supernet

LAYERS = {"global": 1, "windowed": 2}


def test_wanda_follows_its_formula(supernet: Supernet):
    block = supernet.sam.image_encoder.blocks[1]
    norms = activation_norms(supernet, lambda: supernet.sam.image_encoder(random_images(128)))
    scores = wanda_scores(supernet, norms)[1]
    w1, w2 = block.mlp.lin1.weight.tolist(), block.mlp.lin2.weight.tolist()
    x1, x2 = norms[1].mlp_input.tolist(), norms[1].mlp_hidden.tolist()
    for i, score in enumerate(scores.neurons.tolist()):
        a = math.fsum(abs(w1[i][j]) * x1[j] for j in range(32))
        b = math.fsum(abs(w2[k][i]) * x2[i] for k in range(32))
        assert score == pytest.approx((a / 32 + b / 32) / 2, rel=1e-4)
    weight, norm = block.attn.proj.weight.tolist(), norms[1].attention_output.tolist()
    for head, score in enumerate(scores.heads.tolist()):
        columns = range(8 * head, 8 * head + 8)
        entries = [
            abs(weight[row][column]) * norm[column] for row in range(32) for column in columns
        ]
        assert score == pytest.approx(math.fsum(entries) / len(entries), rel=1e-4)


def test_magnitude_is_the_mean_over_all_that_a_part_owns(supernet: Supernet):
    block, scores = supernet.sam.image_encoder.blocks[1], magnitude_scores(supernet)[1]
    w1, w2 = block.mlp.lin1.weight.tolist(), block.mlp.lin2.weight.tolist()
    qkv, proj = block.attn.qkv.weight.tolist(), block.attn.proj.weight.tolist()
    for i in (0, 31, 63):
        entries = [abs(value) for value in [*w1[i], *(row[i] for row in w2)]]
        assert scores.neurons[i].item() == pytest.approx(math.fsum(entries) / 64, rel=1e-5)
    for head in range(4):
        own = range(8 * head, 8 * head + 8)
        rows = [qkv[32 * part + place] for part in range(3) for place in own]  # q, then k, then v
        entries = [abs(value) for row in rows for value in row]
        entries += [abs(row[place]) for row in proj for place in own]
        expected = math.fsum(entries) / len(entries)
        assert scores.heads[head].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_magnitude_does_not_let_signs_cancel(supernet: Supernet, layer: int):
    """Large entries of alternating sign: their signed sum is zero."""
    block = supernet.sam.image_encoder.blocks[layer]
    signs = torch.tensor([2.0, -2.0]).repeat(16)
    block.mlp.lin1.weight.data[5], block.mlp.lin2.weight.data[:, 5] = signs, -signs
    block.attn.proj.weight.data.unflatten(1, (4, 8))[:, 2] = signs[:, None]
    scores = magnitude_scores(supernet)[layer]
    assert (scores.neurons.argmax(), scores.heads.argmax()) == (5, 2)


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_what_was_made_to_matter_comes_first(
    supernet: Supernet, method: Callable[[Supernet], tuple[LayerScores, ...]], layer: int
):
    """One neuron and one head speak 30 times as loudly as the others of their layer."""
    block = supernet.sam.image_encoder.blocks[layer]
    block.mlp.lin2.weight.data.mul_(0.1)[:, 9] *= 30
    block.attn.proj.weight.data.mul_(0.1).unflatten(1, (4, 8))[:, 3] *= 30
    scores = method(supernet)[layer]
    assert (scores.neurons.argmax(), scores.heads.argmax()) == (9, 3)


@pytest.mark.parametrize("method", ["wanda", "taylor"])
def test_what_is_never_active_does_not_matter_whatever_its_weights(supernet: Supernet, method: str):
    """Only magnitude is taken in by a silent head with large outgoing weights."""
    attention = supernet.sam.image_encoder.blocks[1].attn
    for packed in (attention.qkv.weight, attention.qkv.bias):
        packed.data.unflatten(0, (3, 4, 8))[2, 1] = 0  # the values of head 1
    attention.proj.weight.data.unflatten(1, (4, 8))[:, 1] *= 30
    assert magnitude_scores(supernet)[1].heads.argmax() == 1
    assert METHODS[method](supernet)[1].heads.argmin() == 1


def test_orderings_are_known_by_name():
    assert [parse_ordering(name) for name in ORDERINGS] == ["none", "magnitude", "wanda", "taylor"]
    with pytest.raises(UsageError, match=r"no ordering 'Wanda': take one of none, magnitude"):
        parse_ordering("Wanda")
