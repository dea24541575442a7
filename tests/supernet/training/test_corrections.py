"""Corrective clicks: where they land, and what they say."""

import numpy as np
import torch

from hwsearch.supernet.training.corrections import corrective_clicks

SIDE, CELL = 16, 4.0
EVERYWHERE = torch.ones(1, SIDE, SIDE, dtype=torch.bool)


def square(x0: int, y0: int, x1: int, y1: int) -> torch.Tensor:
    mask = torch.zeros(SIDE, SIDE)
    mask[y0:y1, x0:x1] = 1
    return mask


def cells(points: torch.Tensor) -> list[tuple[int, int]]:
    """Column and row of the cell that each point lies in."""
    return [(int(x // CELL), int(y // CELL)) for x, y in (points + 0.5).flatten(0, 2).tolist()]


def clicks(predicted: torch.Tensor, truth: torch.Tensor, seed: int) -> tuple[list, list[int]]:
    points, labels = corrective_clicks(
        20 * predicted[None, None] - 10,
        truth[None, None],
        EVERYWHERE,
        cell=CELL,
        rng=np.random.default_rng(seed),
    )
    return cells(points), labels.flatten().tolist()


def test_what_was_missed_gets_a_positive_click():
    seen = set()
    for seed in range(40):
        ((column, row),), (label,) = clicks(square(2, 2, 6, 10), square(2, 2, 10, 10), seed)
        assert label == 1
        assert 6 <= column < 10
        assert 2 <= row < 10
        seen.add((column, row))
    assert len(seen) > 15


def test_what_is_too_much_gets_a_negative_click():
    for seed in range(20):
        ((column, row),), (label,) = clicks(square(0, 0, 16, 8), square(0, 0, 8, 8), seed)
        assert label == 0
        assert column >= 8
        assert row < 8


def test_a_faultless_mask_is_confirmed():
    truth = square(3, 5, 9, 12)
    for seed in range(20):
        ((column, row),), (label,) = clicks(truth, truth, seed)
        assert label == 1
        assert truth[row, column]


def test_a_mask_thinner_than_half_a_cell_is_clicked_where_it_is():
    truth = 0.3 * square(4, 4, 5, 12)
    ((column, row),), (label,) = clicks(torch.zeros(SIDE, SIDE), truth, 0)
    assert label == 1
    assert truth[row, column] > 0


def test_a_thin_mask_that_was_found_gets_no_click_into_the_background():
    stroke = square(4, 4, 5, 12)
    for seed in range(10):
        ((column, row),), (label,) = clicks(stroke, 0.45 * stroke, seed)
        assert label == 1
        assert stroke[row, column]


def test_each_prompt_is_corrected_by_itself():
    truth = torch.stack([square(0, 0, 4, 4), square(8, 8, 12, 12)])[None]
    points, labels = corrective_clicks(
        torch.full((1, 2, SIDE, SIDE), -5.0),
        truth,
        EVERYWHERE,
        cell=CELL,
        rng=np.random.default_rng(1),
    )
    assert points.shape == (1, 2, 1, 2)
    assert labels.tolist() == [[[1], [1]]]
    for mask, (column, row) in zip(truth[0], cells(points), strict=True):
        assert mask[row, column]


def test_nobody_clicks_on_the_padding():
    """Half of the frame is padding, and the prediction spills over into it."""
    inside = square(0, 0, 16, 8).bool()[None]
    for seed in range(20):
        points, labels = corrective_clicks(
            torch.full((1, 1, SIDE, SIDE), 5.0),
            square(0, 0, 8, 8)[None, None],
            inside,
            cell=CELL,
            rng=np.random.default_rng(seed),
        )
        ((column, row),) = cells(points)
        assert labels.item() == 0
        assert column >= 8
        assert row < 8
