"""The stage that chooses: from target latencies to measured subnets."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hwsearch.errors import HwsearchError, InfeasibleError, UsageError
from hwsearch.files import write_text
from hwsearch.predictor.store import save_latency_predictor
from hwsearch.profiler.noise import noise_floor
from hwsearch.profiler.session import SessionSettings
from hwsearch.progress import Progress, SilentProgress
from hwsearch.records import Deployment, Record, Target
from hwsearch.results import Candidate, FurtherTarget, SearchResult
from hwsearch.search.objectives import Objectives
from hwsearch.search.run import RunTrials, SearchOutcome, run_search
from hwsearch.search.study import SubnetStudy
from hwsearch.supernet.supernet import Supernet
from hwsearch.workflow.latencies import SearchLatencies
from hwsearch.workflow.prepare import (
    PreparedSearch,
    SearchRequest,
    prepare_search,
)
from hwsearch.workflow.targets import SearchTarget
from hwsearch.workflow.workspace import Workspace

RESULT_NAME = "result.json"


class StudyRecord(Record):
    """What a study's directory keeps: the result, and every subnet that was judged."""

    schema_version: Literal[1] = 1
    result: SearchResult
    candidates: tuple[Candidate, ...]


def search_subnets(
    supernet: Supernet,
    request: SearchRequest,
    *,
    workspace: Workspace,
    settings: SessionSettings | None = None,
    progress: Progress | None = None,
) -> SearchResult:
    """Search, re-measure the picks, and write the study's `result.json`.

    The stages that are lacking, profile and fit, are run first, for each target in each precision.

    Raises:
        InfeasibleError: no subnet meets the target latencies.
        HwsearchError: whatever the stages raise.
    """
    progress = progress or SilentProgress()
    result_file = workspace.study(request.study) / RESULT_NAME  # a bad name fails before the work
    begun_with = workspace.study_predictors(request.study)
    goes_on = begun_with.exists()
    prepared = prepare_search(
        supernet, request, workspace=workspace, settings=settings, progress=progress
    )
    objectives, run_trials = _by_workers(prepared.objectives, request, workspace)
    try:
        outcome = run_search(
            objectives,
            prepared.plan,
            geometry=supernet.geometry,
            trials=request.trials,
            run_trials=run_trials,
            progress=progress,
        )
    except (InfeasibleError, UsageError) as error:
        # A request that was refused leaves a study that waits to be gone on with as it is.
        if isinstance(error, InfeasibleError) or not goes_on:
            shutil.rmtree(begun_with, ignore_errors=True)
        raise
    latencies = prepared.latencies
    for target, stopwatch in latencies.stopwatches.items():
        save_latency_predictor(
            latencies.predictors[target],
            workspace.predictor(target, supernet.id),
            noise_floor_percent=noise_floor(stopwatch.profile.measurements),
        )
    final = _final_accuracies(prepared.final_accuracy, outcome, progress)
    result = _result(supernet, request, prepared, outcome, final)
    record = StudyRecord(result=result, candidates=outcome.candidates)
    write_text(result_file, record.model_dump_json(indent=1))
    with suppress(HwsearchError):  # the result is there, whatever became of the storage
        prepared.plan.open(prepared.objectives).forget_picks()
    shutil.rmtree(begun_with, ignore_errors=True)
    return result


def load_study(workspace: Workspace, name: str) -> StudyRecord:
    """Read what a search left.

    Raises:
        HwsearchError: there is no such study, or its result is damaged.
    """
    path = workspace.study(name) / RESULT_NAME
    try:
        return StudyRecord.from_json(path.read_bytes())
    except FileNotFoundError:
        known = sorted(entry.parent.name for entry in path.parents[1].glob(f"*/{RESULT_NAME}"))
        raise HwsearchError(
            f"There is no finished study {name!r} in {workspace.root}: "
            + (f"take one of {', '.join(known)}." if known else "run 'hwsearch search' first.")
        ) from None
    except UsageError as error:
        raise HwsearchError(f"{path} is damaged: {error}") from None


def _by_workers(
    objectives: Objectives, request: SearchRequest, workspace: Workspace
) -> tuple[Objectives, RunTrials]:
    """The objectives, whose corrections reach the workers, and who runs the trials."""
    if request.workers == 1:
        return objectives, SubnetStudy.run_until
    from hwsearch.workflow.workers import Crew

    crew = Crew(request, workspace)

    def refit(chosen: Sequence[Deployment], latencies_ms: NDArray[np.float64]) -> None:
        crew.corrections.append((list(chosen), latencies_ms))
        objectives.refit(chosen, latencies_ms)

    return replace(objectives, refit=refit), crew.run_trials


def _result(
    supernet: Supernet,
    request: SearchRequest,
    prepared: PreparedSearch,
    outcome: SearchOutcome,
    final: dict[Deployment, Candidate],
) -> SearchResult:
    pick, data = final[outcome.pick.deployment], prepared.data
    first, *others = (
        _standing(wanted, wanted.in_precision(pick.precision), prepared.latencies)
        for wanted in prepared.targets
    )
    return SearchResult(
        study=request.study,
        supernet=request.supernet_name,
        supernet_id=supernet.id,
        weights_digest=supernet.weights_digest(),
        target=first.target,
        scope="full",
        target_latency_ms=first.target_latency_ms,
        data=request.data,
        framing=request.framing,
        max_views=request.max_views,
        seed=request.seed,
        evaluated_on=request.evaluate_on,
        split=data.search_split,
        final_split=data.final_split,
        trials=outcome.trials,
        noise_floor_percent=first.noise_floor_percent,
        predictor_model=first.predictor_model,
        predictor_mape_percent=first.predictor_mape_percent,
        largest=final[outcome.largest.deployment],
        front=tuple(final[candidate.deployment] for candidate in outcome.front),
        pick=pick,
        precisions=request.precisions,
        further_targets=tuple(others),
    )


def _standing(wanted: SearchTarget, target: Target, latencies: SearchLatencies) -> FurtherTarget:
    predictor, stopwatch = latencies.predictors[target], latencies.stopwatches.get(target)
    return FurtherTarget(
        target=target,
        target_latency_ms=wanted.latency_ms,
        measured_here=wanted.measured_here,
        noise_floor_percent=noise_floor(stopwatch.profile.measurements) if stopwatch else None,
        predictor_model=predictor.model_name_,
        predictor_mape_percent=predictor.cv_.mape_percent,
    )


def _final_accuracies(
    judge: Callable[[Deployment], float], outcome: SearchOutcome, progress: Progress
) -> dict[Deployment, Candidate]:
    """The reported candidates with their accuracy on images that the search never saw."""
    reported = {row.deployment: row for row in (*outcome.front, outcome.largest, outcome.pick)}
    finished = {}
    with progress.task("final accuracy", len(reported)) as advance:
        for deployment, row in reported.items():
            miou = judge(deployment)
            finished[deployment] = row.model_copy(update={"miou_final": miou})
            advance(1, f"{deployment.id} {miou:.3f}")
    return finished
