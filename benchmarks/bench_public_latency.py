"""Latency models on public measurements: any folder of CSV files in the form of HAT.

    python benchmarks/bench_public_latency.py --data DIR [--json]

Five random splits of each file, 200 rows held out. Models see architectures alone, never the
order of the rows, in which the machine drifted. "default" is what hwsearch chooses from the
training rows by cross-validation.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from threadpoolctl import threadpool_limits

from hwsearch.cli.progress import RichProgress
from hwsearch.errors import HwsearchError, UsageError
from hwsearch.profiler.conditions import capture_conditions
from latency_study import hat
from latency_study.figures import Row
from latency_study.hat import LatencySet, read_sets
from latency_study.public import DEFAULT, evaluate

SIZES = "50,100,1600"
FIGURES = ("mape", "within_5", "within_10", "kendall_tau")


def main(
    *,
    data: Annotated[Path, typer.Option(help="A folder of CSV files.")],
    sizes: Annotated[str, typer.Option(help="How many rows to fit on.")] = SIZES,
    seed: Annotated[int, typer.Option(help="Of the splits and of the fits.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON alone.")] = False,
) -> None:
    """Compare hwsearch's latency models with each other and with general regressors."""
    sets, numbers = read_sets(data), _numbers(sizes)
    _check_rows(sets, max(numbers))
    rows: list[Row] = []
    intervals: list[Row] = []
    progress = RichProgress()
    # One thread, so that the figures and their cost don't depend on the machine's cores.
    with threadpool_limits(1), progress, progress.task("fits", len(sets) * len(numbers)) as advance:
        for one in sets:
            for n in numbers:
                scores, held = evaluate(one, n, seed=seed)
                rows += scores
                intervals.append(held)
                advance(note=f"{one.name}, {n} rows")
    means = _means(rows)
    found = {
        "rows": rows,
        "means": means,
        "intervals": intervals,
        "conditions": {
            **capture_conditions().model_dump(),
            "threads": 1,
            "splits": hat.SPLITS,
            "held_out": hat.HELD_OUT,
            "seed": seed,
            "latency": "encoder plus decoder",
        },
    }
    if as_json:
        print(json.dumps(found, indent=1))
        return
    _print_table([*rows, *means], intervals)


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(word) for word in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 8:
        raise UsageError(f"{text!r} are no numbers of rows: give some from 8 on, such as {SIZES}.")
    return numbers


def _check_rows(sets: list[LatencySet], n: int) -> None:
    for one in sets:
        if len(one.table) < n + hat.HELD_OUT:
            raise UsageError(
                f"{one.name} has {len(one.table)} rows, too few for {n} to fit on and "
                f"{hat.HELD_OUT} held out: give smaller --sizes."
            )


def _means(rows: list[Row]) -> list[Row]:
    """Over the sets, each model and number of rows."""
    found: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        found.setdefault((row["model"], row["n"]), []).append(row)
    means = []
    for (model, n), group in found.items():
        values = {
            figure: [row[figure] for row in group if row[figure] is not None] for figure in FIGURES
        }
        figures = {name: float(np.mean(known)) if known else None for name, known in values.items()}
        means.append({"set": "mean", "model": model, "n": n, **figures})
    return means


def _print_table(rows: list[Row], intervals: list[Row]) -> None:
    print(f"{'set':<28} {'n':>5} {'model':<18} {'MAPE':>6} {'±5 %':>6} {'±10 %':>6} {'τ':>6}")
    for row in rows:
        tau = "–" if row["kendall_tau"] is None else f"{row['kendall_tau']:.3f}"
        print(
            f"{row['set']:<28} {row['n']:>5} {row['model']:<18} {row['mape']:>6.2f} "
            f"{row['within_5']:>6.1f} {row['within_10']:>6.1f} {tau:>6}"
        )
    for row in intervals:
        print(
            f"{row['set']:<28} {row['n']:>5} {DEFAULT}: intervals of 90 % hold "
            f"{row['covered']:.1f} %, "
            f"on the front {row['front_covered']:.1f} %, upper bounds {row['below_upper']:.1f} %; "
            f"chosen: {', '.join(sorted(set(row['chosen'])))}"
        )


if __name__ == "__main__":
    try:
        typer.run(main)
    except HwsearchError as error:
        sys.exit(f"Error: {error}")
