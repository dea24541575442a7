"""The stage that chooses: from a target latency to measured subnets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hwsearch.errors import HwsearchError, PredictorError, UsageError
from hwsearch.evaluation import EvaluationSet
from hwsearch.files import write_text
from hwsearch.predictor.latency_predictor import LatencyPredictor
from hwsearch.predictor.store import load_latency_predictor, save_latency_predictor
from hwsearch.profiler.noise import noise_floor
from hwsearch.profiler.session import SessionSettings
from hwsearch.profiles import ProfileStore
from hwsearch.progress import Progress, SilentProgress
from hwsearch.records import Candidate, Deployment, Framing, Record, SearchResult, Target
from hwsearch.search.deployments import DeploymentSpace
from hwsearch.search.objectives import Objectives
from hwsearch.search.run import (
    DEFAULT_TRIALS,
    RunTrials,
    SearchOutcome,
    StudyPlan,
    TargetLimit,
    run_search,
)
from hwsearch.search.study import SubnetStudy
from hwsearch.supernet.supernet import Supernet
from hwsearch.workflow.accuracy import (
    DEFAULT_VIEWS,
    SearchData,
    accuracy_context,
    inherited_accuracy,
    search_data,
)
from hwsearch.workflow.fit import fit_latency_predictor
from hwsearch.workflow.profile import DEFAULT_SAMPLES, profile_supernet
from hwsearch.workflow.timing import Stopwatch
from hwsearch.workflow.workspace import Workspace

RESULT_NAME = "result.json"
COVERAGE = 0.9


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
        target: where the latency counts.
        target_latency_ms: the latency that no pick may exceed.
        data: a data folder, or `scenes`.
        framing: whole images, or windows around objects.
        study: name of the study; a study of this name and purpose is continued.
        storage: Optuna storage URL; None for a SQLite file in the workspace.
        trials: how many subnets are judged in all.
        samples: how many subnets are measured first, if no predictor is there.
        max_views: images or objects that each accuracy is found on.
        seed: source of all draws.
        workers: how many processes judge subnets on this machine.
        allow_stale: accept profiles and predictors made under other versions.
    """

    supernet_name: str
    target: Target
    target_latency_ms: float
    data: str
    framing: Framing
    study: str
    storage: str | None = None
    trials: int = DEFAULT_TRIALS
    samples: int = DEFAULT_SAMPLES
    max_views: int = DEFAULT_VIEWS
    seed: int = 0
    workers: int = 1
    allow_stale: bool = False


def search_subnets(
    supernet: Supernet,
    request: SearchRequest,
    *,
    workspace: Workspace,
    settings: SessionSettings | None = None,
    progress: Progress | None = None,
) -> SearchResult:
    """Search, re-measure the picks, and write the study's `result.json`.

    The stages that are lacking, profile and fit, are run first.

    Raises:
        InfeasibleError: no subnet meets the target latency.
        HwsearchError: whatever the stages raise.
    """
    progress = progress or SilentProgress()
    result_file = workspace.study(request.study) / RESULT_NAME  # a bad name fails before the work
    prepared = prepare_search(
        supernet, request, workspace=workspace, settings=settings, progress=progress
    )
    objectives, run_trials = _by_workers(prepared.objectives, request, workspace)
    outcome = run_search(
        objectives,
        prepared.plan,
        geometry=supernet.geometry,
        trials=request.trials,
        run_trials=run_trials,
        progress=progress,
    )
    data, predictions, stopwatch = prepared.data, prepared.predictions, prepared.stopwatch
    floor = noise_floor(stopwatch.profile.measurements)
    directory = workspace.predictor(request.target, supernet.id)
    save_latency_predictor(predictions.current, directory, noise_floor_percent=floor)
    final = _final_accuracies(supernet, outcome, data.final, progress)
    result = SearchResult(
        study=request.study,
        supernet=request.supernet_name,
        supernet_id=supernet.id,
        weights_digest=supernet.weights_digest(),
        target=request.target,
        scope="full",
        target_latency_ms=request.target_latency_ms,
        data=request.data,
        framing=request.framing,
        max_views=request.max_views,
        seed=request.seed,
        split=data.search_split,
        final_split=data.final_split,
        trials=outcome.trials,
        noise_floor_percent=floor,
        predictor_model=predictions.current.model_name_,
        predictor_mape_percent=predictions.current.cv_.mape_percent,
        largest=final[outcome.largest.deployment],
        front=tuple(final[candidate.deployment] for candidate in outcome.front),
        pick=final[outcome.pick.deployment],
    )
    record = StudyRecord(result=result, candidates=outcome.candidates)
    write_text(result_file, record.model_dump_json(indent=1))
    return result


@dataclass(frozen=True)
class PreparedSearch:
    """All that a search needs; each process that works on a study prepares its own."""

    data: SearchData
    predictions: Predictions
    stopwatch: Stopwatch
    objectives: Objectives
    plan: StudyPlan


