"""How fast subnets are profiled, and how far a profile's ranking is from the truth.

    python benchmarks/bench_profiling.py [--supernet demo] [--subnets 24] [--json]

The truth is what long interleaved rounds give that nothing of ours disturbs. Then the same subnets
are profiled the plain way (trace the export, 100 runs, the next subnet) and hwsearch's way,
stopping at several half-widths, first undisturbed, then while a second process loads one core on
and off. A third way times hwsearch's own files one after the other: what is left of the difference
without the export, and without torch's graphs being other graphs than those that the truth was
measured on.

A way's own interval only tells how far its runs scatter: a hundred runs in one quiet second agree
with each other, and may all be off. So what counts as its width is how far from the truth an
interval has to reach to hold 95 % of the subnets, for all ways alike. `times_as_fast` compares each
setting of hwsearch's with the plain way; the one of 1 % is what `hwsearch profile` does unless told
otherwise. `export_s` is how much of the time goes into exporting: for hwsearch's way the most that
exporting beside the timing could save, at the price of the load that the loaded rows show. Leave
the machine alone meanwhile.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from scipy.stats import kendalltau

from hwsearch.cli.progress import RichProgress
from hwsearch.errors import HwsearchError
from hwsearch.predictor.sampling import stratified_sample
from hwsearch.profiler.session import SessionSettings
from hwsearch.profiles import ProfileStore
from hwsearch.progress import Progress
from hwsearch.records import Measurement, SubnetConfig, Target
from hwsearch.runtime.devices import resolve_target
from hwsearch.supernet.store import load_supernet
from hwsearch.supernet.supernet import Supernet
from hwsearch.workflow.subjects import exported
from hwsearch.workflow.timing import Stopwatch
from latency_study.conditions import conditions_with
from latency_study.figures import Row
from profiling_study.disturbance import PERIODS_S, disturbed
from profiling_study.plain import RUNS, UNTIMED, Export, time_plainly, trace_encoder, write_encoder

TRUTH = SessionSettings(min_rounds=40, max_rounds=40, relative_half_width=0.001, budget_s=600.0)
# That hwsearch's way stops at; the last one unless told otherwise.
HALF_WIDTHS = (0.05, 0.03, 0.02, SessionSettings.relative_half_width)
PLAIN, PLAIN_BUT_EXPORT = "plain", "plain, hwsearch's files"
EXPORTS: Mapping[str, Export] = {PLAIN: trace_encoder, PLAIN_BUT_EXPORT: write_encoder}
HELD = 0.95  # of the subnets, by an interval as wide as it has to be


def main(
    *,
    supernet: Annotated[str, typer.Option(help="A supernet directory, or 'demo'.")] = "demo",
    subnets: Annotated[int, typer.Option(min=3, help="How many are profiled.")] = 24,
    threads: Annotated[int, typer.Option(min=1, help="Of the runtime.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Draws the subnets.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON alone.")] = False,
) -> None:
    """Compare two ways of profiling with the truth."""
    net = load_supernet(supernet)
    target = resolve_target(device="cpu", threads=threads)
    drawn = stratified_sample(net.space, net.geometry, subnets, seed=seed)
    # Sorted by size, neighbours in time would be neighbours in rank, which hides drift.
    order = np.random.default_rng(seed).permutation(len(drawn))
    configs = [drawn[place] for place in order]
    conditions = conditions_with(
        target=target.name,
        supernet=net.id,
        threads=threads,
        subnets=len(configs),
        seed=seed,
        plain_runs=RUNS,
        plain_untimed_runs=UNTIMED,
        truth_rounds=TRUTH.max_rounds,
        seconds_of_load_and_of_rest=PERIODS_S,
    )
    with RichProgress() as progress:
        long, _ = _measured(net, configs, target, TRUTH, progress)
        truth = [measurement.latency_ms() for measurement in long]
        rows = [
            row
            for loaded in (False, True)
            for row in _all_ways(net, configs, target, truth, loaded=loaded, progress=progress)
        ]
        export_s = _export_seconds(net, configs, target, progress)
    times_as_fast = {
        name: _times_as_fast([row for row in rows if row["loaded"] == loaded])
        for name, loaded in (("alone", False), ("loaded", True))
    }
    found = {
        "rows": rows,
        "times_as_fast": times_as_fast,
        "export_s": export_s,
        "truth_ms": truth,
        "conditions": conditions,
    }
    if as_json:
        print(json.dumps(found, indent=1))
        return
    for row in rows:
        print(
            f"{row['way']:<24} {'loaded' if row['loaded'] else 'alone':<7} "
            f"{row['subnets_per_minute']:6.1f} subnets/min  {row['times_as_fast']:4.1f} ×  "
            f"true half-width {100 * row['true_half_width']:.2f} % (own "
            f"{100 * row['own_half_width']:.2f} %)  τ {row['kendall_tau']:.3f}  "
            f"error {row['mape']:.2f} %  {row['marked']} marked"
        )
    for name, ratios in times_as_fast.items():
        equal = ratios["at_equal_true_width"]
        print(
            f"{name}: {'no setting is as narrow' if equal is None else f'{equal:.1f} ×'} at equal "
            f"true width, {ratios['by_default']:.1f} × by default"
        )
    print(f"exporting takes {export_s:.1f} s of hwsearch's way")


def _all_ways(
    net: Supernet,
    configs: Sequence[SubnetConfig],
    target: Target,
    truth: Sequence[float],
    *,
    loaded: bool,
    progress: Progress,
) -> list[Row]:
    """One row for each plain way, one for each half-width that hwsearch's stops at."""
    with disturbed() if loaded else nullcontext():
        rows = [_plain_row(way, net, configs, target, truth) for way in EXPORTS]
        for goal in HALF_WIDTHS:
            settings = SessionSettings(
                relative_half_width=goal, max_half_width=max(goal, SessionSettings.max_half_width)
            )
            measured, seconds = _measured(net, configs, target, settings, progress)
            figures = _figures([m.latency_ms() for m in measured], truth, seconds=seconds)
            rows.append(
                {"way": f"interleaved, {100 * goal:.0f} %"}
                | figures
                | {
                    "own_half_width": float(np.median([_width(m) for m in measured])),
                    "marked": sum(m.drifted for m in measured),
                }
            )
    plain, *_ = rows
    for row in rows:
        row["loaded"] = loaded
        row["times_as_fast"] = row["subnets_per_minute"] / plain["subnets_per_minute"]
    return rows


