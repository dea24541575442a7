from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hwsearch.data.dataset import Mask
from hwsearch.data.prompts import interior_point, jitter_boxes, random_point
from hwsearch.errors import DataError, UsageError

MASKS = arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))).filter(np.any)
BOXES = np.array([[10, 10, 30, 20], [0, 0, 64, 48], [60, 40, 61, 41]], dtype=np.float32)


@given(st.floats(0, 0.49), st.integers(0, 99))
def test_jittered_boxes_stay_near_and_inside(amount: float, seed: int) -> None:
    moved = jitter_boxes(BOXES, np.random.default_rng(seed), amount, (48, 64))
    sides = np.tile(BOXES[:, 2:] - BOXES[:, :2], 2)
    assert moved.dtype == np.float32
    assert (np.abs(moved - BOXES) <= amount * sides + 1e-4).all()
    assert (moved >= 0).all()
    assert (moved <= [64, 48, 64, 48]).all()
    assert (moved[:, 2:] > moved[:, :2]).all()


def test_jitter_moves_every_edge() -> None:
    moved = jitter_boxes(BOXES[:1], np.random.default_rng(0), 0.2, (48, 64))
    assert (moved != BOXES[:1]).all()
    np.testing.assert_array_equal(jitter_boxes(BOXES, np.random.default_rng(0), 0, (48, 64)), BOXES)


@pytest.mark.parametrize("amount", [-0.1, 0.5])
def test_jitter_that_turns_boxes_inside_out_is_refused(amount: float) -> None:
    with pytest.raises(UsageError, match="jittered"):
        jitter_boxes(BOXES, np.random.default_rng(0), amount, (48, 64))


@given(MASKS, st.integers(0, 9))
def test_points_lie_on_the_mask(mask: Mask, seed: int) -> None:
    for x, y in (interior_point(mask), random_point(mask, np.random.default_rng(seed))):
        assert mask[int(y), int(x)]


def test_interior_point_is_the_middle_of_the_broadest_part() -> None:
    mask = np.zeros((40, 60), dtype=bool)
    mask[10:13, 2:50] = True
    mask[5:18, 30:43] = True
    assert interior_point(mask) == (36, 11)


def test_interior_point_keeps_away_from_the_border() -> None:
    assert interior_point(np.ones((5, 5), dtype=bool)) == (2, 2)


def test_random_points_reach_all_of_the_mask() -> None:
    mask = np.array([[0, 1, 0], [1, 0, 1]], dtype=bool)
    rng = np.random.default_rng(0)
    assert {random_point(mask, rng) for _ in range(60)} == {(1, 0), (0, 1), (2, 1)}


def test_an_empty_mask_has_no_points() -> None:
    empty = np.zeros((3, 3), dtype=bool)
    with pytest.raises(DataError, match="empty"):
        interior_point(empty)
    with pytest.raises(DataError, match="empty"):
        random_point(empty, np.random.default_rng(0))
