"""The samplers' curves as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from search_study.compare import ENOUGH, shares
from search_study.samplers import DEFAULT
from search_study.table import SearchTable

WIDTH, HEIGHT = 8.6, 4.2  # inches
COLOURS = 10  # of Matplotlib's own cycle
STYLES = ("-", "--", ":")  # one more for each time that the colours are used up


def hypervolume_curves(
    path: Path, table: SearchTable, runs: Mapping[str, Sequence[Sequence[int]]]
) -> None:
    """Missing share of the hypervolume by evaluations: median and quartiles over the seeds."""
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    axes = figure.subplots()
    for number, (name, seeds) in enumerate(runs.items()):
        curves = [shares(table, seed) for seed in seeds]
        length = min(map(len, curves))
        missing = 1 - np.array([curve[:length] for curve in curves])
        low, middle, high = np.quantile(missing, (0.25, 0.5, 0.75), axis=0)
        counts = np.arange(1, length + 1)
        width = 2.2 if name == DEFAULT else 1.0
        (line,) = axes.plot(
            counts,
            np.maximum(middle, 1e-4),
            label=name,
            linewidth=width,
            linestyle=STYLES[number // COLOURS % len(STYLES)],
        )
        axes.fill_between(
            counts,
            np.maximum(low, 1e-4),
            np.maximum(high, 1e-4),
            color=line.get_color(),
            alpha=0.12,
            linewidth=0,
        )
    axes.axhline(1 - ENOUGH, linestyle=":", color="0.4")
    axes.set(
        xscale="log",
        yscale="log",
        xlim=(8, None),
        ylim=(5e-4, 0.4),
        xlabel=f"subnets judged, of {len(table.mious)}",
        ylabel="hypervolume that is missing, share",
    )
    figure.legend(loc="outside right upper", fontsize="x-small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
