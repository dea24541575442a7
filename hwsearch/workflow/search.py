"""The stage that chooses: from target latencies to measured subnets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from hwsearch.errors import HwsearchError, UsageError
from hwsearch.evaluation import EvaluationSet
from hwsearch.files import write_text
from hwsearch.predictor.store import save_latency_predictor
from hwsearch.profiler.noise import noise_floor
from hwsearch.profiler.session import SessionSettings
from hwsearch.progress import Progress, SilentProgress
from hwsearch.records import (
    Candidate,
    Deployment,
    Framing,
    FurtherTarget,
    Precision,
    Record,
    SearchResult,
    Target,
)
from hwsearch.search.deployments import DeploymentSpace
from hwsearch.search.objectives import Objectives
from hwsearch.search.run import DEFAULT_TRIALS, SearchOutcome, TargetLimit, run_search
from hwsearch.supernet.supernet import Supernet
from hwsearch.workflow.accuracy import DEFAULT_VIEWS, SearchData, accuracy_context, search_data
from hwsearch.workflow.deployed import EXACT_RUNTIME, deployed_accuracy, runtime_of
from hwsearch.workflow.latencies import SearchLatencies, search_latencies
from hwsearch.workflow.profile import DEFAULT_SAMPLES
from hwsearch.workflow.targets import SearchTarget, in_order
from hwsearch.workflow.workspace import Workspace

RESULT_NAME = "result.json"


class StudyRecord(Record):
    """What a study's directory keeps: the result, and every subnet that was judged."""

    schema_version: Literal[1] = 1
    result: SearchResult
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class SearchRequest:
    """What is asked of a search.

    Attributes:
        supernet_name: how the user named the supernet; `export` loads it again by this.
        targets: where the latency counts, and what no pick may exceed there, all in the same
            precisions; of several a pick meets each.
        data: a data folder, or `scenes`.
        framing: whole images, or windows around objects.
        study: name of the study; a study of this name and purpose is continued.
        storage: Optuna storage URL; None for a SQLite file in the workspace.
        trials: how many subnets are judged in all.
        samples: how many subnets are measured first, if no predictor is there.
        max_views: images or objects that each accuracy is found on.
        seed: source of all draws.
        allow_stale: accept profiles and predictors made under other versions.
    """

    supernet_name: str
    targets: tuple[SearchTarget, ...]
    data: str
    framing: Framing
    study: str
    storage: str | None = None
    trials: int = DEFAULT_TRIALS
    samples: int = DEFAULT_SAMPLES
    max_views: int = DEFAULT_VIEWS
    seed: int = 0
    allow_stale: bool = False

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Those that a pick may have."""
        return self.targets[0].precisions


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
    targets = in_order(request.targets)
    for wanted in targets:
        if not wanted.measured_here:
            progress.log(
                f"{wanted.name} can't be measured here: its predictor's upper bound is held "
                f"against {wanted.latency_ms:g} ms."
            )
    data = search_data(
        request.data, framing=request.framing, max_views=request.max_views, seed=request.seed
    )
    latencies = search_latencies(
        supernet,
        targets,
        workspace=workspace,
        samples=request.samples,
        settings=settings or SessionSettings(seed=request.seed),
        seed=request.seed,
        allow_stale=request.allow_stale,
        progress=progress,
    )
    outcome = run_search(
        Objectives(
            evaluate=_accuracy(supernet, data.search, targets, request.precisions),
            predict=latencies.predict,
            upper=latencies.upper,
            measure=latencies.measure,
            refit=latencies.refit,
        ),
        space=DeploymentSpace(subnets=supernet.space, precisions=request.precisions),
        geometry=supernet.geometry,
        accuracy=accuracy_context(
            supernet,
            data.search,
            data.search_split,
            runtimes=_runtimes(targets, request.precisions),
        ),
        targets=[
            TargetLimit(
                name=wanted.name, fingerprint=wanted.fingerprint, latency_ms=wanted.latency_ms
            )
            for wanted in targets
        ],
        study=request.study,
        storage=request.storage or workspace.storage,
        cache=workspace.accuracies,
        trials=request.trials,
        seed=request.seed,
        progress=progress,
    )
    for target, stopwatch in latencies.stopwatches.items():
        save_latency_predictor(
            latencies.predictors[target],
            workspace.predictor(target, supernet.id),
            noise_floor_percent=noise_floor(stopwatch.profile.measurements),
        )
    judge = _accuracy(supernet, data.final, targets, request.precisions)
    final = _final_accuracies(judge, outcome, progress)
    result = _result(
        supernet,
        request,
        targets=targets,
        latencies=latencies,
        data=data,
        outcome=outcome,
        final=final,
    )
    record = StudyRecord(result=result, candidates=outcome.candidates)
    write_text(result_file, record.model_dump_json(indent=1))
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


def _accuracy(
    supernet: Supernet,
    chosen: EvaluationSet,
    targets: Sequence[SearchTarget],
    precisions: Sequence[Precision],
) -> Callable[[Deployment], float]:
    """A function from a deployment to its mIoU in the precision that it is deployed in."""
    by_precision = {
        precision: deployed_accuracy(
            supernet, chosen, [wanted.in_precision(precision) for wanted in targets]
        )
        for precision in precisions
    }
    return lambda deployment: by_precision[deployment.precision](deployment.subnet)


def _runtimes(
    targets: Sequence[SearchTarget], precisions: Sequence[Precision]
) -> dict[Precision, str]:
    """What judges each precision, where it is not PyTorch alone."""
    found = {
        precision: sorted({runtime_of(wanted.in_precision(precision)) for wanted in targets})
        for precision in precisions
    }
    return {
        precision: "+".join(names) for precision, names in found.items() if names != [EXACT_RUNTIME]
    }


def _result(
    supernet: Supernet,
    request: SearchRequest,
    *,
    targets: Sequence[SearchTarget],
    latencies: SearchLatencies,
    data: SearchData,
    outcome: SearchOutcome,
    final: dict[Deployment, Candidate],
) -> SearchResult:
    pick = final[outcome.pick.deployment]
    first, *others = (
        _standing(wanted, wanted.in_precision(pick.precision), latencies) for wanted in targets
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
