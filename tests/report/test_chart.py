import re

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hwsearch.report.chart import HEIGHT, WIDTH, Guide, Point, Series, draw_chart, ticks


@given(low=st.floats(-1e4, 1e4), span=st.floats(1e-3, 1e4))
def test_ticks_are_few_even_and_inside(low: float, span: float):
    high = low + span
    assume(high - low > 1e-6 * abs(low))
    found = ticks(low, high)
    assert 2 <= len(found) <= 9
    assert low - 1e-6 * span <= found[0]
    assert found[-1] <= high + 1e-6 * span
    assert np.diff(found) == pytest.approx((found[-1] - found[0]) / (len(found) - 1), rel=1e-3)


def positions(svg: str) -> list[tuple[float, float]]:
    return [
        (float(x), float(y)) for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)" r="4.5"', svg)
    ]


def test_more_accurate_is_higher_and_slower_is_further_right():
    points = [Point(5.0, 0.5, "slow"), Point(1.0, 0.4, "fast")]
    *_, slow, fast = positions(chart([Series("all", "front", points)]).split("<ul")[0])
    assert slow[0] > fast[0]
    assert slow[1] < fast[1]


def chart(series: list[Series], **changes: list[Guide] | list[float]) -> str:
    return draw_chart(series, title="t", x_label="x", y_label="y", **changes)


def test_all_stays_inside_even_for_a_single_point():
    svg = chart([Series("one", "front", [Point(3.0, 0.0, "only")])], keep_x=[9.0])
    (x, y), *_ = positions(svg)
    assert 0 < x < WIDTH
    assert 0 < y < HEIGHT


def test_notes_and_names_are_escaped():
    svg = chart(
        [Series("<i>", "front", [Point(1.0, 1.0, "a<b")])],
        guides=[Guide("<target>", (1.0, None), (1.0, None))],
    )
    assert "a&lt;b" in svg
    assert "&lt;target&gt;" in svg
    assert "<i>" not in svg
