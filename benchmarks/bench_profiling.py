"""How fast subnets are profiled, and how far a profile's ranking is from the truth.

    python benchmarks/bench_profiling.py [--supernet demo] [--subnets 24] [--json]

The truth is what long interleaved rounds on the quiet machine give. Then the same subnets are
profiled the plain way (trace the export, 100 runs, the next subnet) and hwsearch's way, stopping at
several half-widths, first quiet, then while a second process loads one core on and off.

A way's own interval only tells how far its runs scatter: a hundred runs in one quiet second agree
with each other, and may all be off. So what counts as its width is how far from the truth an
interval has to reach to hold 95 % of the subnets, for both ways alike. `speed_up` compares the
plain way with hwsearch's fastest setting that is no wider. `export_s` is how much of the time goes
into exporting: the most that exporting beside the timing could save, at the price of the load that
the loaded rows show. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from scipy.stats import kendalltau

from hwsearch.cli.progress import RichProgress
from hwsearch.errors import HwsearchError
from hwsearch.predictor.sampling import stratified_sample
from hwsearch.profiler.conditions import capture_conditions
from hwsearch.profiler.session import SessionSettings
from hwsearch.profiles import ProfileStore
from hwsearch.progress import Progress
from hwsearch.records import Measurement, SubnetConfig, Target
from hwsearch.runtime.devices import resolve_target
from hwsearch.supernet.store import load_supernet
from hwsearch.supernet.supernet import Supernet
from hwsearch.workflow.subjects import exported
from hwsearch.workflow.timing import Stopwatch
from profiling_study.disturbance import disturbed
from profiling_study.plain import time_plainly

Row = dict[str, Any]
TRUTH = SessionSettings(min_rounds=40, max_rounds=40, relative_half_width=0.001, budget_s=600.0)
HALF_WIDTHS = (0.05, 0.03, 0.02, 0.01)  # that hwsearch's way stops at
HELD = 0.95  # of the subnets, by an interval as wide as it has to be


def main(
    *,
    supernet: Annotated[str, typer.Option(help="A supernet directory, or 'demo'.")] = "demo",
    subnets: Annotated[int, typer.Option(min=3, help="How many are profiled.")] = 24,
    threads: Annotated[int, typer.Option(min=1, help="Of the runtime.")] = 1,
    seed: Annotated[int, typer.Option(help="Draws the subnets.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON alone.")] = False,
) -> None:
    """Compare two ways of profiling with the truth."""
    net = load_supernet(supernet)
    target = resolve_target(device="cpu", threads=threads)
    drawn = stratified_sample(net.space, net.geometry, subnets, seed=seed)
    # Sorted by size, neighbours in time would be neighbours in rank, which hides drift.
    order = np.random.default_rng(seed).permutation(len(drawn))
    configs = [drawn[place] for place in order]
    conditions = capture_conditions().model_dump() | {"threads": threads, "subnets": len(configs)}
    with RichProgress() as progress:
        truth, _, _ = _interleaved(net, configs, target, TRUTH, progress)
        rows = [
            row
            for loaded in (False, True)
            for row in _both_ways(net, configs, target, truth, loaded=loaded, progress=progress)
        ]
        export_s = _export_seconds(net, configs, target, progress)
    speed_up = {
        name: _speed_up([row for row in rows if row["loaded"] == loaded])
        for name, loaded in (("quiet", False), ("loaded", True))
    }
    found = {
        "rows": rows,
        "speed_up": speed_up,
        "export_s": export_s,
        "truth_ms": truth,
        "conditions": conditions,
    }
    if as_json:
        print(json.dumps(found, indent=1))
        return
    for row in rows:
        print(
            f"{row['way']:<18} {'loaded' if row['loaded'] else 'quiet':<7} "
            f"{row['subnets_per_minute']:6.1f} subnets/min  true half-width "
            f"{100 * row['true_half_width']:.2f} % (own {100 * row['own_half_width']:.2f} %)  "
            f"τ {row['kendall_tau']:.3f}  error {row['mape']:.2f} %"
        )
    for name, ratio in speed_up.items():
        print(f"{name}: " + ("no setting is as narrow" if ratio is None else f"{ratio:.1f} ×"))
    print(f"exporting takes {export_s:.1f} s of it")


def _both_ways(
    net: Supernet,
    configs: Sequence[SubnetConfig],
    target: Target,
    truth: Sequence[float],
    *,
    loaded: bool,
    progress: Progress,
) -> list[Row]:
    """One row for the plain way, one for each half-width that hwsearch's stops at."""
    with disturbed() if loaded else nullcontext():
        begin = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            plain = time_plainly(net, configs, target, Path(folder))
        seconds = time.monotonic() - begin
        width = float(np.median([timing.relative_half_width for timing in plain]))
        plain_ms = [timing.latency_ms for timing in plain]
        rows = [_row("plain", loaded, plain_ms, truth, seconds=seconds, own_width=width)]
        for goal in HALF_WIDTHS:
            settings = SessionSettings(relative_half_width=goal)
            ours, width, seconds = _interleaved(net, configs, target, settings, progress)
            way = f"interleaved, {100 * goal:.0f} %"
            rows.append(_row(way, loaded, ours, truth, seconds=seconds, own_width=width))
    return rows


