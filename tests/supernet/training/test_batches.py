"""Training batches, checked on pictures whose brightness is their mask."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import Pictures, corner_piece, picture, rectangle
from torch import Tensor
from torch.nn import functional as F

from hwsearch.data.dataset import Sample
from hwsearch.data.framing import View, image_view
from hwsearch.errors import DataError, UsageError
from hwsearch.sam import PIXEL_MEAN, PIXEL_STD
from hwsearch.supernet.training import batches
from hwsearch.supernet.training.batches import (
    BatchSettings,
    TrainingBatch,
    compose_batch,
    training_batches,
)

RESOLUTION, CELLS = 128, 32
PLAIN = BatchSettings(images=4, prompts=2, point_share=0, box_jitter=0)
SHAPE = (120, 160)
CORNERS = Pictures([picture([corner_piece(SHAPE, 40, 30, 60)])])


def compose(settings: BatchSettings, *datasets: Pictures, seed: int = 0) -> TrainingBatch:
    rng = np.random.default_rng(seed)
    return compose_batch(datasets, RESOLUTION, CELLS, settings, rng)


def brightness(images: Tensor) -> Tensor:
    """What share of each low-res cell is object, read off the picture itself (B×S×S)."""
    mean, std = torch.tensor(PIXEL_MEAN)[:, None, None], torch.tensor(PIXEL_STD)[:, None, None]
    light = (images * std + mean).mean(dim=1, keepdim=True) / 255
    inside = (images.abs().sum(dim=1, keepdim=True) > 0).float()  # the padding is no ground
    return F.adaptive_avg_pool2d(light * inside, CELLS)[:, 0]


@pytest.mark.parametrize("whole", [0.0, 1.0])
def test_masks_lie_on_their_objects_however_the_picture_is_turned(whole: float):
    settings = replace(PLAIN, images=24, whole_image_share=whole)
    batch = compose(settings, CORNERS)
    assert batch.present[:, 0].all()
    assert not batch.present[:, 1].any()
    away = (brightness(batch.images) - batch.masks[:, 0]).abs()
    assert away.mean() < 0.01
    assert missing_corners(batch.masks[:, 0]) == {0, 1, 2, 3}


def missing_corners(masks: Tensor) -> set[int]:
    """Which quarters of the objects' boxes are empty: each flip has another."""
    found = set()
    for mask in masks:
        rows, columns = torch.nonzero(mask > 0.5).unbind(1)
        box = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        quarters = F.adaptive_avg_pool2d(box[None, None], 2).flatten()
        found.add(int(quarters.argmin()))
        assert quarters.min() < 0.2
    return found


@pytest.mark.parametrize("whole", [0.0, 1.0])
def test_boxes_surround_their_masks(whole: float):
    batch = compose(replace(PLAIN, images=24, whole_image_share=whole), CORNERS)
    assert (batch.labels[:, 0] == torch.tensor([2, 3])).all()
    cell = RESOLUTION / CELLS
    for mask, corners in zip(batch.masks[:, 0], batch.points[:, 0], strict=True):
        rows, columns = torch.nonzero(mask > 0.5).unbind(1)
        edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert corners.flatten().tolist() == pytest.approx(
            [float(edge) * cell for edge in edges], abs=cell
        )


def test_clicks_lie_on_their_objects():
    batch = compose(replace(PLAIN, images=24, point_share=1.0), CORNERS)
    assert (batch.labels[:, 0] == torch.tensor([1, -1])).all()
    cells = (batch.points[:, 0, 0] / (RESOLUTION / CELLS)).long()
    on_object = batch.masks[torch.arange(24), 0, cells[:, 1], cells[:, 0]]
    assert (on_object > 0).all()


def test_box_jitter_moves_boxes_within_bounds():
    settings = replace(PLAIN, images=24)
    exact, moved = compose(settings, CORNERS), compose(replace(settings, box_jitter=0.1), CORNERS)
    # The noise is drawn either way, so that both batches see the same views.
    assert torch.equal(exact.images, moved.images)
    sides = (exact.points[:, 0, 1] - exact.points[:, 0, 0]).max()
    shift = (exact.points[:, 0] - moved.points[:, 0]).abs()
    assert 0.05 * sides < shift.max() < 0.101 * sides


