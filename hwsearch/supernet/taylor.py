"""How much each neuron and each head matters to the loss, to first order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from segment_anything.modeling import Sam
from torch import Tensor, nn

from hwsearch.sam import decode
from hwsearch.supernet.scores import LayerScores
from hwsearch.supernet.supernet import Supernet
from hwsearch.supernet.training.batches import TrainingBatch
from hwsearch.supernet.training.losses import LossWeights, sam_loss


def taylor_scores(
    supernet: Supernet, batches: Iterable[TrainingBatch], *, weights: LossWeights | None = None
) -> tuple[LayerScores, ...]:
    """Squared first-order change of the loss when a neuron or head is taken away.

    A gate of 1 behind each neuron (the input of lin2) and each head (its part of the input of
    proj) is closed in thought. The loss L_n of image n, summed over its prompts, then changes to
    first order by −∂L_n/∂gate = −Σ a·∂L_n/∂a, over all tokens and, for a head, its channels. The
    score is the mean of its square over all images, I = 1/N Σ_n (Σ a·∂L_n/∂a)², so that what
    helps one image and harms another does not cancel out (Molchanov et al., arXiv 1906.10771:
    the first-order criterion for gates, with images in the place of batches).

    Args:
        supernet: its full encoder is judged, in fp32; neither it nor its gradients are changed.
        batches: training batches at the model's full resolution; at least one.
        weights: weights of the loss; None for those of the training.

    Returns:
        One record for each layer.
    """
    blocks = supernet.sam.image_encoder.blocks
    hidden, outputs = [b.mlp.lin2 for b in blocks], [b.attn.proj for b in blocks]
    heads = supernet.geometry.heads
    neuron_sums = [torch.zeros_like(module.weight[0]) for module in hidden]
    head_sums = [torch.zeros_like(module.weight[0, :heads]) for module in outputs]
    images = 0
    device = neuron_sums[0].device
    for batch in (batch.to(device) for batch in batches):
        count = len(batch.images)
        images += count
        with _kept_inputs([*hidden, *outputs]) as kept:
            loss = _loss(supernet.sam, batch, weights or LossWeights())
        gradients = torch.autograd.grad(loss, kept)
        changes = [a.detach() * gradient for a, gradient in zip(kept, gradients, strict=True)]
        for total, change in zip(neuron_sums, changes[: len(hidden)], strict=True):
            total.add_(change.sum(dim=(1, 2)).square().sum(dim=0))
        for total, change in zip(head_sums, changes[len(hidden) :], strict=True):
            # The windows of an image come in a row: B·windows × H × W × heads·D.
            by_head = change.unflatten(-1, (heads, -1)).sum(dim=(1, 2, 4)).unflatten(0, (count, -1))
            total.add_(by_head.sum(dim=1).square().sum(dim=0))
    return tuple(
        LayerScores(neurons=neurons / images, heads=of_heads / images)
        for neurons, of_heads in zip(neuron_sums, head_sums, strict=True)
    )


def _loss(sam: Sam, batch: TrainingBatch, weights: LossWeights) -> Tensor:
    """Loss summed over all prompts, so that each image's part is independent of its company."""
    # As a leaf that wants gradients, so that there are some even where all weights are frozen.
    images = batch.images.detach().requires_grad_()
    with torch.enable_grad():
        logits, ious = decode(sam, sam.image_encoder(images), batch.points, batch.labels)
        loss = sam_loss(logits, ious, batch.masks, batch.present, weights)
        return loss * batch.present.sum()


@contextmanager
def _kept_inputs(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Inputs of modules as parts of the graph, in the order of `modules` when the context ends."""
    seen: dict[nn.Module, Tensor] = {}
    ordered: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen[module] = inputs[0]

    with ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_pre_hook(keep).remove)
        yield ordered
    ordered += [seen[module] for module in modules]
