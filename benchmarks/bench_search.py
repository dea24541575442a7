"""How few subnets the search has to judge, against other samplers, on a table of ground truth.

    python benchmarks/bench_search.py --work DIR [--stage front] [--jobs 2] [--json]

Stages: `front`, the share of the exhaustive front's hypervolume by evaluations; `limits`, the best
member within three latency limits by evaluations; `targets`, what the whole search picks for twelve
targets. Reference point of all hypervolumes: the table's worst accuracy and its largest member's
latency. A
subnet that a sampler proposes again is not counted, and other samplers get the measured latency for
nothing. Runs are kept under --work.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from hwsearch.cli.options import parse_list
from hwsearch.cli.progress import RichProgress
from hwsearch.errors import HwsearchError, UsageError
from hwsearch.profiler.conditions import capture_conditions
from search_study.compare import (
    Comparison,
    Row,
    limited_summary,
    speed_ups,
    summary,
)
from search_study.default import COVERAGE, MEASURED
from search_study.figures import hypervolume_curves
from search_study.samplers import all_samplers
from search_study.table import load_table, reference_point
from search_study.targets import SHARES, search_targets, targets_summary

STAGES = ("front", "limits", "targets")
TABLE = Path(__file__).parent / "tables" / "demo.json.gz"
LIMITS = (0.3, 0.5, 0.7)  # of the largest member's latency
MOST, MOST_WITHIN_LIMIT = 400, 80


def main(
    *,
    work: Annotated[Path, typer.Option(help="Where runs are kept.")],
    table: Annotated[Path, typer.Option(help="A table of build_search_table.py.")] = TABLE,
    stage: Annotated[
        list[str] | None, typer.Option(help=f"Of {', '.join(STAGES)}; all by default.")
    ] = None,
    sampler: Annotated[
        list[str] | None, typer.Option(help="A sampler's name; repeat it. All by default.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each sampler.")] = 20,
    shares: Annotated[
        str, typer.Option(help="Targets, as shares of the largest member's latency.")
    ] = ",".join(map(str, SHARES)),
    target_seeds: Annotated[int, typer.Option(min=1, help="Searches for each target.")] = 3,
    jobs: Annotated[int, typer.Option(min=1, help="Processes side by side.")] = 1,
    figure: Annotated[Path | None, typer.Option(help="PNG of the curves to write.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON alone.")] = False,
) -> None:
    """Compare the project's search with other samplers, and with the best there is."""
    chosen = set(stage or STAGES)
    if chosen - set(STAGES):
        raise UsageError(
            f"There is no stage {min(chosen - set(STAGES))!r}: take of {', '.join(STAGES)}."
        )
    truth = load_table(table)
    names = tuple(sampler or all_samplers())
    progress = RichProgress()
    found: dict[str, Any] = {}

    def compared(limit_ms: float | None, most: int) -> dict[str, list[list[int]]]:
        return Comparison(truth, names, seeds, limit_ms, most, work, progress).run(jobs=jobs)

    with progress:
        if "front" in chosen:
            runs = compared(None, MOST)
            found["rows"], found["speed_ups"] = summary(truth, runs), speed_ups(truth, runs)
            if figure is not None:
                hypervolume_curves(figure, truth, runs)
        if "limits" in chosen:
            largest_ms = truth.latencies_ms[truth.rows[truth.restricted.space.largest]]
            found["limits"] = []
            for limit_ms in (share * largest_ms for share in LIMITS):
                runs = compared(limit_ms, MOST_WITHIN_LIMIT)
                found["limits"] += limited_summary(truth, runs, limit_ms=limit_ms)
        if "targets" in chosen:
            rows = search_targets(
                truth,
                shares=parse_list(shares, float, "share"),
                seeds=target_seeds,
                work=work,
                jobs=jobs,
                progress=progress,
            )
            found["targets"], found["targets_summary"] = rows, targets_summary(rows)
    reference = reference_point(truth)
    found["conditions"] = {
        **capture_conditions().model_dump(),
        "table": table.name,
        "members": len(truth.mious),
        "reference_point": {"miou": reference[0], "latency_ms": reference[1]},
        "seeds": seeds,
        "latencies_that_the_predictor_is_fitted_on": MEASURED,
        "coverage_of_the_upper_bound": COVERAGE,
        "accuracy": truth.accuracy.model_dump(),
        "latency": truth.latency.model_dump(),
        "weights_digest": truth.weights_digest,
    }
    if as_json:
        print(json.dumps(found, indent=1))
        return
    _print_tables(found)


def _print_tables(found: dict[str, Any]) -> None:
    for row in found.get("rows", ()):
        low, high = row["hypervolume_ratio_quartiles"]
        print(
            f"{row['sampler']:<30} {row['evaluations']:>4}  {row['hypervolume_ratio']:.4f} "
            f"({low:.4f} – {high:.4f})  99 % after {_count(row['evaluations_to_99'])}"
        )
    for row in found.get("speed_ups", ()):
        print(
            f"{100 * row['hypervolume_ratio']:.0f} %: the default {_count(row['default_needs'])}, "
            f"{row['sampler']} {_count(row['needs'])}"
            + (f", × {row['factor']:.1f}{' at least' * row['at_least']}" if row["factor"] else "")
        )
    for row in found.get("limits", ()):
        print(
            f"within {row['limit_ms']:.2f} ms, {row['evaluations']:>3}: {row['sampler']:<30} lacks "
            f"{row['points_lacking']:.2f} points, at worst {row['points_lacking_at_worst']:.2f}"
        )
    _print_targets(found.get("targets", ()))
    if "targets_summary" in found:
        print(found["targets_summary"])


def _print_targets(rows: Sequence[Row]) -> None:
    for row in rows:
        print(
            f"{row['target_ms']:6.2f} ms, seed {row['seed']}: {row['latency_ms']:6.2f} ms, "
            f"{row['unused_percent']:4.1f} % unused, lacks {row['points_lacking']:.2f} points "
            f"({row['judged']} judged, {row['measured']} measured)"
        )


def _count(number: float | None) -> str:
    return "never" if number is None else f"{number:.0f}"


if __name__ == "__main__":
    try:
        typer.run(main)
    except HwsearchError as error:
        sys.exit(f"Error: {error}")