def test_small_objects_are_left_out():
    large, small = corner_piece(SHAPE, 40, 30, 60), rectangle(SHAPE, 5, 5, 15, 15)
    whole = replace(PLAIN, whole_image_share=1.0)
    dataset = Pictures([picture([large, small])])
    # 10 of 160 pixels are 8 of 128.
    without = compose(replace(whole, min_object=9), dataset)
    assert without.present.tolist() == [[True, False]] * 4
    boxes = without.points[:, 0, 1] - without.points[:, 0, 0]
    assert boxes == pytest.approx(np.full((4, 2), 60 * 128 / 160), abs=1)
    both = compose(replace(whole, min_object=7), dataset)
    assert both.present.all()


def test_a_whole_image_paints_only_what_it_prompts(monkeypatch: pytest.MonkeyPatch):
    """An image of SA-1B has a hundred masks, each as large as the image once it is painted."""
    painted = []

    def counted(sample: Sample) -> View:
        painted.append(sample.instances)
        return image_view(sample)

    monkeypatch.setattr(batches, "image_view", counted)
    masks = [rectangle(SHAPE, 10 * i, 5, 10 * i + 30, 60) for i in range(12)]
    batch = compose(replace(PLAIN, whole_image_share=1.0), Pictures([picture(masks)]))
    assert batch.present.all()
    assert len(painted) == PLAIN.images
    assert all(len(set(objects)) == 2 for objects in painted)


def test_a_window_around_a_small_object_makes_it_large_enough():
    small = Pictures([picture([rectangle(SHAPE, 50, 50, 60, 60)])])
    batch = compose(replace(PLAIN, whole_image_share=0.0, min_object=20), small)
    sides = (batch.points[:, 0, 1] - batch.points[:, 0, 0]).max(dim=1).values
    assert (sides >= 20).all()


def test_more_objects_than_prompts_are_drawn_from():
    boxes = [
        rectangle(SHAPE, 40 * column, 40 * row, 40 * column + 30, 40 * row + 30)
        for row in range(3)
        for column in range(4)
    ]
    batch = compose(replace(PLAIN, images=8, whole_image_share=1.0), Pictures([picture(boxes)]))
    assert batch.present.all()
    assert not torch.equal(batch.masks[:, 0], batch.masks[:, 1])
    assert (batch.masks.sum(dim=(-2, -1)) > 0).all()


def test_sets_of_any_size_are_drawn_evenly():
    mask = [corner_piece(SHAPE, 40, 30, 60)]
    few = Pictures([picture(mask, objects=255)])
    many = Pictures([picture(mask, objects=120)] * 50)
    compose(replace(PLAIN, images=100), few, many)
    assert 35 <= len(few.read) <= 65
    assert len(few.read) + len(many.read) == 100
    assert len(set(many.read)) > 25


def equal(one: TrainingBatch, other: TrainingBatch) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in vars(one))


def run(
    start: int,
    stop: int,
    *,
    seed: int = 3,
    sets: Sequence[Pictures] = (CORNERS,),
    workers: int = 0,
):
    batches = training_batches(
        sets,
        resolution=RESOLUTION,
        mask_size=CELLS,
        settings=BatchSettings(images=2, prompts=2),
        seed=seed,
        start=start,
        stop=stop,
        workers=workers,
    )
    return list(batches)


def test_a_batch_depends_on_the_seed_and_its_step_alone():
    through, resumed = run(0, 4), run(2, 4)
    assert len(through) == 4
    assert len(resumed) == 2
    assert equal(through[2], resumed[0])
    assert equal(through[3], resumed[1])
    assert not equal(through[0], through[1])
    assert not equal(run(0, 1, seed=4)[0], through[0])


def test_worker_processes_prepare_the_same_batches_in_the_same_order():
    for prepared, expected in zip(run(1, 6, workers=2), run(1, 6), strict=True):
        assert equal(prepared, expected)


class Damaged(Pictures):
    def __getitem__(self, index: int) -> Sample:
        raise DataError("The image x.jpg can't be read.")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_is_one_sentence(workers: int):
    with pytest.raises(DataError) as caught:
        run(0, 2, sets=(Damaged(CORNERS.samples),), workers=workers)
    assert str(caught.value) == "The image x.jpg can't be read."


def test_fewer_than_no_workers_are_refused():
    with pytest.raises(UsageError, match="take 0 or more"):
        run(0, 1, workers=-1)


def test_nothing_left_to_do_gives_no_batch():
    assert run(4, 4) == []


def test_shapes():
    batch = run(0, 1)[0]
    assert batch.images.shape == (2, 3, RESOLUTION, RESOLUTION)
    assert batch.points.shape == (2, 2, 2, 2)
    assert batch.labels.shape == (2, 2, 2)
    assert batch.masks.shape == (2, 2, CELLS, CELLS)
    assert batch.present.shape == (2, 2)
    assert batch.masks.min() >= 0
    assert batch.masks.max() <= 1
