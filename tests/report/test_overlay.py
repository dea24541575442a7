import numpy as np
import pytest

from hwsearch.errors import UsageError
from hwsearch.report.overlay import COLOURS, draw_overlay

IMAGE = np.full((40, 60, 3), 100, dtype=np.uint8)
MASK = np.zeros((1, 40, 60), dtype=bool)
MASK[0, 10:20, 10:20] = True
NO_BOX = np.zeros((0, 4))


def test_a_mask_is_tinted_inside_and_opaque_on_its_outline():
    drawn = draw_overlay(IMAGE, MASK, NO_BOX)
    assert tuple(drawn[10, 12]) == COLOURS[0]
    inside = drawn[15, 15].astype(int)
    assert (np.abs(inside - 100) < np.abs(np.array(COLOURS[0]) - 100)).all()
    assert (inside != 100).any()
    assert (drawn[~MASK[0]] == 100).all()
    assert (IMAGE == 100).all()


def test_a_box_is_drawn_in_the_colour_of_its_mask():
    masks = np.concatenate([np.zeros_like(MASK), MASK])
    drawn = draw_overlay(IMAGE, masks, np.array([[2, 3, 30, 35], [40, 5, 55, 30]]))
    assert tuple(drawn[3, 15]) == COLOURS[0]
    assert tuple(drawn[5, 47]) == COLOURS[1]


@pytest.mark.parametrize(
    ("image", "masks", "boxes"),
    [
        (IMAGE[..., 0], MASK, NO_BOX),
        (IMAGE.astype(float), MASK, NO_BOX),
        (IMAGE, MASK[:, :-1], NO_BOX),
        (IMAGE, MASK[0], NO_BOX),
        (IMAGE, MASK, np.zeros((2, 4))),
        (IMAGE, MASK, np.zeros((1, 3))),
    ],
)
def test_shapes_that_do_not_belong_together_are_refused(
    image: np.ndarray, masks: np.ndarray, boxes: np.ndarray
):
    with pytest.raises(UsageError, match=r"[Oo]verlay needs|don't fit"):
        draw_overlay(image, masks, boxes)
