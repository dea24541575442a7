"""One training step: whose gradients it accumulates, and what the subnets are shown."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import GEOMETRY, Pictures, corner_piece, picture, rectangle, tiny_space
from torch import Tensor
from torch.nn import functional as F

from hwsearch.errors import TrainingError
from hwsearch.records import SubnetConfig
from hwsearch.sam import build_sam, decode
from hwsearch.supernet.supernet import Supernet
from hwsearch.supernet.training import step
from hwsearch.supernet.training.batches import BatchSettings, TrainingBatch, compose_batch
from hwsearch.supernet.training.clock import Clock
from hwsearch.supernet.training.losses import distillation_loss, sam_loss
from hwsearch.supernet.training.settings import TrainSettings
from hwsearch.supernet.training.step import Pyramid, training_step

SHAPE = (96, 128)
DATA = Pictures([picture([corner_piece(SHAPE, 20, 20, 50), rectangle(SHAPE, 80, 30, 120, 70)])])
PLAIN = TrainSettings(
    bfloat16=False, distillation=False, correction_share=0.0, clip_norm=1e9, learning_rate=0.0
)
SPACE = tiny_space()


@pytest.fixture
def supernet() -> Supernet:
    torch.manual_seed(0)
    return Supernet(build_sam(GEOMETRY), GEOMETRY, SPACE)


def batch() -> TrainingBatch:
    rng = np.random.default_rng(0)
    return compose_batch([DATA], 128, 32, BatchSettings(images=2, prompts=2), rng)


def take_step(supernet: Supernet, subnets: list[SubnetConfig], settings: TrainSettings) -> float:
    optimizer = torch.optim.SGD(supernet.sam.parameters(), lr=settings.learning_rate)
    return training_step(
        supernet,
        batch(),
        subnets,
        optimizer,
        settings,
        rng=np.random.default_rng(0),
        clock=Clock(torch.device("cpu")),
    )


def answers(supernet: Supernet, config: SubnetConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, IoUs and embeddings, by resizing the batch by hand."""
    seen, side = batch(), config.resolution
    images = F.interpolate(seen.images, (side, side), mode="bilinear", antialias=True)
    with supernet.active(config) as sam:
        embeddings = sam.image_encoder(images)
        logits, ious = decode(sam, embeddings, seen.points * side / 128, seen.labels)
    return logits, ious, embeddings


def loss_by_hand(supernet: Supernet, subnets: list[SubnetConfig], *, distilled: bool) -> Tensor:
    seen, total, teacher = batch(), torch.zeros(()), None
    for config in subnets:
        logits, ious, embeddings = answers(supernet, config)
        masks = F.interpolate(seen.masks, logits.shape[-2:], mode="area")
        total = total + sam_loss(logits, ious, masks, seen.present, PLAIN.loss)
        if distilled and teacher:
            student = (logits, embeddings)
            total = total + distillation_loss(student, teacher, seen.present, PLAIN.loss)
        teacher = teacher or (logits, embeddings)
    return total


@pytest.mark.parametrize("distilled", [False, True])
def test_a_step_follows_the_gradient_of_all_its_subnets(supernet: Supernet, distilled: bool):
    """Stopping each backward pass at the embeddings changes nothing but the clock."""
    subnets = [SPACE.largest, SPACE.between(0.5), SPACE.smallest]
    take_step(supernet, subnets, replace(PLAIN, distillation=distilled))
    found = {name: p.grad for name, p in supernet.sam.named_parameters() if p.grad is not None}
    supernet.sam.zero_grad()
    loss_by_hand(supernet, subnets, distilled=distilled).backward()
    expected = {name: p.grad for name, p in supernet.sam.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-5)


def test_a_step_tells_the_loss_of_its_first_subnet(supernet: Supernet):
    first = [SPACE.smallest]
    alone = loss_by_hand(supernet, first, distilled=False).item()
    assert take_step(supernet, [*first, SPACE.largest], PLAIN) == pytest.approx(alone, rel=1e-4)


def test_a_corrective_click_reaches_every_subnet(
    supernet: Supernet, monkeypatch: pytest.MonkeyPatch
):
    """In the frame of the batch it is the same click, whatever the subnet's resolution."""
    shown: list[tuple[Tensor, Tensor]] = []

    def spy(
        sam: object, embeddings: Tensor, points: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        side = 16 * embeddings.shape[-1]
        shown.append((points * 128 / side, labels))
        return decode(sam, embeddings, points, labels)

    monkeypatch.setattr(step, "decode", spy)
    take_step(supernet, [SPACE.largest, SPACE.smallest], replace(PLAIN, correction_share=1.0))
    first, *corrected = shown
    assert first[0].shape[2] == 2
    assert len(corrected) == 2
    for points, labels in corrected:
        assert torch.equal(points[:, :, :2], first[0])
        torch.testing.assert_close(points, corrected[0][0])
        assert labels.shape[2] == 3
        assert set(labels[:, :, 2].flatten().tolist()) <= {0, 1}


def test_a_resolution_is_made_once():
    pyramid = Pyramid(batch())
    assert pyramid.images(64) is pyramid.images(64)
    assert pyramid.masks(16) is pyramid.masks(16)
    assert pyramid.images(128) is not pyramid.images(64)


def test_a_step_with_corrections_in_bfloat16_reaches_the_whole_decoder(supernet: Supernet):
    """Weights that autocast cast for the clicks, without gradient, must not be used again."""
    settings = replace(PLAIN, correction_share=1.0, bfloat16=True)
    take_step(supernet, [SPACE.largest], settings)
    decoder = supernet.sam.mask_decoder
    without = {name for name, p in decoder.named_parameters() if p.grad is None or not p.grad.any()}
    # A mask token that was best nowhere learns nothing; a bias of keys cancels in the softmax.
    unasked = ("output_hypernetworks_mlps", "k_proj.bias")
    assert not [name for name in without if not any(part in name for part in unasked)]


def test_the_picture_is_told_from_its_padding():
    extents = torch.tensor([[0.75, 1.0], [1.0, 0.5]])
    inside = Pyramid(replace(batch(), extents=extents)).inside(8)
    assert inside.shape == (2, 8, 8)
    assert inside[0].sum(dim=0).tolist() == [6] * 8
    assert inside[1].sum(dim=1).tolist() == [4] * 8
    assert inside[1, :, :4].all()


def test_a_loss_that_is_no_number_changes_nothing(supernet: Supernet):
    with torch.no_grad():
        supernet.sam.mask_decoder.iou_token.weight.fill_(torch.nan)
    before = supernet.weights_digest()
    with pytest.raises(TrainingError, match="lower the learning rate"):
        take_step(supernet, [SPACE.largest], replace(PLAIN, learning_rate=0.1))
    assert supernet.weights_digest() == before
