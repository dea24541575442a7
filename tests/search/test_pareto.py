import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsearch.search.pareto import hypervolume, pareto_front

Point = tuple[float, float]

POINTS = st.lists(
    st.tuples(st.integers(0, 10).map(lambda tenth: tenth / 10), st.integers(0, 12).map(float)),
    max_size=25,
)
REFERENCE = (0.0, 12.0)


def dominates(one: Point, other: Point):
    return one[0] >= other[0] and one[1] <= other[1] and one != other


@given(POINTS)
def test_front_holds_exactly_one_of_each_undominated_point(points: list[Point]):
    front = [points[index] for index in pareto_front(points)]
    undominated = {p for p in points if not any(dominates(other, p) for other in points)}
    assert len(front) == len(set(front))
    assert set(front) == undominated


@given(POINTS)
def test_front_ascends_in_latency_and_accuracy(points: list[Point]):
    front = np.asarray(points, dtype=float).reshape(-1, 2)[pareto_front(points)]
    assert (np.diff(front, axis=0) > 0).all()


@given(POINTS, POINTS)
def test_hypervolume_never_shrinks_with_more_points(points: list[Point], more: list[Point]):
    assert hypervolume(points + more, REFERENCE) >= hypervolume(points, REFERENCE) - 1e-12


@given(POINTS)
def test_hypervolume_is_the_area_of_the_dominated_cells(points: list[Point]):
    cells = sum(
        any(accuracy >= (row + 1) / 10 and latency <= column for accuracy, latency in points)
        for row in range(10)
        for column in range(12)
    )
    assert hypervolume(points, REFERENCE) == pytest.approx(cells * 0.1)


def test_points_beyond_the_reference_add_nothing():
    assert hypervolume([(0.2, 5.0), (0.9, 20.0)], (0.3, 10.0)) == 0.0
