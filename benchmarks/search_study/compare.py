"""Runs of each sampler and seed, and what they find by the number of evaluations."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

import hwsearch
from hwsearch.errors import UsageError
from hwsearch.files import write_text
from hwsearch.progress import Progress
from hwsearch.records import short_digest
from hwsearch.search.pareto import hypervolume
from latency_study import sample
from search_study.samplers import DEFAULT, all_samplers, distinct
from search_study.table import SearchTable, reference_point

Array = NDArray[np.float64]
Row = dict[str, Any]

ENOUGH = 0.99
CHECKPOINTS = (20, 40, 60, 75, 100, 150, 200, 300, 400)
# Evaluations at most of what takes long a proposal.
SLOW = {DEFAULT: 160, "gp": 75, "tpe": 200, "nsga3, population 20": 150}


@dataclass(frozen=True)
class Comparison:
    """What is compared, and where each run is kept.

    Attributes:
        limit_ms: latency that is searched for, None for the whole front.
        most: evaluations of a run at most.
        work: a folder; a run that is there, of the same table, samplers and libraries, is not
            made again.
    """

    table: SearchTable
    names: tuple[str, ...]
    seeds: int
    limit_ms: float | None
    most: int
    work: Path
    progress: Progress

    def __post_init__(self) -> None:
        known = all_samplers()
        unknown = [name for name in self.names if name not in known]
        if unknown:
            raise UsageError(f"There is no sampler {unknown[0]!r}: take of {'; '.join(known)}.")

    def run(self, *, jobs: int) -> dict[str, list[list[int]]]:
        """Sampler → the rows that it judged with each seed, in order."""
        kind = "front" if self.limit_ms is None else f"{self.limit_ms:.4f}ms"
        folder = self.work / digest(self.table) / f"{kind}-{self.most}"
        runs = [(name, seed) for name in self.names for seed in range(self.seeds)]
        paths = {run: folder / f"{_file_name(run[0])}-{run[1]}.json" for run in runs}
        open_ = [run for run in runs if not paths[run].exists()]
        tasks = [
            joblib.delayed(_one_run)(self.table, name, seed, self.limit_ms, self.most)
            for name, seed in open_
        ]
        found = joblib.Parallel(n_jobs=jobs, return_as="generator")(tasks)
        with self.progress.task("searching", len(runs)) as advance:
            advance(len(runs) - len(open_))
            for run, rows in zip(open_, found, strict=True):
                write_text(paths[run], json.dumps(rows))
                advance(1, f"{run[0]} {run[1]}")
        kept = {run: json.loads(path.read_text()) for run, path in paths.items()}
        return {name: [kept[name, seed] for seed in range(self.seeds)] for name in self.names}


def digest(table: SearchTable) -> str:
    """Of all that a run on a table hangs on: the table, the code, and the libraries behind it."""
    package = Path(hwsearch.__path__[0])
    folders = (package / "search", package / "predictor", Path(__file__).parent)
    files = [path for folder in folders for path in sorted(folder.glob("*.py"))]
    files += [Path(sample.__file__), package / "space.py", package / "costs.py"]
    code = [path.read_text() for path in files]
    versions = [version(name) for name in ("numpy", "scikit-learn", "optuna", "pymoo")]
    return short_digest(json.dumps([table.to_json(), versions, code]))


def _one_run(
    table: SearchTable, name: str, seed: int, limit_ms: float | None, most: int
) -> list[int]:
    allowed = min(SLOW.get(name, most), most, len(table.mious))
    with threadpool_limits(1):
        return distinct(all_samplers()[name](table, seed, limit_ms), allowed)


def _file_name(sampler: str) -> str:
    return sampler.replace(",", "").replace(" ", "-")


def shares(table: SearchTable, rows: Sequence[int]) -> Array:
    """Share of the exhaustive front's hypervolume after each evaluation, (n,)."""
    reference = reference_point(table)
    whole = hypervolume(table.points, reference)
    points = table.points[list(rows)]
    found = [hypervolume(points[: count + 1], reference) for count in range(len(rows))]
    return np.array(found) / whole


def evaluations_to(curves: Sequence[Array], share: float) -> float | None:
    """Evaluations until the share is reached, median over seeds; None if half of them never do."""
    needed = [
        float(np.argmax(curve >= share)) + 1 if curve[-1] >= share else np.inf for curve in curves
    ]
    middle = median(needed)
    return middle if np.isfinite(middle) else None


def summary(table: SearchTable, runs: dict[str, list[list[int]]]) -> list[Row]:
    """A row for each sampler and number of evaluations."""
    rows = []
    for name, seeds in runs.items():
        curves = [shares(table, seed) for seed in seeds]
        enough = evaluations_to(curves, ENOUGH)
        for count, middle, low, high in _medians(curves):
            rows.append(
                {
                    "sampler": name,
                    "evaluations": count,
                    "share_of_space": count / len(table.mious),
                    "hypervolume_ratio": middle,
                    "hypervolume_ratio_quartiles": [low, high],
                    "evaluations_to_99": enough,
                    "seeds": len(seeds),
                }
            )
    return rows


def _medians(curves: Sequence[Array]) -> Iterator[tuple[int, float, float, float]]:
    longest = max(map(len, curves))
    for count in CHECKPOINTS:
        if count <= longest:
            reached = [curve[min(count, len(curve)) - 1] for curve in curves]
            low, middle, high = np.quantile(reached, (0.25, 0.5, 0.75)).tolist()
            yield count, middle, low, high


def speed_ups(table: SearchTable, runs: dict[str, list[list[int]]]) -> list[Row]:
    """How many times the default's evaluations each neighbour needs for the same hypervolume.

    For each share of the hypervolume both medians are given. A neighbour that never got there is
    charged all that it was allowed, so that the true factor is larger (`at_least`). Where the
    default itself does not get there, both are None.
    """
    if DEFAULT not in runs:
        return []
    curves = {name: [shares(table, seed) for seed in seeds] for name, seeds in runs.items()}
    rows = []
    for share in (0.9, 0.95, 0.98, ENOUGH):
        ours = evaluations_to(curves[DEFAULT], share)
        for name, found in curves.items():
            if name == DEFAULT:
                continue
            theirs = evaluations_to(found, share)
            most = max(map(len, found))
            rows.append(
                {
                    "sampler": name,
                    "hypervolume_ratio": share,
                    "default_needs": ours,
                    "needs": theirs,
                    "factor": None if ours is None else (most if theirs is None else theirs) / ours,
                    "at_least": theirs is None,
                }
            )
    return rows


def limited_summary(
    table: SearchTable, runs: dict[str, list[list[int]]], *, limit_ms: float
) -> list[Row]:
    """What each sampler's best member within a limit lacks of the table's best, in points of mIoU.

    The latencies are those of the table. A run that has found none within the limit yet lacks all.
    """
    points = table.points
    best = points[points[:, 1] <= limit_ms, 0].max()
    rows = []
    for name, seeds in runs.items():
        for count in (20, 40, 80):
            lacking = []
            for seed in seeds:
                found = points[seed[:count]]
                within = found[found[:, 1] <= limit_ms, 0]
                lacking.append(100 * float(best - within.max(initial=0.0)))
            rows.append(
                {
                    "sampler": name,
                    "limit_ms": limit_ms,
                    "evaluations": count,
                    "points_lacking": float(np.median(lacking)),
                    "points_lacking_at_worst": max(lacking),
                    "seeds": len(seeds),
                }
            )
    return rows
