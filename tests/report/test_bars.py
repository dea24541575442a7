import re
from itertools import pairwise

import pytest

from hwsearch.report.bars import PANEL_HEIGHT, WIDTH, BarSeries, Panel, draw_bars


def bars(svg: str) -> dict[str, tuple[float, float, float, float]]:
    """Note of each bar → x, y, width and height."""
    pattern = r'<rect x="([\d.-]+)" y="([\d.-]+)" width="([\d.]+)" height="([\d.]+)"><title>(.*?)<'
    return {
        note: (float(x), float(y), float(width), float(height))
        for x, y, width, height, note in re.findall(pattern, svg)
    }


def draw(*panels: Panel, names: tuple[str, ...] = ("a", "b")) -> str:
    return draw_bars(names, panels, title="t", x_label="x")


def test_bars_are_as_high_as_their_values_and_do_not_touch():
    first, second = BarSeries("one", "front", [1.0, 4.0]), BarSeries("two", "pick", [2.0, None])
    found = bars(draw(Panel("p", [first, second])))
    assert list(found) == ["a, one: 1", "b, one: 4", "a, two: 2"]
    one, four, two = found.values()
    assert four[3] == pytest.approx(PANEL_HEIGHT)
    assert four[3] == pytest.approx(4 * one[3], rel=0.01)
    assert two[3] == pytest.approx(2 * one[3], rel=0.01)
    assert one[1] + one[3] == pytest.approx(four[1] + four[3])  # they stand on one line
    assert one[0] + one[2] <= two[0] + 0.1
    assert two[0] + two[2] < four[0] < WIDTH


def test_what_is_below_zero_hangs_from_the_line():
    found = bars(draw(Panel("p", [BarSeries("s", "front", [-1.0, 1.0])])))
    below, above = found["a, s: -1"], found["b, s: 1"]
    assert below[1] == pytest.approx(above[1] + above[3])
    assert below[3] == pytest.approx(above[3])


def test_panels_stand_below_each_other_with_scales_of_their_own():
    panels = [Panel(f"p{n}", [BarSeries(f"s{n}", "front", [0.1, 10.0**n])]) for n in range(3)]
    found = bars(draw(*panels))
    tops = [found[f"b, s{n}: {10**n}"] for n in range(3)]
    assert all(bar[3] == pytest.approx(PANEL_HEIGHT) for bar in tops)
    assert all(b[1] - a[1] > PANEL_HEIGHT for a, b in pairwise(tops))


@pytest.mark.parametrize("values", [[None, None], [0.0, 0.0], [-0.3, -0.1]])
def test_nothing_to_show_is_no_failure(values: list[float | None]):
    found = bars(draw(Panel("p", [BarSeries("s", "front", values)], guide=0.5)))
    assert len(found) == sum(value is not None for value in values)


def test_names_are_escaped():
    svg = draw(Panel("<p>", [BarSeries("<i>", "front", [1.0, 2.0])] * 2), names=("<a>", "b"))
    assert "&lt;a&gt;, &lt;i&gt;: 1" in svg
    assert "&lt;p&gt;" in svg
    assert "<i>" not in svg
