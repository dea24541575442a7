from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything.utils.transforms import ResizeLongestSide

from hwsearch.data.dataset import Instance, Mask, Sample
from hwsearch.data.framing import View, fit, image_view, low_res_masks, object_view
from hwsearch.errors import UsageError

HEIGHT, WIDTH = 60, 90
SIDES = st.integers(5, 80)


def box_mask(x0: int, y0: int, x1: int, y1: int) -> Mask:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def sample_of(*boxes: tuple[int, int, int, int]) -> Sample:
    # Each pixel carries its own column and row.
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.uint8)
    image = np.stack([columns, rows, rows], axis=-1)
    instances = tuple(Instance.from_mask(box_mask(*box)) for box in boxes)
    return Sample(key="one", image=image, instances=instances)


def corner(view: View) -> tuple[int, int]:
    """Column and row of the image at the view's top left."""
    return int(view.image[0, 0, 0]), int(view.image[0, 0, 1])


def random_view(height: int, width: int, seed: int) -> View:
    rng = np.random.default_rng(seed)
    masks = rng.random((2, height, width)) < 0.5
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    boxes = rng.uniform(0, 5, (2, 4)).astype(np.float32)
    return View(image=image, masks=masks, boxes=boxes)


def test_image_view_shows_all_objects() -> None:
    sample = sample_of((3, 4, 10, 20), (50, 30, 90, 60))
    view = image_view(sample)
    assert view.image.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(view.boxes, [[3, 4, 10, 20], [50, 30, 90, 60]])
    for mask, instance in zip(view.masks, sample.instances, strict=True):
        np.testing.assert_array_equal(mask, instance.paint(HEIGHT, WIDTH))


def test_object_view_is_centred_and_square() -> None:
    view = object_view(sample_of((40, 20, 60, 32)), 0, context=2)
    assert view.image.shape == (40, 40, 3)
    assert corner(view) == (30, 6)
    assert view.boxes.tolist() == [[10, 14, 30, 26]]
    np.testing.assert_array_equal(view.masks[0], box_mask(40, 20, 60, 32)[6:46, 30:70])


def test_object_view_is_shifted_into_the_image_and_clipped_to_it() -> None:
    sample = sample_of((0, 50, 20, 60))
    shifted = object_view(sample, 0, context=2)
    assert (corner(shifted), shifted.image.shape) == ((0, 20), (40, 40, 3))
    assert shifted.boxes.tolist() == [[0, 30, 20, 40]]
    clipped = object_view(sample, 0, context=4)
    assert clipped.image.shape == (HEIGHT, 80, 3)


def test_object_view_of_a_tiny_object_keeps_a_least_side() -> None:
    assert object_view(sample_of((40, 20, 42, 22)), 0, context=2).image.shape == (24, 24, 3)


def test_object_view_includes_neighbours_that_lie_inside() -> None:
    target = (40, 20, 60, 40)  # with context 2, the window is (30, 10) to (70, 50)
    whole, mostly, half = (62, 12, 68, 16), (32, 42, 36, 52), (64, 30, 76, 34)
    view = object_view(sample_of(half, mostly, target, whole), 2, context=2)
    assert view.boxes.tolist() == [[10, 10, 30, 30], [2, 32, 6, 40], [32, 2, 38, 6]]
    assert view.masks.sum(axis=(1, 2)).tolist() == [400, 32, 24]


def test_object_view_caps_the_neighbours_but_keeps_the_object_first() -> None:
    boxes = [(30 + 4 * place, 20, 33 + 4 * place, 24) for place in range(10)]
    sample = sample_of(*boxes)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        view = object_view(sample, 4, context=20, rng=rng, max_instances=3)
        x, y = corner(view)
        assert len(view.boxes) == 3
        assert (view.boxes[0] + [x, y, x, y]).tolist() == list(boxes[4])


@settings(deadline=None)
@given(
    st.tuples(st.integers(0, WIDTH - 1), st.integers(0, HEIGHT - 1)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.floats(1, 5),
    st.none() | st.integers(0, 99),
)
def test_object_view_never_cuts_its_object(
    start: tuple[int, int], size: tuple[int, int], context: float, seed: int | None
) -> None:
    (x, y), (width, height) = start, size
    box = (x, y, min(x + width, WIDTH), min(y + height, HEIGHT))
    sample = sample_of(box)
    rng = None if seed is None else np.random.default_rng(seed)
    view = object_view(sample, 0, context=context, rng=rng)
    left, top = corner(view)
    assert (view.boxes[0] + [left, top, left, top]).tolist() == list(box)
    assert view.masks[0].sum() == sample.instances[0].area
    assert view.masks.shape[1:] == view.image.shape[:2]


def test_jitter_moves_the_window() -> None:
    sample = sample_of((40, 20, 50, 30))
    corners = {
        corner(object_view(sample, 0, context=3, rng=np.random.default_rng(seed)))
        for seed in range(20)
    }
    assert len(corners) > 5


def test_a_context_that_cuts_is_refused() -> None:
    with pytest.raises(UsageError, match=r"0\.9"):
        object_view(sample_of((4, 4, 9, 9)), 0, context=0.9)


@pytest.mark.parametrize("shape", [(37, 53), (53, 37), (40, 40), (7, 300)])
def test_fit_agrees_with_sams_own_transform(shape: tuple[int, int]) -> None:
    view = random_view(*shape, seed=1)
    fitted = fit(view, 64)
    sams = ResizeLongestSide(64)
    np.testing.assert_array_equal(fitted.image, sams.apply_image(view.image))
    np.testing.assert_allclose(fitted.boxes, sams.apply_boxes(view.boxes, shape), rtol=1e-6)
    np.testing.assert_allclose(fitted.scale, np.divide(fitted.image.shape[1::-1], shape[::-1]))


@settings(deadline=None)
@given(SIDES, SIDES, st.sampled_from([16, 64]), st.sampled_from([8, 16]), st.integers(0, 9))
def test_low_res_masks_keep_the_area(
    height: int, width: int, resolution: int, size: int, seed: int
) -> None:
    view = random_view(height, width, seed)
    soft = low_res_masks(view, resolution, size)
    assert soft.shape == (2, size, size)
    assert soft.min() >= 0
    assert soft.max() <= 1 + 1e-5
    # Areas in pixels of the padded frame.
    covered = soft.sum(axis=(1, 2)) * (resolution / size) ** 2
    scale = fit(view, resolution).scale.prod()
    np.testing.assert_allclose(covered, view.masks.sum(axis=(1, 2)) * scale, rtol=1e-4)


def test_low_res_masks_average_cells_and_leave_the_padding_empty() -> None:
    masks = np.zeros((1, 4, 8), dtype=bool)
    masks[0, 0, :3] = True
    view = View(np.zeros((4, 8, 3), np.uint8), masks, np.zeros((1, 4), np.float32))
    soft = low_res_masks(view, 64, 4)[0]
    np.testing.assert_allclose(soft, [[0.5, 0.25, 0, 0], [0] * 4, [0] * 4, [0] * 4], atol=1e-6)


def test_low_res_masks_finer_than_the_view_repeat_its_pixels() -> None:
    view = random_view(8, 8, seed=3)
    soft = low_res_masks(view, 64, 16)
    np.testing.assert_allclose(soft, view.masks.repeat(2, axis=1).repeat(2, axis=2), atol=1e-6)
