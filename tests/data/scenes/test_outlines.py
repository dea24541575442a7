from __future__ import annotations

import numpy as np
import pytest

from hwsearch.data.scenes.outlines import SHAPES, Contour, Shape, draw, ellipse


@pytest.mark.parametrize("shape", sorted(set(SHAPES), key=lambda shape: shape.__name__))
def test_a_shape_fills_its_box_and_is_not_empty(shape: Shape) -> None:
    for seed in range(10):
        coverage = draw(shape, np.random.default_rng(seed), 60)
        assert coverage.dtype == np.float32
        assert 45 <= max(coverage.shape) <= 61
        assert coverage.min() == 0
        assert coverage.max() == 1
        assert (coverage >= 0.5).mean() > 0.03
        edges = (coverage[0], coverage[-1], coverage[:, 0], coverage[:, -1])
        assert all(edge.max() > 0 for edge in edges)


def test_coverage_has_the_area_of_the_outline() -> None:
    square = [Contour(np.array([[0, 0], [1, 0], [1, 1], [0, 1.0]]))]
    hole = Contour(np.array([[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]]), filled=False)
    for outline, share in ((square, 1), ([*square, hole], 0.75)):
        for seed in range(4):
            coverage = draw(lambda _, outline=outline: outline, np.random.default_rng(seed), 80)
            # A square turned by an angle: its side follows from the longer side of its box.
            angle = np.random.default_rng(seed).uniform(0, 2 * np.pi)
            side = 80 / (abs(np.cos(angle)) + abs(np.sin(angle)))
            assert coverage.sum() == pytest.approx(share * side**2, rel=0.02)


def test_edges_are_soft_and_as_wide_as_a_pixel() -> None:
    coverage = draw(ellipse, np.random.default_rng(0), 100)
    soft = ((coverage > 0) & (coverage < 1)).sum()
    assert 150 < soft < 600
