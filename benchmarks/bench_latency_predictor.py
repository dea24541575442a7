"""How well latency is predicted from a few measured subnets, beside the noise floor.

    python benchmarks/bench_latency_predictor.py [--profiles profiles] [--json]

For every target of the reference profiles: each model and baseline, fitted on 8 to 128 measured
subnets and judged on 100 others, five times, what hwsearch chooses 24 times; then what a
predictor of another target adds when only a few are measured; then how long 100,000 predictions
with intervals take. A small profile, of a large model, wants smaller --sizes and --held-out.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import joblib
import numpy as np
import typer
from threadpoolctl import threadpool_limits

from hwsearch.cli.options import parse_list
from hwsearch.cli.progress import RichProgress
from hwsearch.errors import HwsearchError, UsageError
from hwsearch.predictor.curve import few_shot_curve
from hwsearch.predictor.latency_predictor import MIN_SAMPLES
from hwsearch.supernet.store import load_manifest
from latency_study.conditions import conditions_with
from latency_study.figures import COVERAGE, Row
from latency_study.measured import (
    DEFAULT_DRAWS,
    DRAWS,
    MeasuredSet,
    evaluate,
    read_profiles,
)

SIZES = "8,16,32,64,128"
MANY, FITTED_ON = 100_000, 64
TIMES = 5


def main(
    *,
    profiles: Annotated[Path, typer.Option(help="A folder of profiles.")] = Path("profiles"),
    supernet: Annotated[str, typer.Option(help="Whose profiles: a directory, or 'demo'.")] = "demo",
    sizes: Annotated[str, typer.Option(help="How many measured subnets to fit on.")] = SIZES,
    held_out: Annotated[
        int, typer.Option(min=8, help="Subnets that no fit sees, to judge on.")
    ] = 100,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that fit side by side.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON alone.")] = False,
) -> None:
    """Compare hwsearch's latency models with each other, with baselines, and with the noise."""
    numbers = parse_list(sizes, int, "number of subnets")
    if min(numbers) < MIN_SAMPLES:
        raise UsageError(f"{sizes!r} has fewer than {MIN_SAMPLES} subnets: give more.")
    manifest = load_manifest(supernet)
    conditions = conditions_with(
        supernet=manifest.geometry.id,
        sizes=numbers,
        held_out=held_out,
        draws=DRAWS,
        draws_of_default=DEFAULT_DRAWS,
        coverage=COVERAGE,
        jobs=jobs,
        threads=1,
    )
    found: dict[str, Any] = {"rows": [], "transfer": []}
    progress = RichProgress()
    # One thread, so that the figures and their cost don't depend on the machine's cores.
    with threadpool_limits(1), progress:
        sets = [
            one
            for one in read_profiles(profiles, manifest.geometry)
            if len(one.configs) >= min(numbers) + held_out
        ]
        if not sets:
            raise UsageError(
                f"No profile in {profiles} has {min(numbers) + held_out} subnets: give smaller "
                "--sizes, or measure more."
            )
        fits = [
            joblib.delayed(_on_one_thread)(evaluate, one, n, held_out=held_out)
            for one, n in itertools.product(sets, numbers)
            if len(one.configs) >= n + held_out
        ]
        transfers = [
            joblib.delayed(_on_one_thread)(_transfer, source, other)
            for source, other in itertools.permutations(sets, 2)
        ]
        for part, tasks in (("rows", fits), ("transfer", transfers)):
            with progress.task(part, len(tasks)) as advance:
                for rows in joblib.Parallel(n_jobs=jobs, return_as="generator")(tasks):
                    found[part] += rows
                    advance()
        found["seconds_for_100000"] = _seconds(sets[0], manifest.space.sample)
    found["sets"] = [_described(one) for one in sets]
    found["conditions"] = conditions
    if as_json:
        print(json.dumps(found, indent=1))
        return
    _print_tables(found)


def _on_one_thread(
    work: Callable[..., list[Row]],
    *arguments: Any,  # noqa: ANN401 - passed on
    **options: Any,  # noqa: ANN401
) -> list[Row]:
    with threadpool_limits(1):
        return work(*arguments, **options)


def _described(one: MeasuredSet) -> Row:
    return {
        "target": one.target.name,
        "subnets": len(one.configs),
        "least_ms": float(one.latencies_ms.min()),
        "greatest_ms": float(one.latencies_ms.max()),
        "floor": asdict(one.floor),
        "floor_as_measured": asdict(one.floor_as_measured),
    }


def _transfer(source: MeasuredSet, other: MeasuredSet) -> list[Row]:
    """The few-shot curve from one target to another, on subnets drawn at random."""
    fitted = source.unfitted().fit(source.configs, source.latencies_ms)
    points = few_shot_curve(fitted, other.target, other.configs, other.latencies_ms, draws=DRAWS)
    return [
        {
            "source": source.target.name,
            "target": other.target.name,
            "measured": point.measured,
            "fit": point.score.name,
            "mape": point.score.mape_percent,
            "spearman": point.score.spearman,
            "covered": 100 * point.covered,
        }
        for point in points
    ]


def _seconds(data: MeasuredSet, sample: Any) -> float:  # noqa: ANN401 - a bound method
    """Seconds that predicting many subnets with their intervals takes, the median of `TIMES`."""
    fitted = data.unfitted().fit(data.configs[:FITTED_ON], data.latencies_ms[:FITTED_ON])
    rng = np.random.default_rng(0)
    configs = [sample(rng) for _ in range(MANY)]
    found = []
    for _ in range(TIMES):
        begin = time.perf_counter()
        fitted.interval(configs)
        found.append(time.perf_counter() - begin)
    return statistics.median(found)


def _print_tables(found: dict[str, Any]) -> None:
    for row in found["rows"]:
        tau = "    –" if row["kendall_tau"] is None else f"{row['kendall_tau']:.3f}"
        floor = "unknown" if row["noise_floor"] is None else f"{row['noise_floor']:.2f} %"
        held = (
            f"  intervals hold {row['covered']:.0f} %, on the front {row['front_covered']:.0f} %"
            if "covered" in row
            else ""
        )
        print(
            f"{row['target']:<52} {row['n']:>4}  {row['model']:<38} {row['mape']:6.2f} %  ±5 % "
            f"{row['within_5']:5.1f}  τ {tau}  floor {floor}{held}"
        )
    for row in found["transfer"]:
        print(
            f"{row['source']} → {row['target']}: {row['measured']} measured, {row['fit']}: "
            f"{row['mape']:.2f} %, ρ {row['spearman']:.4f}, intervals hold {row['covered']:.0f} %"
        )
    print(f"100,000 predictions with intervals: {found['seconds_for_100000']:.2f} s")


if __name__ == "__main__":
    try:
        typer.run(main)
    except HwsearchError as error:
        sys.exit(f"Error: {error}")
