"""Taylor scores foretell what the loss does when a part is turned down a little."""

from dataclasses import fields, replace

import pytest
import torch
from scoring import tiny_batches
from torch import Tensor

from hwsearch.sam import decode
from hwsearch.supernet.supernet import Supernet
from hwsearch.supernet.taylor import taylor_scores
from hwsearch.supernet.training.batches import TrainingBatch
from hwsearch.supernet.training.losses import LossWeights, sam_loss

STEP = 1e-5


def part(batch: TrainingBatch, image: int) -> TrainingBatch:
    """One image of a batch."""
    return TrainingBatch(
        **{field.name: getattr(batch, field.name)[image : image + 1] for field in fields(batch)}
    )


def loss_of(supernet: Supernet, batch: TrainingBatch) -> float:
    """Loss summed over the prompts of an image."""
    sam = supernet.sam
    with torch.no_grad():
        logits, ious = decode(sam, sam.image_encoder(batch.images), batch.points, batch.labels)
        mean = sam_loss(logits, ious, batch.masks, batch.present, LossWeights())
    return (mean * batch.present.sum()).item()


def slope(supernet: Supernet, batch: TrainingBatch, weight: Tensor) -> float:
    """Change of the loss, to first order, when the weights that read a part's output vanish."""
    kept = weight.clone()
    losses = []
    for factor in (1 - STEP, 1 + STEP):
        weight.copy_(kept * factor)
        losses.append(loss_of(supernet, batch))
    weight.copy_(kept)
    return (losses[1] - losses[0]) / (2 * STEP)


def in_double(batch: TrainingBatch) -> TrainingBatch:
    return replace(
        batch,
        images=batch.images.double(),
        points=batch.points.double(),
        masks=batch.masks.double(),
    )


@pytest.mark.parametrize("layer", [1, 2], ids=["global", "windowed"])
def test_scores_agree_with_turning_parts_down_by_hand(supernet: Supernet, layer: int):
    supernet.sam.double()
    supernet.sam.prompt_encoder.pe_layer.float()  # it casts its input to fp32
    batch = in_double(tiny_batches()[0])
    scores = taylor_scores(supernet, [batch])[layer]
    block = supernet.sam.image_encoder.blocks[layer]
    columns = {
        "neurons": block.mlp.lin2.weight.data.unflatten(1, (64, 1)),
        "heads": block.attn.proj.weight.data.unflatten(1, (4, 8)),
    }
    for kind, places in {"neurons": (0, 17, 63), "heads": range(4)}.items():
        found = getattr(scores, kind)
        for place in places:
            weight = columns[kind][:, place]
            changes = [slope(supernet, part(batch, image), weight) for image in range(2)]
            expected = sum(change**2 for change in changes) / 2
            assert found[place].item() == pytest.approx(expected, rel=1e-3, abs=1e-10)
        assert found.max() > 1e-6


def test_how_images_are_batched_does_not_matter(supernet: Supernet):
    (whole,) = tiny_batches(images=3)
    assert whole.present.sum() > 3
    together = taylor_scores(supernet, [whole])
    apart = taylor_scores(supernet, [part(whole, image) for image in range(3)])
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one.neurons, other.neurons, rtol=1e-3, atol=1e-7)
        torch.testing.assert_close(one.heads, other.heads, rtol=1e-3, atol=1e-7)


def test_opposite_effects_on_two_images_do_not_cancel(supernet: Supernet):
    """The mean of the squares is at least the square of the mean; here clearly more."""
    (whole,) = tiny_batches(images=2)
    first, second = (taylor_scores(supernet, [part(whole, image)]) for image in range(2))
    both = taylor_scores(supernet, [whole])
    for layer in range(4):
        mean = (first[layer].neurons + second[layer].neurons) / 2
        torch.testing.assert_close(both[layer].neurons, mean, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("frozen", [False, True])
def test_the_model_is_left_as_it_was(supernet: Supernet, frozen: bool):
    supernet.sam.requires_grad_(not frozen)
    digest = supernet.weights_digest()
    scores = taylor_scores(supernet, tiny_batches())
    assert supernet.weights_digest() == digest
    assert all(parameter.grad is None for parameter in supernet.sam.parameters())
    assert not any(module._forward_pre_hooks for module in supernet.sam.modules())
    assert all(not layer.neurons.requires_grad for layer in scores)
    assert all((layer.neurons > 0).any() for layer in scores)
