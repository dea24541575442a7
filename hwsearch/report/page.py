"""One HTML page about a search: it opens offline and can be sent to anyone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path

import numpy as np

from hwsearch.records import Conditions, Framing, SamGeometry
from hwsearch.report.chart import Guide, Point, Series, draw_chart
from hwsearch.report.gallery import gallery
from hwsearch.report.tables import comparison_table, front_table, layer_table
from hwsearch.results import Candidate, SearchResult

FRAMINGS: dict[Framing, str] = {
    "image": "whole images",
    "object": "a crop around each object",
}


@dataclass(frozen=True)
class ProfileRow:
    """A profiled subnet: what its latency was measured to be, and what the predictor says."""

    subnet_id: str
    measured_ms: float
    predicted_ms: float


def write_report(
    result: SearchResult,
    *,
    geometry: SamGeometry,
    candidates: Sequence[Candidate],
    profile_rows: Sequence[ProfileRow],
    predictor_card: str,
    overlays: Sequence[Path],
    conditions: Conditions | None,
    out: Path,
) -> Path:
    """Write the page.

    Args:
        result: what the search left.
        geometry: the full encoder's sizes, for the table of layers.
        candidates: all subnets that the search judged, for the chart.
        profile_rows: profiled subnets with the predictor's answers; may be empty.
        predictor_card: the predictor's card, plain text or Markdown; may be empty.
        overlays: pictures of the pick's masks; a name like `leaf_3.png` becomes the caption.
        conditions: the state of the machine when the picks were measured, if known.
        out: the file to write; its folder is made.

    Returns:
        `out`.

    Raises:
        DataError: an overlay can't be read.
    """
    sections = [
        _section("What was found", _found(result)),
        _section("Accuracy against latency", _front(result, candidates)),
        _section("Layers of the pick", layer_table(result.pick, geometry)),
    ]
    if overlays:
        sections.append(_section("Masks of the pick", gallery(overlays)))
    sections.append(_section("How well latency is predicted", _prediction(result, profile_rows)))
    if predictor_card:
        sections.append(
            "<details><summary>The predictor's card</summary>"
            f"<pre>{escape(predictor_card)}</pre></details>"
        )
    sections.append(_section("Conditions", _conditions(result, conditions)))
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.part")
    unfinished.write_text(_page(result, "".join(sections)), encoding="utf-8")
    unfinished.replace(out)
    return out


def _page(result: SearchResult, body: str) -> str:
    style = files("hwsearch.report").joinpath("page.css").read_text(encoding="utf-8")
    title = f"hwsearch: {result.study}"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body>"
        f"<header><h1>Search “{escape(result.study)}”</h1><p>{_asked(result)}</p></header>"
        f"<main>{body}</main></body></html>\n"
    )


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _asked(result: SearchResult) -> str:
    target = result.target
    return (
        f"Asked for: the most accurate subnet of {escape(result.supernet)} within "
        f"{result.target_latency_ms:g} ms on {escape(target.device_name)} "
        f"({target.runtime}, {target.precision}, {target.threads} "
        f"{'thread' if target.threads == 1 else 'threads'}, batch {target.batch}), "
        f"judged on {escape(result.data)}. {result.trials} subnets were tried."
    )


def _found(result: SearchResult) -> str:
    pick, largest = result.pick, result.largest
    return (
        f'<p class="lead">{_verdict(result)}</p><dl class="cards">'
        + _card("Latency, measured", f"{_number(pick.latency_ms)} ms", _target_note(result))
        + _card(f"mIoU, {result.split}", f"{pick.miou:.4f}", f"largest: {largest.miou:.4f}")
        + (
            _card(
                f"mIoU, {result.final_split}",
                f"{pick.miou_final:.4f}",
                f"largest: {_number(largest.miou_final, 4)}",
            )
            if pick.miou_final is not None
            else ""
        )
        + _card(
            "Encoder parameters",
            f"{pick.params / 1e6:.2f} M",
            f"{100 * (1 - pick.params / largest.params):.0f} % fewer than the largest",
        )
        + "</dl>"
        + comparison_table(result)
        + '<p class="note">mIoU is that of the mask which the predicted IoU selects; the model saw '
        f"{FRAMINGS[result.framing]}. Parameters "
        "and MACs are the image encoder's, by arithmetic.</p>"
    )


def _verdict(result: SearchResult) -> str:
    pick, largest = result.pick, result.largest
    final = pick.miou_final is not None and largest.miou_final is not None
    points = 100 * (
        (pick.miou_final or 0.0) - (largest.miou_final or 0.0)
        if final
        else pick.miou - largest.miou
    )
    split = escape(result.final_split if final else result.split)
    change = "more" if points >= 0 else "less"
    words = (
        f"Subnet <code>{pick.subnet.id}</code> keeps {pick.subnet.depth} of "
        f"{largest.subnet.depth} layers at {pick.subnet.resolution} px: "
        f"{abs(points):.1f} points of mIoU {change} than the largest subnet ({split})"
    )
    if pick.latency_ms and largest.latency_ms:
        return f"{words}, {largest.latency_ms / pick.latency_ms:.1f} × as fast."
    return f"{words}."


def _target_note(result: SearchResult) -> str:
    return f"target: {result.target_latency_ms:g} ms"


def _card(name: str, value: str, note: str) -> str:
    return (
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(note)}</small></dd></div>"
    )


def _front(result: SearchResult, candidates: Sequence[Candidate]) -> str:
    known = {row.deployment for row in result.front} | {result.largest.deployment}
    others = [row for row in candidates if row.deployment not in known and row.runs]
    trials = [row for row in others if row.latency_ms is None]
    measured = [row for row in others if row.latency_ms is not None]
    chart = draw_chart(
        [
            Series("tried, latency predicted", "trial", _points(trials)),
            Series("measured, not on the front", "measured", _points(measured)),
            Series("front, measured", "front", _points(result.front), steps=True),
            Series(
                "largest, measured" if result.largest.runs else "largest, which can't be run",
                "largest",
                _points([result.largest]),
            ),
            Series("pick", "pick", _points([result.pick])),
        ],
        title=f"mIoU on {result.split} against latency of all subnets tried",
        x_label="latency (ms)",
        y_label=f"mIoU, {result.split}",
        guides=[
            Guide(
                f"target {result.target_latency_ms:g} ms",
                (result.target_latency_ms, None),
                (result.target_latency_ms, None),
            )
        ],
        keep_x=[result.target_latency_ms],
    )
    return chart + front_table(result)


def _points(rows: Sequence[Candidate]) -> list[Point]:
    points = []
    for row in rows:
        latency_ms = row.predicted_ms if row.latency_ms is None else row.latency_ms
        if latency_ms is not None:
            how = "predicted" if row.latency_ms is None else "measured"
            name = row.subnet.id if row.precision == "fp32" else row.deployment.id
            note = f"{name}: mIoU {row.miou:.4f}, {latency_ms:.2f} ms {how}"
            points.append(Point(latency_ms, row.miou, note))
    return points


def _prediction(result: SearchResult, rows: Sequence[ProfileRow]) -> str:
    floor = (
        "not measured"
        if result.noise_floor_percent is None
        else f"{result.noise_floor_percent:.2f} %"
    )
    text = (
        f"<p>Held-out error of the {escape(result.predictor_model)} predictor: "
        f"{result.predictor_mape_percent:.2f} % (mean absolute percentage error); "
        f"noise floor of the measurement itself: {floor}.</p>"
    )
    if not rows:
        return text
    measured = np.array([row.measured_ms for row in rows])
    predicted = np.array([row.predicted_ms for row in rows])
    error = 100 * float(np.mean(np.abs(predicted / measured - 1)))
    low, high = float(measured.min()), float(measured.max())
    notes = [
        Point(
            row.measured_ms,
            row.predicted_ms,
            f"{row.subnet_id}: {row.measured_ms:.2f} ms measured, {row.predicted_ms:.2f} predicted",
        )
        for row in rows
    ]
    chart = draw_chart(
        [Series(f"{len(rows)} profiled subnets", "front", notes)],
        title="Predicted against measured latency",
        x_label="measured (ms)",
        y_label="predicted (ms)",
        guides=[Guide("exact", (low, low), (high, high))],
    )
    return (
        f"{text}{chart}"
        f'<p class="note">The chart shows all profiled subnets, those the predictor was fitted to '
        f"included (mean absolute percentage error {error:.2f} %).</p>"
    )


def _conditions(result: SearchResult, conditions: Conditions | None) -> str:
    target = result.target
    facts = {
        "Study": result.study,
        "Supernet": f"{result.supernet} ({result.supernet_id})",
        "Data": f"{result.data}, searched on {result.split}, final figures on {result.final_split}",
        "Target": f"{target.name}, {target.runtime} {target.runtime_version}",
        "Scope": result.scope,
    }
    if conditions is not None:
        facts |= {
            "Measured": conditions.timestamp,
            "Processor": f"{conditions.cpu}, {conditions.cores} cores",
            "Governor": conditions.governor or "unknown",
            "Clock": _optional(conditions.clock_mhz, "MHz"),
            "Load average": _optional(conditions.load_average, ""),
            "Versions": _versions(conditions.versions),
        }
    rows = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts.items()
    )
    return f'<dl class="facts">{rows}</dl>'


def _optional(value: float | None, unit: str) -> str:
    return "unknown" if value is None else f"{value:g} {unit}".strip()


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
