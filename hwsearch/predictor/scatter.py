"""Predicted against measured latency as an SVG file that stands for itself."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from hwsearch.report.chart import ticks

SIDE, LEFT, TOP, BOTTOM = 480, 64, 40, 52
PADDING = 0.05  # of the span of the latencies
STYLE = (
    "svg{font:13px system-ui,sans-serif;background:#fff}text{fill:#333}"
    ".grid{stroke:#e4e4e4}.equal{stroke:#666;stroke-dasharray:5 4}"
    ".dot{fill:#1f6fb2;fill-opacity:.65}.side{text-anchor:end}.middle{text-anchor:middle}"
)


def scatter_svg(measured_ms: Sequence[float], predicted_ms: Sequence[float], *, title: str) -> str:
    """A square scatter chart with the line on which both are equal.

    Args:
        measured_ms: latencies in milliseconds, at least one.
        predicted_ms: as many predictions, by models that did not see their row.
        title: what stands above.
    """
    values = [*measured_ms, *predicted_ms]
    low, high = min(values), max(values)
    padding = PADDING * ((high - low) or high)
    low, high = max(low - padding, 0.0), high + padding

    def along(value: float) -> float:
        return round(LEFT + SIDE * (value - low) / (high - low), 1)

    def up(value: float) -> float:
        return round(TOP + SIDE * (high - value) / (high - low), 1)

    grid = "".join(
        f'<path class="grid" d="M{along(value)} {TOP}V{TOP + SIDE}M{LEFT} {up(value)}'
        f'H{LEFT + SIDE}"/><text class="middle" x="{along(value)}" y="{TOP + SIDE + 18}">'
        f'{value:g}</text><text class="side" x="{LEFT - 8}" y="{up(value) + 4}">{value:g}</text>'
        for value in ticks(low, high, most=6)
    )
    dots = "".join(
        f'<circle class="dot" cx="{along(measured)}" cy="{up(predicted)}" r="4"><title>'
        f"{measured:.4g} ms measured, {predicted:.4g} ms predicted</title></circle>"
        for measured, predicted in zip(measured_ms, predicted_ms, strict=True)
    )
    width, height, middle = LEFT + SIDE + 16, TOP + SIDE + BOTTOM, TOP + SIDE / 2
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="{escape(title)}"><style>{STYLE}</style>'
        f'<text x="{LEFT}" y="24">{escape(title)}</text>{grid}'
        f'<path class="equal" d="M{LEFT} {TOP + SIDE}L{LEFT + SIDE} {TOP}"/>{dots}'
        f'<text class="middle" x="{LEFT + SIDE / 2}" y="{TOP + SIDE + 40}">measured, ms</text>'
        f'<text class="middle" transform="translate(18 {middle}) rotate(-90)">'
        "predicted without the row, ms</text></svg>\n"
    )
