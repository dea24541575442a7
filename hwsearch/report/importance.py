"""One HTML page about a supernet's importance: layers, neurons and heads; it opens offline."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from hwsearch.files import write_text
from hwsearch.records import LayerImportance, LayerSpread, SamGeometry, ScoreMethod
from hwsearch.report.bars import BarSeries, Panel, draw_bars

# Method → CSS class of its bars.
METHODS: dict[ScoreMethod, str] = {"magnitude": "trial", "wanda": "front", "taylor": "largest"}
STYLE = """
.bars .head { fill: var(--text); font-weight: 600; }
.bars .trial rect { fill: var(--trial); }
.bars .front rect { fill: var(--front); }
.bars .pick rect { fill: var(--pick); }
.bars .largest rect { fill: var(--largest); }
"""


def write_importance_page(
    out: Path,
    *,
    name: str,
    geometry: SamGeometry,
    importance: Sequence[LayerImportance],
    scores: Sequence[LayerSpread],
    ordering: str,
    notes: Sequence[str] = (),
) -> None:
    """Write the page.

    Args:
        out: the file to write; its folder is made.
        name: the supernet's.
        geometry: the full encoder's sizes.
        importance: one record for each removable layer.
        scores: one record for each layer, or none.
        ordering: what neurons and heads are sorted by.
        notes: sentences below the plot.
    """
    style = files("hwsearch.report").joinpath("page.css").read_text(encoding="utf-8") + STYLE
    title = f"Importance in {name}"
    figure = draw_bars(
        [f"{i} g" if geometry.is_global(i) else str(i) for i in range(geometry.depth)],
        _layer_panels(geometry, importance) + _score_panels(scores),
        title=title,
        x_label="layer (g: global attention, the others windowed)",
    )
    below = "".join(f'<p class="note">{escape(note)}</p>' for note in (_legend(ordering), *notes))
    write_text(
        out,
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body>"
        f"<header><h1>{escape(title)}</h1></header><main>{figure}{below}</main></body></html>\n",
    )


def _layer_panels(geometry: SamGeometry, importance: Sequence[LayerImportance]) -> list[Panel]:
    layers = {layer.index: layer for layer in importance}
    rows = [layers.get(index) for index in range(geometry.depth)]
    without_layer = [row.miou_drop if row else None for row in rows]
    without_mlp = [row.mlp_drop if row else None for row in rows]
    losses = [BarSeries("the layer", "pick", _points(without_layer))]
    if any(drop is not None for drop in without_mlp):
        losses.append(BarSeries("its MLP alone", "front", _points(without_mlp)))
    removal = [100 * row.removal_probability if row else None for row in rows]
    return [
        Panel("Points of mIoU lost without", losses),
        Panel("Removal probability in training (%)", [BarSeries("removed", "trial", removal)]),
    ]


def _score_panels(scores: Sequence[LayerSpread]) -> list[Panel]:
    if not scores:
        return []
    methods = [method for method in METHODS if method in scores[0].methods]
    neurons = [
        BarSeries(m, METHODS[m], [100 * layer.first_half(m) for layer in scores]) for m in methods
    ]
    heads = [
        BarSeries(m, METHODS[m], [100 * max(layer.methods[m].heads) for layer in scores])
        for m in methods
    ]
    even = 100 / len(scores[0].methods[methods[0]].heads)
    return [
        Panel("Neurons' score held by the first half (%)", neurons, guide=50.0),
        Panel("Heads' score held by the best head (%)", heads, guide=even),
    ]


def _points(shares: Sequence[float | None]) -> list[float | None]:
    return [None if share is None else 100 * share for share in shares]


def _legend(ordering: str) -> str:
    return (
        "mIoU: on the calibration images, the layer taken away from the full model without any "
        "training. Scores: magnitude is the mean |W|, wanda weighs it with the norms of "
        "activations, taylor is the squared first-order change of the loss. Dashed: all alike. "
        f"Neurons and heads are ordered by: {ordering}."
    )
