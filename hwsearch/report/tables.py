"""The tables of the report: what was picked, the front, and the pick's layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from hwsearch.records import SamGeometry
from hwsearch.results import Candidate, SearchResult

DASH = "–"


def comparison_table(result: SearchResult) -> str:
    """The pick beside the largest subnet, figure by figure."""
    pick, largest = result.pick, result.largest
    rows = [
        (f"mIoU, {result.split} (searched on)", _miou(pick.miou), _miou(largest.miou), ""),
        (
            f"mIoU, {result.final_split} (never searched on)",
            _miou(pick.miou_final),
            _miou(largest.miou_final),
            "",
        ),
        (
            "Latency, measured",
            _ms(pick.latency_ms),
            _ms(largest.latency_ms),
            _share(pick.latency_ms, largest.latency_ms),
        ),
        ("Latency, predicted", _ms(pick.predicted_ms), _ms(largest.predicted_ms), ""),
        ("Latency, upper bound", _ms(pick.upper_ms), _ms(largest.upper_ms), ""),
        (
            "Encoder parameters",
            _millions(pick.params),
            _millions(largest.params),
            _share(pick.params, largest.params),
        ),
        (
            "Encoder MACs",
            _billions(pick.macs),
            _billions(largest.macs),
            _share(pick.macs, largest.macs),
        ),
        ("Layers", str(pick.subnet.depth), str(largest.subnet.depth), ""),
        ("Resolution", f"{pick.subnet.resolution} px", f"{largest.subnet.resolution} px", ""),
    ]
    if len(result.precisions) > 1:
        rows.append(("Precision", pick.precision, largest.precision, ""))
    for asked, ours, theirs in zip(
        result.further_targets, pick.further_targets, largest.further_targets, strict=True
    ):
        name = f"Latency on {escape(asked.target.name)}, within {asked.target_latency_ms:g} ms"
        if asked.measured_here:
            row = (_ms(ours.latency_ms), _ms(theirs.latency_ms))
        else:
            name += " (upper bound, not measured here)"
            row = (_ms(ours.upper_ms), _ms(theirs.upper_ms))
        rows.append((name, *row, ""))
    return table(("", "pick", "largest", "pick ÷ largest"), rows)


def front_table(result: SearchResult) -> str:
    """All measured subnets of the front, the most accurate first; the pick is marked."""
    rows = [
        (
            f"<code>{row.subnet.id}</code>"
            + (f" {row.precision}" if len(result.precisions) > 1 else ""),
            _ms(row.latency_ms),
            _ms(row.predicted_ms),
            _miou(row.miou),
            _miou(row.miou_final),
            str(row.subnet.depth),
            f"{row.subnet.resolution} px",
            _millions(row.params),
            _billions(row.macs),
        )
        for row in reversed(result.front)
    ]
    heads = (
        "subnet",
        "measured",
        "predicted",
        f"mIoU {result.split}",
        f"mIoU {result.final_split}",
        "layers",
        "input",
        "parameters",
        "MACs",
    )
    styles = {
        number: "pick"
        for number, row in enumerate(reversed(result.front))
        if row.deployment == result.pick.deployment
    }
    return table(heads, rows, styles=styles)


def layer_table(pick: Candidate, geometry: SamGeometry) -> str:
    """Every layer of the full encoder: kept or left out, its kind, width and heads."""
    kept = {layer.index: layer for layer in pick.subnet.layers}
    rows, styles = [], {}
    for index in range(geometry.depth):
        kind = "global" if geometry.is_global(index) else "windowed"
        layer = kept.get(index)
        if layer is None:
            rows.append((str(index), kind, "left out", DASH, DASH))
            styles[index] = "gone"
        else:
            width = _bar(layer.mlp_width, geometry.mlp_width)
            rows.append((str(index), kind, "kept", width, _bar(layer.heads, geometry.heads)))
    heads = (
        "layer",
        "attention",
        "",
        f"MLP width (of {geometry.mlp_width})",
        f"heads (of {geometry.heads})",
    )
    return table(heads, rows, styles=styles)


def table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    styles: Mapping[int, str] | None = None,
) -> str:
    """An HTML table; heads are escaped, cells are HTML already, `styles` gives rows a class."""
    styles = styles or {}
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "".join(
        f'<tr class="{styles.get(number, "")}"><th scope="row">{first}</th>'
        + "".join(f"<td>{cell}</td>" for cell in rest)
        + "</tr>"
        for number, (first, *rest) in enumerate(rows)
    )
    inner = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="wide"><table>{inner}</table></div>'


def _bar(value: int, whole: int) -> str:
    return f'{value}<span class="bar"><i style="width:{100 * value / whole:.0f}%"></i></span>'


def _miou(value: float | None) -> str:
    return DASH if value is None else f"{value:.4f}"


def _ms(value: float | None) -> str:
    return DASH if value is None else f"{value:.2f} ms"


def _millions(value: int) -> str:
    return f"{value / 1e6:.2f} M"


def _billions(value: int) -> str:
    return f"{value / 1e9:.2f} G"


def _share(value: float | None, whole: float | None) -> str:
    return DASH if value is None or not whole else f"{100 * value / whole:.0f} %"
