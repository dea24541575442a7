"""Scatter charts as inline SVG, coloured by the page's style sheet.

Small enough to be read, and a page with them opens offline without megabytes of scripts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 22, 48
PADDING = 0.05  # share of the data's span left free on each side


@dataclass(frozen=True)
class Point:
    """A dot and the words that appear when the mouse rests on it."""

    x: float
    y: float
    note: str


@dataclass(frozen=True)
class Series:
    """Points of one kind; `style` is the CSS class, `steps` joins them by a staircase."""

    name: str
    style: str
    points: Sequence[Point]
    steps: bool = False


@dataclass(frozen=True)
class Guide:
    """A labelled straight line; `None` for an end's coordinate means the edge of the chart."""

    name: str
    start: tuple[float | None, float | None]
    end: tuple[float | None, float | None]


@dataclass(frozen=True)
class _Frame:
    """Turns data into pixels."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        share = (value - self.x_low) / (self.x_high - self.x_low)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        share = (value - self.y_low) / (self.y_high - self.y_low)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)


def draw_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    guides: Sequence[Guide] = (),
    keep_x: Sequence[float] = (),
) -> str:
    """A scatter chart as one `<figure>` with its legend.

    Args:
        series: what to draw, the topmost last; together at least one point.
        title: read out by screen readers.
        x_label: name and unit of the horizontal axis.
        y_label: name and unit of the vertical axis.
        guides: lines behind the points.
        keep_x: values that the horizontal axis has to include.
    """
    points = [point for one in series for point in one.points]
    x_low, x_high = _padded([point.x for point in points] + list(keep_x))
    y_low, y_high = _padded([point.y for point in points])
    frame = _Frame(x_low=max(x_low, 0.0), x_high=x_high, y_low=max(y_low, 0.0), y_high=y_high)
    parts = [
        _axes(frame, x_label=x_label, y_label=y_label),
        *(_guide(frame, guide) for guide in guides),
        *(_series(frame, one) for one in series),
    ]
    legend = "".join(
        f'<li><svg viewBox="0 0 12 12" aria-hidden="true"><g class="{escape(one.style)}">'
        f'<circle cx="6" cy="6" r="4.5"/></g></svg>{escape(one.name)}</li>'
        for one in series
        if one.points
    )
    return (
        f'<figure class="chart"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
        f'<ul class="legend">{legend}</ul></figure>'
    )


def ticks(low: float, high: float, *, most: int = 8) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten apart) from `low` to `high`."""
    span = high - low
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= most)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(count * step, 12) for count in range(first, last + 1)]


def _padded(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    span = (high - low) or abs(high) or 1.0
    return low - PADDING * span, high + PADDING * span


def _axes(frame: _Frame, *, x_label: str, y_label: str) -> str:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    lines = []
    for value in ticks(frame.x_low, frame.x_high):
        x = frame.x(value)
        lines.append(f'<path class="grid" d="M{x} {TOP}V{bottom}"/>')
        lines.append(f'<text class="tick" x="{x}" y="{bottom + 18}">{value:g}</text>')
    for value in ticks(frame.y_low, frame.y_high, most=6):
        y = frame.y(value)
        lines.append(f'<path class="grid" d="M{LEFT} {y}H{right}"/>')
        lines.append(f'<text class="tick side" x="{LEFT - 8}" y="{y + 4}">{value:g}</text>')
    middle = (LEFT + right) / 2
    lines.append(f'<text class="axis" x="{middle}" y="{HEIGHT - 8}">{escape(x_label)}</text>')
    lines.append(
        f'<text class="axis" transform="translate(14 {(TOP + bottom) / 2}) rotate(-90)">'
        f"{escape(y_label)}</text>"
    )
    return "".join(lines)


def _guide(frame: _Frame, guide: Guide) -> str:
    x1, x2 = (frame.x(_or(end[0], edge)) for end, edge in _ends(guide, frame.x_low, frame.x_high))
    y1, y2 = (frame.y(_or(end[1], edge)) for end, edge in _ends(guide, frame.y_low, frame.y_high))
    anchor = ' class="left"' if x2 > WIDTH / 2 else ""
    shift = -6 if anchor else 6
    return (
        f'<g class="guide"><path d="M{x1} {y1}L{x2} {y2}"/>'
        f'<text{anchor} x="{x2 + shift}" y="{y2 + 12}">{escape(guide.name)}</text></g>'
    )


def _ends(
    guide: Guide, low: float, high: float
) -> tuple[tuple[tuple[float | None, float | None], float], ...]:
    return (guide.start, low), (guide.end, high)


def _or(value: float | None, edge: float) -> float:
    return edge if value is None else value


def _series(frame: _Frame, series: Series) -> str:
    dots = "".join(
        f'<circle cx="{frame.x(point.x)}" cy="{frame.y(point.y)}" r="4.5">'
        f"<title>{escape(point.note)}</title></circle>"
        for point in series.points
    )
    stairs = _staircase(frame, series.points) if series.steps and series.points else ""
    return f'<g class="{escape(series.style)}">{stairs}{dots}</g>'


def _staircase(frame: _Frame, points: Sequence[Point]) -> str:
    ordered = sorted(points, key=lambda point: point.x)
    path = f"M{frame.x(ordered[0].x)} {frame.y(ordered[0].y)}"
    path += "".join(f"H{frame.x(point.x)}V{frame.y(point.y)}" for point in ordered[1:])
    return f'<path d="{path}"/>'
