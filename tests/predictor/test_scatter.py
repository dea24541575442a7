"""The scatter chart is a well-formed file whose dots lie where the latencies say."""

from xml.etree import ElementTree

import pytest

from hwsearch.predictor.scatter import scatter_svg

SPACE = "{http://www.w3.org/2000/svg}"


def dots(svg: str) -> list[tuple[float, float]]:
    root = ElementTree.fromstring(svg)
    return [(float(dot.get("cx")), float(dot.get("cy"))) for dot in root.iter(f"{SPACE}circle")]


def test_equal_latencies_lie_on_the_line():
    svg = scatter_svg([10.0, 20.0, 40.0], [10.0, 20.0, 40.0], title="a <b> & c")
    root = ElementTree.fromstring(svg)
    line = next(path for path in root.iter(f"{SPACE}path") if path.get("class") == "equal")
    start, end = line.get("d").removeprefix("M").split("L")
    (x0, y0), (x1, y1) = (map(float, point.split()) for point in (start, end))
    for x, y in dots(svg):
        assert (x - x0) / (x1 - x0) == pytest.approx((y - y0) / (y1 - y0), abs=0.01)


def test_slower_predictions_lie_higher_and_slower_measurements_further_right():
    (x1, y1), (x2, y2) = dots(scatter_svg([10.0, 30.0], [12.0, 25.0], title="two"))
    assert x2 > x1
    assert y2 < y1


def test_one_latency_is_drawn_too():
    (x, y), *_ = dots(scatter_svg([5.0], [5.0], title="one"))
    assert x > 0
    assert y > 0
