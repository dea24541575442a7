"""Prompts as the decoder wants them, and a sentence for those it can't have."""

import numpy as np
import pytest

from hwsearch.errors import UsageError
from hwsearch.export.prompts import encode_boxes, encode_prompt

HALF = {"size": (100, 200), "resolution": 100}  # everything is halved


def test_points_end_with_a_padding_point():
    coords, labels = encode_prompt(points=[(10, 20), (30, 40)], labels=[1, 0], box=None, **HALF)
    np.testing.assert_array_equal(coords, [[(5, 10), (15, 20), (0, 0)]])
    np.testing.assert_array_equal(labels, [[1, 0, -1]])
    assert coords.dtype == labels.dtype == np.float32


def test_a_box_is_its_two_corners():
    coords, labels = encode_prompt(points=None, labels=None, box=[2, 4, 6, 8], **HALF)
    np.testing.assert_array_equal(coords, [[(1, 2), (3, 4)]])
    np.testing.assert_array_equal(labels, [[2, 3]])


def test_points_come_before_the_box():
    coords, labels = encode_prompt(points=[(10, 20)], labels=[1], box=[2, 4, 6, 8], **HALF)
    np.testing.assert_array_equal(coords, [[(5, 10), (1, 2), (3, 4)]])
    np.testing.assert_array_equal(labels, [[1, 2, 3]])


def test_many_boxes_are_many_prompts():
    coords, labels = encode_boxes([[2, 4, 6, 8], [0, 0, 200, 100]], **HALF)
    np.testing.assert_array_equal(coords, [[(1, 2), (3, 4)], [(0, 0), (100, 50)]])
    np.testing.assert_array_equal(labels, [[2, 3], [2, 3]])


def test_height_and_width_are_scaled_apart():
    # 33 × 100 pixels become 17 × 50: the height by 17/33, the width by 1/2.
    coords, _ = encode_boxes([[100, 33, 100, 33]], size=(33, 100), resolution=50)
    np.testing.assert_allclose(coords, [[(50, 17), (50, 17)]], rtol=1e-6)


@pytest.mark.parametrize(
    ("prompt", "fault"),
    [
        ({}, "nothing to segment"),
        ({"points": [(1, 2)]}, "Points need labels"),
        ({"labels": [1], "box": [1, 2, 3, 4]}, "labels without points"),
        ({"points": [(1, 2)], "labels": [1, 1]}, r"labels of shape \(2,\)"),
        ({"points": [1, 2], "labels": [1]}, r"Points of shape \(2,\)"),
        ({"points": [(1, 2)], "labels": [2]}, "label can be 1"),
        ({"points": [(1, np.nan)], "labels": [1]}, "Points have to be finite"),
        ({"box": [1, 2, 3]}, "four numbers"),
        ({"box": [[1, 2, 3, 4], [1, 2, 3, 4]]}, "four numbers"),
        ({"box": [1, 2, 3, np.inf]}, "Boxes have to be finite"),
    ],
)
def test_bad_prompts_are_refused(prompt: dict[str, object], fault: str):
    with pytest.raises(UsageError, match=fault):
        encode_prompt(**{"points": None, "labels": None, "box": None, **prompt, **HALF})


def test_bad_boxes_are_refused():
    with pytest.raises(UsageError, match="n×4 numbers"):
        encode_boxes([1, 2, 3, 4], **HALF)
