"""Bars in panels above each other, over one common axis of names, as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from hwsearch.report.chart import ticks

WIDTH, LEFT, RIGHT = 760, 62, 12
PANEL_HEIGHT, TITLE_HEIGHT, GAP, BOTTOM = 150, 26, 18, 44
FILLED = 0.76  # share of a place that its bars take


@dataclass(frozen=True)
class BarSeries:
    """A bar for each name; None leaves it out. `style` is the CSS class."""

    name: str
    style: str
    values: Sequence[float | None]


@dataclass(frozen=True)
class Panel:
    """Series beside each other on a common scale; `guide` is a dashed level."""

    title: str
    series: Sequence[BarSeries]
    guide: float | None = None


@dataclass(frozen=True)
class _Scale:
    """Turns values into pixels of the panel whose bars begin at `top`."""

    low: float
    high: float
    top: float

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.top + PANEL_HEIGHT * (1 - share), 1)


def draw_bars(names: Sequence[str], panels: Sequence[Panel], *, title: str, x_label: str) -> str:
    """Panels of bars as one `<figure>`.

    Args:
        names: what stands below the bars, from left to right.
        panels: from top to bottom; each series has a value for each name.
        title: read out by screen readers.
        x_label: what the names are.
    """
    step = TITLE_HEIGHT + PANEL_HEIGHT + GAP
    height = step * len(panels) + BOTTOM
    place = (WIDTH - LEFT - RIGHT) / len(names)
    below = height - BOTTOM
    labels = "".join(
        f'<text class="tick" x="{round(LEFT + (number + 0.5) * place, 1)}" y="{below}">'
        f"{escape(name)}</text>"
        for number, name in enumerate(names)
    )
    drawn = "".join(
        _panel(panel, names, TITLE_HEIGHT + step * number) for number, panel in enumerate(panels)
    )
    return (
        f'<figure class="chart bars"><svg viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(title)}">{drawn}{labels}<text class="axis" '
        f'x="{(LEFT + WIDTH - RIGHT) / 2}" y="{below + 24}">{escape(x_label)}</text></svg></figure>'
    )


def _panel(panel: Panel, names: Sequence[str], top: float) -> str:
    known = [value for series in panel.series for value in series.values if value is not None]
    low = min([0.0, *known])
    scale = _Scale(low, max([low + 1e-6, *known, panel.guide or 0.0]), top)
    lines = "".join(
        f'<path class="grid" d="M{LEFT} {scale.y(value)}H{WIDTH - RIGHT}"/>'
        f'<text class="tick side" x="{LEFT - 8}" y="{scale.y(value) + 4}">{value:g}</text>'
        for value in ticks(scale.low, scale.high, most=4)
    )
    guide = (
        ""
        if panel.guide is None
        else f'<g class="guide"><path d="M{LEFT} {scale.y(panel.guide)}H{WIDTH - RIGHT}"/></g>'
    )
    bars = "".join(
        _bars(series, names, scale, number, len(panel.series))
        for number, series in enumerate(panel.series)
    )
    return f"{_heading(panel, top)}{lines}{bars}{guide}"


def _heading(panel: Panel, top: float) -> str:
    """The title on the left, the legend on the right where there is more than one series."""
    parts = [f'<text class="head" x="{LEFT}" y="{top - 10}">{escape(panel.title)}</text>']
    right = WIDTH - RIGHT
    for series in reversed(panel.series if len(panel.series) > 1 else ()):
        right -= 7 * len(series.name)
        parts.append(
            f'<g class="{escape(series.style)}"><rect x="{right - 15}" y="{top - 19}" width="10" '
            f'height="10"/></g><text x="{right}" y="{top - 10}">{escape(series.name)}</text>'
        )
        right -= 30
    return "".join(parts)


def _bars(
    series: BarSeries, names: Sequence[str], scale: _Scale, number: int, of_series: int
) -> str:
    place = (WIDTH - LEFT - RIGHT) / len(names)
    width = FILLED * place / of_series
    start = LEFT + (1 - FILLED) / 2 * place + number * width
    drawn = []
    for index, (name, value) in enumerate(zip(names, series.values, strict=True)):
        if value is not None:
            top, bottom = sorted((scale.y(value), scale.y(0)))
            drawn.append(
                f'<rect x="{round(start + index * place, 1)}" y="{top}" width="{round(width, 1)}" '
                f'height="{round(bottom - top, 1)}">'
                f"<title>{escape(name)}, {escape(series.name)}: {value:.3g}</title></rect>"
            )
    return f'<g class="{escape(series.style)}">{"".join(drawn)}</g>'
