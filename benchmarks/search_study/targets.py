"""Twelve latency targets: what the whole search picks, against the best member that there is."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from hwsearch.files import write_text
from hwsearch.progress import Progress
from hwsearch.records import Deployment
from hwsearch.search.accuracy_cache import AccuracyContext
from hwsearch.search.deployments import DeploymentSpace
from hwsearch.search.objectives import Objectives
from hwsearch.search.run import DEFAULT_TRIALS, StudyPlan, TargetLimit, run_search
from search_study.compare import digest
from search_study.default import fitted_predictor, predicted
from search_study.table import SearchTable

Array = NDArray[np.float64]
Row = dict[str, Any]

SHARES = tuple(np.linspace(0.30, 0.95, 12).round(4).tolist())  # of the largest member's latency


class TableDevice:
    """A device whose measurements scatter about the table, with a predictor that learns from them.

    They scatter as much as the table's own repeats did, so that a pick which was measured within a
    limit may truly lie beyond it.
    """

    def __init__(self, table: SearchTable, *, seed: int) -> None:
        self.table = table
        self.judged = self.measured = 0
        # The noise floor is the mean of |error|; a normal error's deviation is √(π/2) times that.
        floor_percent = table.latency.noise_floor_percent or 0.0
        self._spread = math.sqrt(math.pi / 2) * floor_percent / 100
        self._rng = np.random.default_rng([seed, len(table.mious)])
        self._now = predicted(table, fitted_predictor(table, seed=seed))

    @property
    def objectives(self) -> Objectives:
        """What a search needs."""
        return Objectives(
            evaluate=self._evaluate,
            predict=lambda deployments: self._now.middle_ms[self._rows(deployments), None],
            upper=lambda deployments: self._now.upper_ms[self._rows(deployments), None],
            measure=self._measure,
            refit=self._refit,
        )

    def _rows(self, deployments: Sequence[Deployment]) -> list[int]:
        return [self.table.rows[deployment.subnet] for deployment in deployments]

    def _evaluate(self, deployment: Deployment) -> float:
        self.judged += 1
        return self.table.mious[self.table.rows[deployment.subnet]]

    def _measure(self, deployments: Sequence[Deployment]) -> Array:
        self.measured += len(deployments)
        errors = self._rng.normal(0.0, self._spread, size=(len(deployments), 1))
        return self.table.points[self._rows(deployments), 1:] * np.exp(errors)

    def _refit(self, deployments: Sequence[Deployment], latencies_ms: Array) -> None:
        subnets = [self.table.subnets[row] for row in self._rows(deployments)]
        better = self._now.predictor.correct(subnets, latencies_ms[:, 0])
        self._now = predicted(self.table, better)


def search_targets(
    table: SearchTable,
    *,
    seeds: int,
    work: Path,
    jobs: int,
    progress: Progress,
    shares: Sequence[float] = SHARES,
    trials: int = DEFAULT_TRIALS,
) -> list[Row]:
    """A row for each target and seed; those that are kept under `work` are not made again.

    `met` and `unused_percent` hold the target against the table's latency of the pick, which the
    search has not seen. `points_lacking` is by how much mIoU (in points) the pick stays below the
    best member within the target, and `best_unused_percent` how much that one leaves: more latency
    does not always bring accuracy. `judged` counts every accuracy that was asked for. `shares` are
    the targets, as shares of the largest member's latency.
    """
    folder = work / digest(table) / f"targets-{trials}"
    runs = [(share, seed) for share in shares for seed in range(seeds)]
    paths = {run: folder / f"{run[0]}-{run[1]}.json" for run in runs}
    open_ = [run for run in runs if not paths[run].exists()]
    tasks = [joblib.delayed(_searched)(table, share, seed, trials) for share, seed in open_]
    with progress.task("targets", len(runs)) as advance:
        advance(len(runs) - len(open_))
        found = joblib.Parallel(n_jobs=jobs, return_as="generator")(tasks)
        for run, row in zip(open_, found, strict=True):
            write_text(paths[run], json.dumps(row))
            advance(1, f"{row['share']:.2f}")
    return [json.loads(paths[run].read_text()) for run in runs]


def targets_summary(rows: Sequence[Row]) -> Row:
    """The claims over all targets and seeds."""
    return {
        "searches": len(rows),
        "met": sum(row["met"] for row in rows),
        "unused_percent_median": float(np.median([row["unused_percent"] for row in rows])),
        "unused_percent_most": max(row["unused_percent"] for row in rows),
        "over_percent_most": max(0.0, *(-row["unused_percent"] for row in rows)),
        "best_unused_percent_median": float(np.median([r["best_unused_percent"] for r in rows])),
        "points_lacking_median": float(np.median([row["points_lacking"] for row in rows])),
        "points_lacking_most": max(row["points_lacking"] for row in rows),
        "within_0.3_points": sum(row["points_lacking"] <= 0.3 for row in rows),
    }


def _searched(table: SearchTable, share: float, seed: int, trials: int) -> Row:
    limit_ms = share * float(table.points[table.rows[table.restricted.space.largest], 1])
    own_seed = round(10_000 * share) + seed  # else all targets would see the same errors
    device = TableDevice(table, seed=own_seed)
    with threadpool_limits(1), TemporaryDirectory() as folder:
        plan = StudyPlan(
            name="table",
            storage=f"sqlite:///{Path(folder) / 'study.db'}",
            space=DeploymentSpace(subnets=table.restricted.space),
            accuracy=AccuracyContext(
                supernet_id=table.supernet_id,
                weights_digest=table.weights_digest,
                data=table.accuracy.data,
                data_fingerprint=table.accuracy.data_fingerprint,
                split=table.accuracy.split,
                framing=table.accuracy.framing,
            ),
            targets=[
                TargetLimit(
                    name=table.latency.target.name,
                    fingerprint=table.latency.target.fingerprint,
                    latency_ms=limit_ms,
                )
            ],
            cache=Path(folder) / "accuracy.jsonl",
            seed=own_seed,
        )
        outcome = run_search(device.objectives, plan, geometry=table.geometry, trials=trials)
    points = table.points
    pick_ms = float(points[table.rows[outcome.pick.subnet], 1])
    within = np.flatnonzero(points[:, 1] <= limit_ms)
    best_miou, best_ms = points[within[np.argmax(points[within, 0])]].tolist()
    return {
        "share": share,
        "target_ms": limit_ms,
        "seed": seed,
        "latency_ms": pick_ms,
        "met": pick_ms <= limit_ms,
        "unused_percent": 100 * (1 - pick_ms / limit_ms),
        "miou": outcome.pick.miou,
        "best_unused_percent": 100 * (1 - best_ms / limit_ms),
        "points_lacking": 100 * (best_miou - outcome.pick.miou),
        "measured_ms": outcome.pick.latency_ms,
        "judged": device.judged,
        "measured": device.measured,
    }
