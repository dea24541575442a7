"""What a search needs before its first trial: data, predictors, stopwatches, the study's plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from hwsearch.compute import compute_device
from hwsearch.errors import UsageError
from hwsearch.evaluation import EvaluationSet
from hwsearch.profiler.session import SessionSettings
from hwsearch.progress import Progress
from hwsearch.records import Deployment, Framing, Precision
from hwsearch.search.deployments import DeploymentSpace
from hwsearch.search.objectives import Objectives
from hwsearch.search.run import DEFAULT_TRIALS, StudyPlan, TargetLimit
from hwsearch.search.storage import open_storage
from hwsearch.supernet.supernet import Supernet
from hwsearch.workflow.accuracy import DEFAULT_VIEWS, SearchData, accuracy_context, search_data
from hwsearch.workflow.deployed import EXACT_RUNTIME, deployed_accuracy, runtime_of
from hwsearch.workflow.latencies import SearchLatencies, search_latencies
from hwsearch.workflow.profile import DEFAULT_SAMPLES
from hwsearch.workflow.targets import SearchTarget, ask_for_runtimes, in_order
from hwsearch.workflow.workspace import Workspace


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
        workers: how many processes judge subnets on this machine.
        evaluate_on: what torch finds accuracies in fp32 on: `cpu`, `cuda`, `cuda:N` or `mps`.
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
    workers: int = 1
    evaluate_on: str = "cpu"
    allow_stale: bool = False

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Those that a pick may have."""
        return self.targets[0].precisions


@dataclass(frozen=True)
class PreparedSearch:
    """All that a search needs; each process that works on a study prepares its own.

    `targets` are the request's, those that can be measured here first. `final_accuracy` judges
    deployments on the images that give the figures to quote.
    """

    targets: tuple[SearchTarget, ...]
    data: SearchData
    latencies: SearchLatencies
    objectives: Objectives
    final_accuracy: Callable[[Deployment], float]
    plan: StudyPlan


def prepare_search(
    supernet: Supernet,
    request: SearchRequest,
    *,
    workspace: Workspace,
    settings: SessionSettings | None = None,
    progress: Progress,
) -> PreparedSearch:
    """Load data and predictors; the stages that are lacking, profile and fit, are run.

    Raises:
        HwsearchError: whatever the stages raise.
    """
    device = compute_device(request.evaluate_on)
    if device.type != "cpu" and "fp32" not in request.precisions:
        raise UsageError(
            f"Accuracies in {' and '.join(request.precisions)} are found in the targets' runtimes: "
            "leave --evaluate-on out, or search over fp32 too."
        )
    targets = in_order(request.targets)
    for wanted in targets:
        if not wanted.measured_here:
            ask_for_runtimes(wanted)
            progress.log(
                f"{wanted.name} can't be measured here: its predictor's upper bound is held "
                f"against {wanted.latency_ms:g} ms."
            )
    data = search_data(
        request.data, framing=request.framing, max_views=request.max_views, seed=request.seed
    )
    storage = request.storage or workspace.storage
    open_storage(storage)  # one that can't be used is told of before anything is measured
    latencies = search_latencies(
        supernet,
        targets,
        workspace=workspace,
        study=request.study,
        samples=request.samples,
        settings=settings or SessionSettings(seed=request.seed),
        seed=request.seed,
        allow_stale=request.allow_stale,
        progress=progress,
    )
    judge = partial(accuracy_as_deployed, supernet, targets=targets, device=device)
    objectives = Objectives(
        evaluate=judge(data.search),
        predict=latencies.predict,
        upper=latencies.upper,
        measure=latencies.measure,
        refit=latencies.refit,
    )
    plan = StudyPlan(
        name=request.study,
        storage=storage,
        space=DeploymentSpace(subnets=supernet.space, precisions=request.precisions),
        accuracy=accuracy_context(
            supernet, data.search, data.search_split, runtimes=_runtimes(targets)
        ),
        targets=[
            TargetLimit(
                name=wanted.name, fingerprint=wanted.fingerprint, latency_ms=wanted.latency_ms
            )
            for wanted in targets
        ],
        cache=workspace.accuracies,
        seed=request.seed,
        verifier=workspace.verifier(request.study),
    )
    return PreparedSearch(targets, data, latencies, objectives, judge(data.final), plan)


def accuracy_as_deployed(
    supernet: Supernet,
    chosen: EvaluationSet,
    targets: Sequence[SearchTarget],
    *,
    device: torch.device,
) -> Callable[[Deployment], float]:
    """A function from a deployment to its mIoU in the precision that it is deployed in.

    In fp32 torch finds it on `device`, in any other precision the target's runtime.
    """
    by_precision = {
        precision: deployed_accuracy(
            supernet,
            chosen,
            [wanted.in_precision(precision) for wanted in targets],
            device=device,
        )
        for precision in targets[0].precisions
    }
    return lambda deployment: by_precision[deployment.precision](deployment.subnet)


def _runtimes(targets: Sequence[SearchTarget]) -> dict[Precision, str]:
    """What judges each precision, where it is not PyTorch alone."""
    found = {
        precision: sorted({runtime_of(wanted.in_precision(precision)) for wanted in targets})
        for precision in targets[0].precisions
    }
    return {
        precision: "+".join(names) for precision, names in found.items() if names != [EXACT_RUNTIME]
    }