def _plain_row(
    way: str,
    net: Supernet,
    configs: Sequence[SubnetConfig],
    target: Target,
    truth: Sequence[float],
) -> Row:
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        plain = time_plainly(net, configs, target, Path(folder), export=EXPORTS[way])
    seconds = time.monotonic() - begin
    return (
        {"way": way}
        | _figures([timing.latency_ms for timing in plain], truth, seconds=seconds)
        | {
            "own_half_width": float(np.median([one.relative_half_width for one in plain])),
            "marked": 0,
            "export_s": sum(one.export_s for one in plain),
        }
    )


def _measured(
    net: Supernet,
    configs: Sequence[SubnetConfig],
    target: Target,
    settings: SessionSettings,
    progress: Progress,
) -> tuple[list[Measurement], float]:
    """A measurement of each subnet in hwsearch's way, and the seconds that it took."""
    with tempfile.TemporaryDirectory() as folder:
        store = ProfileStore(Path(folder), target)
        begin = time.monotonic()
        measured = Stopwatch(net, store, settings, progress).measure_all(configs)
        seconds = time.monotonic() - begin
    by_id = {measurement.subnet_id: measurement for measurement in measured}
    return [by_id[config.id] for config in configs], seconds


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


def _figures(latencies_ms: Sequence[float], truth_ms: Sequence[float], *, seconds: float) -> Row:
    """Errors are those of ratios: a machine that was slower throughout is no error of a ranking."""
    ratios = np.array(latencies_ms) / np.array(truth_ms)
    errors = ratios / np.median(ratios) - 1
    return {
        "subnets_per_minute": 60 * len(latencies_ms) / seconds,
        "seconds": seconds,
        "true_half_width": float(np.quantile(np.abs(errors), HELD)),
        "kendall_tau": float(kendalltau(latencies_ms, truth_ms).statistic),
        "mape": float(100 * np.abs(errors).mean()),
        "latencies_ms": list(latencies_ms),
    }


def _times_as_fast(rows: Sequence[Row]) -> dict[str, float | None]:
    """Of the fastest setting whose true width is no greater than the plain way's; by default."""
    plain, ours = rows[0], rows[len(EXPORTS) :]
    narrow = [row for row in ours if row["true_half_width"] <= plain["true_half_width"]]
    return {
        "at_equal_true_width": max((row["times_as_fast"] for row in narrow), default=None),
        "by_default": ours[-1]["times_as_fast"],
    }


if __name__ == "__main__":
    try:
        typer.run(main)
    except HwsearchError as error:
        sys.exit(f"Error: {error}")