def prepare_search(
    supernet: Supernet,
    request: SearchRequest,
    *,
    workspace: Workspace,
    settings: SessionSettings | None = None,
    progress: Progress,
) -> PreparedSearch:
    """Load the data and the predictor; the stages that are lacking, profile and fit, are run.

    Raises:
        HwsearchError: whatever the stages raise.
    """
    data = search_data(
        request.data, framing=request.framing, max_views=request.max_views, seed=request.seed
    )
    predictions = Predictions(_predictor(supernet, request, workspace, settings, progress))
    store = ProfileStore(workspace.profiles, request.target, allow_stale=request.allow_stale)
    stopwatch = Stopwatch(supernet, store, settings or SessionSettings(seed=request.seed), progress)
    objectives = Objectives(
        evaluate=_accuracy(supernet, data.search),
        predict=predictions.predict,
        upper=predictions.upper,
        measure=lambda chosen: _column(stopwatch.latencies_ms([one.subnet for one in chosen])),
        refit=predictions.refit,
    )
    plan = StudyPlan(
        name=request.study,
        storage=request.storage or workspace.storage,
        space=DeploymentSpace(subnets=supernet.space, precisions=(request.target.precision,)),
        accuracy=accuracy_context(supernet, data.search, data.search_split),
        targets=[
            TargetLimit(
                name=request.target.name,
                fingerprint=request.target.fingerprint,
                latency_ms=request.target_latency_ms,
            )
        ],
        cache=workspace.accuracies,
        seed=request.seed,
    )
    return PreparedSearch(data, predictions, stopwatch, objectives, plan)


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


class Predictions:
    """The predictor that a search uses, replaced by a better one as measurements come in."""

    def __init__(self, predictor: LatencyPredictor) -> None:
        self.current = predictor

    def predict(self, chosen: Sequence[Deployment]) -> NDArray[np.float64]:
        """Latencies in milliseconds, (n, 1)."""
        return _column(self.current.predict([one.subnet for one in chosen]))

    def upper(self, chosen: Sequence[Deployment]) -> NDArray[np.float64]:
        """Upper bounds in milliseconds, (n, 1), that 90 % of measurements stay below."""
        return _column(self.current.upper([one.subnet for one in chosen], COVERAGE))

    def refit(self, chosen: Sequence[Deployment], latencies_ms: NDArray[np.float64]) -> None:
        """Take further measurements into account; latencies in milliseconds, (n, 1)."""
        subnets = [one.subnet for one in chosen]
        self.current = self.current.correct(subnets, latencies_ms[:, 0].tolist())


def _column(values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64).reshape(-1, 1)


def _accuracy(supernet: Supernet, chosen: EvaluationSet) -> Callable[[Deployment], float]:
    accuracy = inherited_accuracy(supernet, chosen)
    return lambda deployment: accuracy(deployment.subnet)


def _predictor(
    supernet: Supernet,
    request: SearchRequest,
    workspace: Workspace,
    settings: SessionSettings | None,
    progress: Progress,
) -> LatencyPredictor:
    """The predictor of the workspace, made first where it is lacking."""
    directory = workspace.predictor(request.target, supernet.id)
    if (directory / "predictor.json").exists():
        predictor = load_latency_predictor(
            directory, target=request.target, allow_stale=request.allow_stale
        )
        if predictor.geometry != supernet.geometry:
            raise PredictorError(f"{directory} belongs to another geometry: fit it again.")
        if predictor.scope != "full":
            raise PredictorError(f"{directory} predicts the {predictor.scope} alone: fit it again.")
        return predictor
    progress.log(f"No latency predictor for {request.target.name} yet: profiling and fitting.")
    profile_supernet(
        supernet,
        target=request.target,
        workspace=workspace,
        samples=request.samples,
        settings=settings,
        seed=request.seed,
        allow_stale=request.allow_stale,
        progress=progress,
    )
    predictor, _ = fit_latency_predictor(
        supernet.geometry,
        target=request.target,
        workspace=workspace,
        seed=request.seed,
        allow_stale=request.allow_stale,
    )
    return predictor


def _final_accuracies(
    supernet: Supernet, outcome: SearchOutcome, final: EvaluationSet, progress: Progress
) -> dict[Deployment, Candidate]:
    """The reported candidates with their accuracy on images that the search never saw."""
    accuracy = _accuracy(supernet, final)
    reported = {row.deployment: row for row in (*outcome.front, outcome.largest, outcome.pick)}
    finished = {}
    with progress.task("final accuracy", len(reported)) as advance:
        for config, row in reported.items():
            miou = accuracy(config)
            finished[config] = row.model_copy(update={"miou_final": miou})
            advance(1, f"{config.id} {miou:.3f}")
    return finished
