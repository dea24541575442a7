"""The terms of the loss, against hand-made figures and other implementations."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from hwsearch.supernet.training.losses import (
    LossWeights,
    dice_loss,
    distillation_loss,
    mask_loss,
    sam_loss,
    soft_iou,
)

NOTHING = LossWeights(bce=0, focal=0, dice=0, iou=0, mask_distillation=0, embedding_distillation=0)
SURE = 20.0  # a logit of which nobody doubts
EVERYBODY = torch.ones(2, 3, dtype=torch.bool)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def masks():
    """Hard masks B×P×H×W."""
    return (random(2, 3, 8, 8, seed=9) > 0).float()


def logits_of(masks: Tensor, tokens: int = 4) -> Tensor:
    """Sure and right logits B×P×T×H×W."""
    return (SURE * (2 * masks - 1)).unsqueeze(2).repeat(1, 1, tokens, 1, 1)


def test_dice_by_hand():
    # Half of a mask of 8 pixels found, and 4 pixels too many: Dice is 2·4 / (8 + 8).
    mask, found = torch.zeros(4, 4), torch.full((4, 4), -SURE)
    mask[:2] = 1
    found[1:3] = SURE
    assert dice_loss(found, mask).item() == pytest.approx(1 - (2 * 4 + 1) / (16 + 1), abs=1e-5)


def test_an_empty_mask_that_is_left_empty_costs_nothing():
    loss = dice_loss(torch.full((4, 4), -SURE), torch.zeros(4, 4))
    assert loss.item() == pytest.approx(0, abs=1e-5)


def test_right_masks_cost_nothing_and_wrong_ones_much(masks: Tensor):
    weights = LossWeights(focal=20)
    right = mask_loss(logits_of(masks, 1)[:, :, 0], masks, weights)
    wrong = mask_loss(-logits_of(masks, 1)[:, :, 0], masks, weights)
    assert right.shape == (2, 3)
    assert right.max() < 1e-4
    assert wrong.min() > 1


def test_the_terms_are_those_of_torch_and_torchvision(masks: Tensor):
    logits = random(2, 3, 8, 8)
    bce = F.binary_cross_entropy_with_logits(logits, masks, reduction="none").mean(dim=(-2, -1))
    focal = sigmoid_focal_loss(logits, masks, alpha=0.25, gamma=2).mean(dim=(-2, -1))
    torch.testing.assert_close(mask_loss(logits, masks, replace(NOTHING, bce=1)), bce)
    torch.testing.assert_close(mask_loss(logits, masks, replace(NOTHING, focal=1)), focal)
    mixed = mask_loss(logits, masks, LossWeights(bce=0.5, focal=20, dice=2))
    torch.testing.assert_close(mixed, 0.5 * bce + 20 * focal + 2 * dice_loss(logits, masks))


def test_soft_iou_by_hand():
    target = torch.tensor([[1.0, 0.5], [0.0, 0.0]])
    logits = torch.tensor([[3.0, 3.0], [3.0, -3.0]])
    # Overlap 1 + .5, union 1 + 1 + 1.
    assert soft_iou(logits, target).item() == pytest.approx(0.5)
    assert soft_iou(-torch.ones(2, 2), torch.zeros(2, 2)).item() == 0


def test_sam_loss_of_a_perfect_answer_is_nothing(masks: Tensor):
    logits = logits_of(masks)
    loss = sam_loss(logits, torch.ones(2, 3, 4), masks, EVERYBODY, LossWeights())
    assert loss.item() == pytest.approx(0, abs=1e-4)


def test_only_the_best_of_the_multi_mask_tokens_learns(masks: Tensor):
    logits = random(2, 3, 4, 8, 8)
    best = torch.tensor([[1, 2, 3], [3, 2, 1]])
    for image in range(2):
        for prompt in range(3):
            token = best[image, prompt]
            logits[image, prompt, token] = (2 * masks[image, prompt] - 1) * 0.5
    logits.requires_grad_(True)
    sam_loss(logits, torch.zeros(2, 3, 4), masks, EVERYBODY, LossWeights()).backward()
    learns = logits.grad.abs().sum(dim=(-2, -1)) > 0
    expected = F.one_hot(best, 4).bool()
    expected[..., 0] = True  # the single-mask token always does
    assert torch.equal(learns, expected)


def test_the_iou_head_learns_the_overlap_of_each_token(masks: Tensor):
    logits = random(2, 3, 4, 8, 8)
    overlaps = soft_iou(logits, masks.unsqueeze(2))
    weights = replace(NOTHING, iou=1)
    exact = sam_loss(logits, overlaps, masks, EVERYBODY, weights)
    assert exact.item() == pytest.approx(0, abs=1e-9)
    ious = torch.full((2, 3, 4), 0.5, requires_grad=True)
    sam_loss(logits, ious, masks, EVERYBODY, weights).backward()
    # Down the gradient lies the true overlap, for all four tokens.
    assert torch.equal(ious.grad.sign(), (0.5 - overlaps).sign())


def test_absent_prompts_count_for_nothing(masks: Tensor):
    logits, ious = random(2, 3, 4, 8, 8), random(2, 3, 4, seed=1)
    present = torch.tensor([[True, False, False], [True, True, False]])
    loss = sam_loss(logits, ious, masks, present, LossWeights())
    alone = [
        sam_loss(
            logits[i : i + 1, p : p + 1],
            ious[i : i + 1, p : p + 1],
            masks[i : i + 1, p : p + 1],
            present[i : i + 1, p : p + 1],
            LossWeights(),
        ).item()
        for i, p in present.nonzero().tolist()
    ]
    assert len(alone) == 3
    assert loss.item() == pytest.approx(math.fsum(alone) / 3, rel=1e-5)


def test_a_batch_without_prompts_is_no_division_by_zero(masks: Tensor):
    loss = sam_loss(random(2, 3, 4, 8, 8), torch.ones(2, 3, 4), masks, ~EVERYBODY, LossWeights())
    assert loss.item() == 0


def test_a_student_that_agrees_with_its_teacher_has_nothing_to_learn():
    logits, embeddings = random(2, 3, 4, 8, 8), random(2, 5, 2, 2, seed=1)
    student = (logits.clone().requires_grad_(True), embeddings.clone().requires_grad_(True))
    loss = distillation_loss(student, (logits, embeddings), EVERYBODY, LossWeights())
    loss.backward()
    assert student[0].grad.abs().max() < 1e-6
    assert student[1].grad.abs().max() == 0


def test_a_teacher_does_not_learn_from_its_student():
    teacher = (random(2, 3, 4, 8, 8).requires_grad_(True), random(2, 5, 2, 2).requires_grad_(True))
    student = (random(2, 3, 4, 8, 8, seed=3).requires_grad_(True), random(2, 5, 2, 2, seed=4))
    distillation_loss(student, teacher, EVERYBODY, LossWeights()).backward()
    assert student[0].grad.abs().max() > 0
    assert teacher[0].grad is None
    assert teacher[1].grad is None


def test_distillation_reaches_across_resolutions():
    """A teacher that says the same everywhere says it at any size."""
    teacher = (torch.full((2, 3, 4, 8, 8), 1.5), torch.full((2, 5, 4, 4), 0.3))
    student = (
        torch.full((2, 3, 4, 6, 6), 1.5, requires_grad=True),
        torch.full((2, 5, 3, 3), 0.3, requires_grad=True),
    )
    distillation_loss(student, teacher, EVERYBODY, LossWeights()).backward()
    assert student[0].grad.abs().max() < 1e-6
    assert student[1].grad.abs().max() < 1e-6


def test_absent_prompts_teach_nothing():
    student = (random(2, 3, 4, 8, 8).requires_grad_(True), random(2, 5, 2, 2))
    teacher = (random(2, 3, 4, 8, 8, seed=2), random(2, 5, 2, 2))
    present = torch.tensor([[True, False, True], [False, False, True]])
    distillation_loss(student, teacher, present, LossWeights()).backward()
    learns = student[0].grad.abs().sum(dim=(-3, -2, -1)) > 0
    assert torch.equal(learns, present)


def test_weights_of_distillation_are_followed():
    student, teacher = (
        (random(2, 3, 4, 8, 8, seed=seed), random(2, 5, 2, 2, seed=seed)) for seed in (1, 2)
    )

    def loss(masks: float, embeddings: float) -> float:
        weights = replace(NOTHING, mask_distillation=masks, embedding_distillation=embeddings)
        return distillation_loss(student, teacher, EVERYBODY, weights).item()

    assert loss(0, 1) == pytest.approx(F.mse_loss(student[1], teacher[1]).item())
    assert loss(2, 3) == pytest.approx(2 * loss(1, 0) + 3 * loss(0, 1), rel=1e-5)
