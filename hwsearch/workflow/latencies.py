"""Latencies of deployments on all targets of a search: predicted, measured, corrected."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwsearch.errors import PredictorError
from hwsearch.files import copy_folder
from hwsearch.predictor.latency_predictor import LatencyPredictor
from hwsearch.predictor.store import load_latency_predictor
from hwsearch.profiler.session import SessionSettings
from hwsearch.profiles import ProfileStore
from hwsearch.progress import Progress
from hwsearch.records import Deployment, SubnetConfig, Target
from hwsearch.supernet.supernet import Supernet
from hwsearch.workflow.fit import fit_latency_predictor
from hwsearch.workflow.profile import profile_supernet
from hwsearch.workflow.targets import SearchTarget
from hwsearch.workflow.timing import Stopwatch
from hwsearch.workflow.workspace import Workspace

COVERAGE = 0.9
Floats = NDArray[np.float64]


class SearchLatencies:
    """The predictors that a search uses, replaced by better ones as measurements come in.

    All tables have a row for each deployment and a column for each target.

    Args:
        targets: where latencies count.
        predictors: one for each target in each precision.
        stopwatches: the same for those that can be measured here.
    """

    def __init__(
        self,
        targets: Sequence[SearchTarget],
        *,
        predictors: Mapping[Target, LatencyPredictor],
        stopwatches: Mapping[Target, Stopwatch],
    ) -> None:
        self._targets = tuple(targets)
        self.predictors = dict(predictors)
        self.stopwatches = dict(stopwatches)

    def predict(self, chosen: Sequence[Deployment]) -> Floats:
        """Latencies in milliseconds, (n, targets)."""
        return self._table(chosen, lambda target, subnets: self.predictors[target].predict(subnets))

    def upper(self, chosen: Sequence[Deployment]) -> Floats:
        """Upper bounds in milliseconds, (n, targets), that 90 % of measurements stay below."""
        return self._table(
            chosen, lambda target, subnets: self.predictors[target].upper(subnets, COVERAGE)
        )

    def measure(self, chosen: Sequence[Deployment]) -> Floats:
        """Measured latencies in milliseconds, (n, targets).

        NaN where this machine can't measure, infinity where the deployment can't be run.

        On each target, deployments of one precision are timed in interleaved groups, all of them
        against the same reference.
        """

        def timed(target: Target, subnets: list[SubnetConfig]) -> ArrayLike:
            stopwatch = self.stopwatches.get(target)
            return (
                np.full(len(subnets), np.nan)
                if stopwatch is None
                else stopwatch.latencies_ms(subnets)
            )

        return self._table(chosen, timed)

    def refit(self, chosen: Sequence[Deployment], latencies_ms: Floats) -> None:
        """Take further measurements into account, (n, targets), as `measure` gives them."""
        for column, target, rows in self._groups(chosen):
            known = [row for row in rows if np.isfinite(latencies_ms[row, column])]
            if known:
                subnets = [chosen[row].subnet for row in known]
                better = self.predictors[target].correct(subnets, latencies_ms[known, column])
                self.predictors[target] = better

    def _table(
        self,
        chosen: Sequence[Deployment],
        latencies_of: Callable[[Target, list[SubnetConfig]], ArrayLike],
    ) -> Floats:
        table = np.empty((len(chosen), len(self._targets)))
        for column, target, rows in self._groups(chosen):
            table[rows, column] = latencies_of(target, [chosen[row].subnet for row in rows])
        return table

    def _groups(self, chosen: Sequence[Deployment]) -> Iterator[tuple[int, Target, list[int]]]:
        """Each column's targets, with the rows of the deployments that run there."""
        for column, wanted in enumerate(self._targets):
            for precision in dict.fromkeys(deployment.precision for deployment in chosen):
                rows = [row for row, one in enumerate(chosen) if one.precision == precision]
                yield column, wanted.in_precision(precision), rows


def search_latencies(
    supernet: Supernet,
    targets: Sequence[SearchTarget],
    *,
    workspace: Workspace,
    study: str,
    samples: int,
    settings: SessionSettings,
    seed: int,
    allow_stale: bool,
    progress: Progress,
) -> SearchLatencies:
    """The predictors and stopwatches of all targets; a predictor that is lacking is made first.

    The study keeps the predictors that it began with until it ends, so that one that was stopped
    goes on with them whatever other searches learned meanwhile.

    Args:
        supernet: whose subnets run there.
        targets: where latencies count.
        workspace: holds profiles and predictors.
        study: the study's name.
        samples: how many subnets are measured where there is no predictor yet.
        settings: how carefully to measure.
        seed: chooses the subnets to measure.
        allow_stale: accept profiles and predictors made under other versions.
        progress: who shows the subnets.

    Raises:
        PredictorError: a predictor can't be used.
        ProfileError: nothing can be measured.
    """
    predictors: dict[Target, LatencyPredictor] = {}
    stopwatches: dict[Target, Stopwatch] = {}
    for wanted in targets:
        for target in wanted.targets:
            directory = workspace.predictor(target, supernet.id)
            kept = workspace.study_predictors(study) / target.name
            predictor = _kept_predictor(
                supernet, target, kept, study=study, allow_stale=allow_stale
            ) or _stored_predictor(supernet, target, directory, allow_stale=allow_stale)
            if predictor is None:
                progress.log(f"No latency predictor for {target.name} yet: profiling and fitting.")
                profile_supernet(
                    supernet,
                    target=target,
                    workspace=workspace,
                    samples=samples,
                    settings=settings,
                    seed=seed,
                    allow_stale=allow_stale,
                    progress=progress,
                )
                predictor, _ = fit_latency_predictor(
                    supernet.geometry,
                    target=target,
                    workspace=workspace,
                    seed=seed,
                    allow_stale=allow_stale,
                    progress=progress,
                )
            if not kept.exists():
                copy_folder(directory, kept)
            predictors[target] = predictor
            if wanted.measured_here:
                store = ProfileStore(workspace.profiles, target, allow_stale=allow_stale)
                stopwatches[target] = Stopwatch(supernet, store, settings, progress)
    return SearchLatencies(targets, predictors=predictors, stopwatches=stopwatches)


def _kept_predictor(
    supernet: Supernet, target: Target, directory: Path, *, study: str, allow_stale: bool
) -> LatencyPredictor | None:
    """The predictor that the study began with, if it was interrupted."""
    try:
        return _stored_predictor(supernet, target, directory, allow_stale=allow_stale)
    except PredictorError as error:
        raise PredictorError(
            f"Study {study} was interrupted, and the predictor that it began with can't be used "
            f"any longer: delete {directory.parent} to go on with the workspace's, or choose "
            f"another --study. ({error})"
        ) from None


def _stored_predictor(
    supernet: Supernet, target: Target, directory: Path, *, allow_stale: bool
) -> LatencyPredictor | None:
    if not (directory / "predictor.json").exists():
        return None
    predictor = load_latency_predictor(directory, target=target, allow_stale=allow_stale)
    if predictor.geometry != supernet.geometry:
        raise PredictorError(f"{directory} belongs to another geometry: fit it again.")
    if predictor.scope != "full":
        raise PredictorError(f"{directory} predicts the {predictor.scope} alone: fit it again.")
    return predictor