def _interleaved(
    net: Supernet,
    configs: Sequence[SubnetConfig],
    target: Target,
    settings: SessionSettings,
    progress: Progress,
) -> tuple[list[float], float, float]:
    """Corrected latencies in ms, the median relative half-width, and the seconds it took."""
    with tempfile.TemporaryDirectory() as folder:
        store = ProfileStore(Path(folder), target)
        begin = time.monotonic()
        measured = Stopwatch(net, store, settings, progress).measure_all(configs)
        seconds = time.monotonic() - begin
    by_id = {measurement.subnet_id: measurement for measurement in measured}
    chosen = [by_id[config.id] for config in configs]
    return [m.latency_ms() for m in chosen], float(np.median([_width(m) for m in chosen])), seconds


def _export_seconds(
    net: Supernet, configs: Sequence[SubnetConfig], target: Target, progress: Progress
) -> float:
    begin = time.monotonic()
    with exported(net, configs, target, progress):
        return time.monotonic() - begin


def _width(measurement: Measurement) -> float:
    assert measurement.low_ms is not None
    assert measurement.high_ms is not None
    return (measurement.high_ms - measurement.low_ms) / 2 / measurement.latency_ms()


def _row(
    way: str,
    loaded: bool,
    latencies_ms: Sequence[float],
    truth_ms: Sequence[float],
    *,
    seconds: float,
    own_width: float,
) -> Row:
    """Errors are those of ratios: a machine that was slower throughout is no error of a ranking."""
    ratios = np.array(latencies_ms) / np.array(truth_ms)
    errors = ratios / np.median(ratios) - 1
    return {
        "way": way,
        "loaded": loaded,
        "subnets_per_minute": 60 * len(latencies_ms) / seconds,
        "seconds": seconds,
        "own_half_width": own_width,
        "true_half_width": float(np.quantile(np.abs(errors), HELD)),
        "kendall_tau": float(kendalltau(latencies_ms, truth_ms).statistic),
        "mape": float(100 * np.abs(errors).mean()),
    }


def _speed_up(rows: Sequence[Row]) -> float | None:
    """Subnets a minute of the fastest setting that is as narrow as the plain way, over its own."""
    plain, *ours = rows
    narrow = [
        row["subnets_per_minute"]
        for row in ours
        if row["true_half_width"] <= plain["true_half_width"]
    ]
    return max(narrow) / plain["subnets_per_minute"] if narrow else None


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        typer.run(main)
    except HwsearchError as error:
        sys.exit(f"Error: {error}")
