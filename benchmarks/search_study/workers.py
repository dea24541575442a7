"""Evaluations a minute by the number of workers, on the demo's supernet.

    cd benchmarks && python -m search_study.workers --json

Latencies are MACs, and no limit binds: what is measured is how fast accuracies are found and
subnets are proposed. Each number of workers gets a study, a workspace and an accuracy cache of its
own, and in each repeat the same seed, and therefore the same start. Several workers share the
threads that PyTorch takes by itself; one is measured twice, with all of these threads, as `hwsearch
search` runs it, and with as many as each of several has, which tells what they cost each other.
With `--evaluate-on cuda` all of them find their accuracies on that GPU. Which subnets are judged
after the start depends on how many work side by side: their mean MACs are told. The rate counts
from the first trial's begin to the last one's end: starting the workers is told apart. What a GPU
loads with a process's first trial is in it, which one worker, in this process, pays once for all
repeats. Nothing else may run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
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

from hwsearch.compute import compute_device
from hwsearch.costs import encoder_macs
from hwsearch.predictor.latency_predictor import LatencyPredictor
from hwsearch.predictor.sampling import stratified_sample
from hwsearch.predictor.store import save_latency_predictor
from hwsearch.progress import SilentProgress
from hwsearch.runtime.hardware import cpu_name, logical_cores, physical_cores
from hwsearch.search.storage import open_storage
from hwsearch.supernet.store import load_manifest, load_supernet
from hwsearch.workflow.prepare import SearchRequest, prepare_search
from hwsearch.workflow.targets import target_here
from hwsearch.workflow.workers import Crew
from hwsearch.workflow.workspace import Workspace

OUT = Path(__file__).parents[1] / "results" / "search" / "workers.json"
SAMPLES = 32  # subnets that the latency predictor is fitted on
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


def write_predictor(workspace: Workspace, request: SearchRequest) -> None:
    """A latency predictor that knows MACs alone, of a target that is not timed."""
    supernet, (target,) = load_supernet(request.supernet_name), request.targets[0].targets
    chosen = stratified_sample(supernet.space, supernet.geometry, SAMPLES)
    latencies_ms = [encoder_macs(supernet.geometry, subnet) / 1e8 for subnet in chosen]
    predictor = LatencyPredictor(supernet.geometry, target, supernet.id).fit(chosen, latencies_ms)
    directory = workspace.predictor(target, supernet.id)
    save_latency_predictor(predictor, directory, noise_floor_percent=None)


def kind_of(row: dict[str, Any]) -> tuple[int, int]:
    """Workers and the threads of each."""
    return row["workers"], row["threads_each"]


def _name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[2])
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--max-views", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--evaluate-on", default="cpu")
    parser.add_argument(
        "--alone",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure one worker with the threads of each of several, too",
    )
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
        allow_stale=True,
        evaluate_on=options.evaluate_on,
    )
    with TemporaryDirectory() as folder:
        write_predictor(Workspace(Path(folder)), request)
        threads = torch.get_num_threads()
        kinds = [(count, max(1, threads // count)) for count in sorted({1, *options.workers})]
        alone = [(1, each) for count, each in kinds if count > 1 and options.alone]
        rows = []
        for seed in range(options.repeats):
            for count, each in dict.fromkeys([*kinds, *alone]):
                one = replace(request, workers=count, seed=seed)
                rows.append(measure(one, Path(folder), threads=each))
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
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
        "torch": torch.__version__,
        "evaluate_on": _name_of(compute_device(options.evaluate_on)),
        "threads": threads,
        "max_views": options.max_views,
        "rows": rows,
        "rates": [
            {
                "workers": count,
                "threads_each": each,
                "evaluations_a_minute": rate,
                "times_one_with_all_threads": round(rate / rates[1, threads], 2),
                "times_one_with_as_many_threads": (
                    round(rate / rates[1, each], 2) if (1, each) in rates else None
                ),
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
        as_many = row["times_one_with_as_many_threads"]
        print(
            f"{row['workers']} workers of {row['threads_each']} threads: "
            f"{row['evaluations_a_minute']:.1f} evaluations a minute, "
            f"× {row['times_one_with_all_threads']} of one with all threads"
            + (f", × {as_many} of one with as many" if as_many else "")
        )


if __name__ == "__main__":
    main()
