"""Evaluations a minute by the number of workers, on the demo's supernet.

    cd benchmarks && python -m search_study.workers --json

Each number of workers gets a study, a workspace and an accuracy cache of its own, and in each
repeat the same seed, and therefore the same start. Several workers share the threads that PyTorch
takes by itself; one is measured twice, with all of these threads, as `hwsearch search` runs it, and
with as many as each of several has, which tells what they cost each other. Which subnets are judged
after the start depends on how many work side by side: their mean MACs are told. The rate counts
from the first trial's begin to the last one's end: starting the workers is told apart. Nothing else
may run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import optuna
import torch
from optuna.trial import FrozenTrial, TrialState
from threadpoolctl import threadpool_limits

from hwsearch.costs import encoder_macs
from hwsearch.progress import SilentProgress
from hwsearch.runtime.hardware import cpu_name, logical_cores, physical_cores
from hwsearch.search.storage import open_storage
from hwsearch.supernet.store import load_manifest, load_supernet
from hwsearch.workflow.prepare import SearchRequest, prepare_search
from hwsearch.workflow.targets import target_here
from hwsearch.workflow.workers import Crew
from hwsearch.workflow.workspace import Workspace

OUT = Path(__file__).parents[1] / "results" / "search" / "workers.json"
TARGET_MS = 1e4  # no limit that binds: rates are to be those of evaluations


def evaluations_a_minute(trials: Sequence[FrozenTrial]) -> float:
    """Complete trials a minute, from the begin of the first to the end of the last."""
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    begins = [trial.datetime_start for trial in done if trial.datetime_start]
    ends = [trial.datetime_complete for trial in done if trial.datetime_complete]
    return 60 * len(done) / (max(ends) - min(begins)).total_seconds()


def measure(request: SearchRequest, prepared_in: Path, *, threads: int) -> dict[str, Any]:
    """One study from nothing, in a copy of a workspace that has a latency predictor.

    `threads` is what each worker computes with. Several share all by themselves.
    """
    with TemporaryDirectory() as folder:
        shutil.copytree(prepared_in, folder, dirs_exist_ok=True)
        workspace = Workspace(Path(folder))
        supernet = load_supernet(request.supernet_name)
        prepared = prepare_search(supernet, request, workspace=workspace, progress=SilentProgress())
        study = prepared.plan.open(prepared.objectives)
        begin = time.monotonic()
        if request.workers == 1:
            allowed = torch.get_num_threads()
            torch.set_num_threads(threads)
            with threadpool_limits(threads):  # what each of several has
                study.run_until(request.trials, progress=SilentProgress())
            torch.set_num_threads(allowed)
        else:
            Crew(request, workspace).run_trials(study, request.trials, progress=SilentProgress())
        seconds = time.monotonic() - begin
        stored = optuna.load_study(
            study_name=request.study, storage=open_storage(prepared.plan.storage)
        )
        return {
            "workers": request.workers,
            "threads_each": threads,
            "seed": request.seed,
            "mean_macs": round(
                fmean(encoder_macs(supernet.geometry, r.deployment.subnet) for r in study.judged)
            ),
            "evaluations": len(study.judged),
            "evaluations_a_minute": round(evaluations_a_minute(stored.trials), 2),
            "seconds_with_start": round(seconds, 1),
        }


def kind_of(row: dict[str, Any]) -> tuple[int, int]:
    """Workers and the threads of each."""
    return row["workers"], row["threads_each"]


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[2])
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--max-views", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    request = SearchRequest(
        supernet_name="demo",
        targets=(target_here(latency_ms=TARGET_MS, device="cpu"),),
        data="scenes",
        framing=load_manifest("demo").framing,
        study="workers",
        trials=options.trials,
        max_views=options.max_views,
    )
    with TemporaryDirectory() as folder:  # profiles and fits a latency predictor
        prepare_search(
            load_supernet("demo"),
            request,
            workspace=Workspace(Path(folder)),
            progress=SilentProgress(),
        )
        threads = torch.get_num_threads()
        kinds = [(count, max(1, threads // count)) for count in sorted({1, *options.workers})]
        alone = [(1, each) for count, each in kinds if count > 1]
        rows = [
            measure(replace(request, workers=count, seed=seed), Path(folder), threads=each)
            for seed in range(options.repeats)
            for count, each in dict.fromkeys([*kinds, *alone])
        ]
    rates = {
        kind: float(
            np.median([row["evaluations_a_minute"] for row in rows if kind_of(row) == kind])
        )
        for kind in dict.fromkeys(map(kind_of, rows))
    }
    result = {
        "machine": cpu_name(),
        "cores": [physical_cores(), logical_cores()],
        "python": platform.python_version(),
        "threads": threads,
        "max_views": options.max_views,
        "rows": rows,
        "rates": [
            {
                "workers": count,
                "threads_each": each,
                "evaluations_a_minute": rate,
                "times_one_with_all_threads": round(rate / rates[1, threads], 2),
                "times_one_with_as_many_threads": round(rate / rates[1, each], 2),
            }
            for (count, each), rate in rates.items()
        ],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    if options.json:
        print(json.dumps(result))
        return
    for row in result["rates"]:
        print(
            f"{row['workers']} workers of {row['threads_each']} threads: "
            f"{row['evaluations_a_minute']:.1f} evaluations a minute, "
            f"× {row['times_one_with_all_threads']:.2f} of one with all threads, "
            f"× {row['times_one_with_as_many_threads']:.2f} of one with as many"
        )


if __name__ == "__main__":
    main()
