"""Curves as PNG."""

from __future__ import annotations

import json
from pathlib import Path

from matplotlib.figure import Figure

from supernet_study.study import Row

WIDTH, HEIGHT = 7, 4.2  # inches


def training_curves(path: Path, logs: dict[str, list[Path]]) -> None:
    """Validation mIoU by optimiser step, one line for each training and validated subnet.

    Args:
        path: of the picture.
        logs: name of each training → the logs of its rounds, drawn one after the other.
    """
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    axes = figure.subplots()
    for name, rounds in logs.items():
        lines = _one_after_the_other(rounds)
        for subnet in ("largest", "two_thirds", "one_third", "smallest"):
            points = [
                (line["step"], line[f"{subnet}/mean"]) for line in lines if f"{subnet}/mean" in line
            ]
            if points:
                axes.plot(*zip(*points, strict=True), marker=".", label=f"{name}: {subnet}")
    axes.set(xlabel="optimiser steps", ylabel="mIoU (box prompt, validation, mean over sets)")
    axes.legend(fontsize="small")
    _save(figure, path)


def size_curve(path: Path, rows: list[Row], curve: list[Row]) -> None:
    """Accuracy by encoder parameters: the claims, and the regular subnets down to the end."""
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    axes = figure.subplots()
    axes.plot(
        [row["params"] / 1e6 for row in curve],
        [row["miou"] for row in curve],
        color="0.6",
        marker=".",
        label="supernet: regular subnets",
    )
    styles = {"base": "s", "supernet": "o", "trained alone": "x"}
    for kind, marker in styles.items():
        of_kind = [row for row in rows if row["model"].startswith(kind)]
        axes.plot(
            [row["params"] / 1e6 for row in of_kind],
            [row["miou"] for row in of_kind],
            marker,
            label=kind,
        )
    floor = next(row["miou"] for row in rows if "params" not in row)
    axes.axhline(floor, linestyle=":", color="0.4", label="the box as mask")
    axes.set(xlabel="encoder parameters (M)", ylabel="mIoU (box prompt, unseen images)")
    axes.legend(fontsize="small")
    _save(figure, path)


def _one_after_the_other(rounds: list[Path]) -> list[dict[str, float]]:
    """The lines of all rounds, their steps counted through."""
    lines: list[dict[str, float]] = []
    for log in rounds:
        before = lines[-1]["step"] if lines else 0
        for text in log.read_text().splitlines():
            line = json.loads(text)
            lines.append(line | {"step": before + line["step"]})
    return lines


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
