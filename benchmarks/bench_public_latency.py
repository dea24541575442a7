"""Latency models on public measurements: any folder of CSV files in the form of HAT.

    python benchmarks/bench_public_latency.py --data DIR [--json]

Five random splits of each file, 200 rows held out. Models see architectures alone, never the
order of the rows, in which the machine drifted. "default" is what hwsearch chooses from the
training rows by cross-validation.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from threadpoolctl import threadpool_limits

from hwsearch.cli.options import parse_list
from hwsearch.cli.progress import RichProgress
from hwsearch.errors import HwsearchError, UsageError
from hwsearch.predictor.latency_predictor import MIN_SAMPLES
from latency_study import hat
from latency_study.conditions import conditions_with, digests_of
from latency_study.figures import COVERAGE, DEFAULT, Row, means_of
from latency_study.hat import LatencySet, read_sets
from latency_study.public import evaluate

SIZES = "50,100,1600"
FIGURES = ("mape", "within_5", "within_10", "kendall_tau")


def main(
    *,
    data: Annotated[Path, typer.Option(help="A folder of CSV files.")],
    sizes: Annotated[str, typer.Option(help="How many rows to fit on.")] = SIZES,
    seed: Annotated[int, typer.Option(min=0, help="Of the splits and of the fits.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON alone.")] = False,
) -> None:
    """Compare hwsearch's latency models with each other and with general regressors."""
    sets, numbers = read_sets(data), parse_list(sizes, int, "number of rows")
    _check_rows(sets, numbers)
    conditions = conditions_with(
        threads=1,
        sizes=numbers,
        splits=hat.SPLITS,
        held_out=hat.HELD_OUT,
        coverage=COVERAGE,
        seed=seed,
        latency="encoder plus decoder",
        files=digests_of(sorted(data.glob("*.csv"))),
    )
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
        "conditions": conditions,
    }
    if as_json:
        print(json.dumps(found, indent=1))
        return
    _print_table([*rows, *means], intervals)


def _check_rows(sets: Sequence[LatencySet], numbers: Sequence[int]) -> None:
    if min(numbers) < MIN_SAMPLES:
        raise UsageError(f"{min(numbers)} rows are too few to fit on: give {MIN_SAMPLES} or more.")
    for one in sets:
        if len(one.table) < max(numbers) + hat.HELD_OUT:
            raise UsageError(
                f"{one.name} has {len(one.table)} rows, too few for {max(numbers)} to fit on and "
                f"{hat.HELD_OUT} held out: give smaller --sizes."
            )


def _means(rows: Sequence[Row]) -> list[Row]:
    """Over the sets, each model and number of rows."""
    found: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        found.setdefault((row["model"], row["n"]), []).append(row)
    return [
        {"set": "mean", "model": model, "n": n, **means_of(group, FIGURES)}
        for (model, n), group in found.items()
    ]


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
            f"on the front {row['front_covered']:.1f} %, upper bounds {row['below_upper']:.1f} and "
            f"{row['front_below_upper']:.1f} %; "
            f"chosen: {', '.join(sorted(set(row['chosen'])))}"
        )


if __name__ == "__main__":
    try:
        typer.run(main)
    except HwsearchError as error:
        sys.exit(f"Error: {error}")
