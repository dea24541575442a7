"""One search from its target to measured picks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from hwsearch.errors import InfeasibleError, ProfileError, UsageError
from hwsearch.progress import Progress, SilentProgress
from hwsearch.records import Deployment, Record, SamGeometry, Scope, short_digest
from hwsearch.results import Candidate
from hwsearch.search.accuracy_cache import AccuracyCache, AccuracyContext
from hwsearch.search.candidates import described, measured_front
from hwsearch.search.deployments import DeploymentSpace
from hwsearch.search.infeasible import explain, sentence
from hwsearch.search.moves import fastest
from hwsearch.search.objectives import Limits, Objectives, at_best, what_counts
from hwsearch.search.rounds import Round
from hwsearch.search.runnable import too_much
from hwsearch.search.stretch import challengers
from hwsearch.search.study import StudyIdentity, SubnetStudy
from hwsearch.search.verify import verify_front

DEFAULT_TRIALS = 80
MOST_BESIDE = 0.3  # of the trials, judged where picks leave much of the limit unused


class RunTrials(Protocol):
    """Brings a study to a number of judged deployments."""

    def __call__(self, study: SubnetStudy, /, total: int, *, progress: Progress) -> None:
        """Return when that many are judged, or nothing new is found."""
        ...


class TargetLimit(Record):
    """The latency that a pick may not exceed on one target.

    `name` is for people, `fingerprint` for the study, which is never continued with another one:
    where precisions are chosen too, it has to tell all of them.
    """

    name: str
    fingerprint: str
    latency_ms: float


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """What a study is for and where it is kept; all that work on it have the same.

    Attributes:
        name: the study's name; one of this name and purpose is continued.
        storage: Optuna storage URL, as `open_storage` takes it.
        space: where the deployments come from.
        accuracy: what accuracies depend on; keys the cache and guards the study.
        targets: where latencies count, and what a pick may take there; guards the study.
        cache: JSON-lines file of accuracies, shared by all studies.
        scope: which part of the model latencies cover.
        seed: seeds everything that is drawn.
        verifier: who measures here: another one's measurements don't count as this one's.
    """

    name: str
    storage: str
    space: DeploymentSpace
    accuracy: AccuracyContext
    targets: Sequence[TargetLimit]
    cache: Path
    scope: Scope = "full"
    seed: int = 0
    verifier: str = ""

    @property
    def limits(self) -> Limits:
        """The limit on each target."""
        return Limits(tuple(target.latency_ms for target in self.targets))

    def open(self, objectives: Objectives) -> SubnetStudy:
        """The study, made where there is none; accuracies of the cache are not computed again.

        Raises:
            UsageError: the storage can't be used, or the study was made for another purpose.
        """
        remembered = AccuracyCache(self.cache, self.accuracy).remember(objectives.evaluate)
        return SubnetStudy(
            name=self.name,
            storage=self.storage,
            identity=StudyIdentity(
                accuracy=self.accuracy,
                space_digest=short_digest(self.space.to_json()),
                target_fingerprints=tuple(target.fingerprint for target in self.targets),
                scope=self.scope,
                target_latencies_ms=self.limits.latencies_ms,
            ),
            space=self.space,
            objectives=replace(objectives, evaluate=remembered),
            seed=self.seed,
            verifier=self.verifier,
        )


class SearchOutcome(Record):
    """What a search found.

    `candidates` are all deployments that were judged, `front` those measured within the target that
    no other such dominates, by ascending latency; `pick` is the most accurate of the front.
    """

    trials: PositiveInt
    candidates: tuple[Candidate, ...]
    front: tuple[Candidate, ...]
    largest: Candidate
    pick: Candidate


def run_search(
    objectives: Objectives,
    plan: StudyPlan,
    *,
    geometry: SamGeometry,
    trials: int = DEFAULT_TRIALS,
    run_trials: RunTrials = SubnetStudy.run_until,
    progress: Progress | None = None,
) -> SearchOutcome:
    """Find the most accurate deployments whose measured latency meets every target.

    What was measured stays with the study, so that a search that is run again reports the same,
    until `SubnetStudy.forget_picks`.

    Args:
        objectives: how to judge, predict and measure deployments; latencies have a column for each
            of the plan's targets, in their order.
        plan: the study.
        geometry: the full encoder's sizes, for parameters and MACs.
        trials: how many deployments the study judges in all, earlier ones included. Where a
            measured pick misses the target, up to four tenths more are added; where a pick
            leaves much of its target unused, up to three tenths are judged beside the study.
        run_trials: brings the study to a number of trials; by default in this process, one after
            the other.
        progress: told what goes on.

    Raises:
        InfeasibleError: nothing meets the targets; the message names the nearest.
        UsageError: the storage can't be used, the study was made for another purpose, or `trials`
            or a limit is not positive.
        ProfileError: not even the smallest deployment can be run.
        DataError: an accuracy came out as no number between 0 and 1.
    """
    if trials < 1:
        raise UsageError(f"A search needs a positive number of trials, not {trials} trials.")
    progress = progress or SilentProgress()
    space, targets, limits = plan.space, plan.targets, plan.limits
    subnets = plan.open(objectives)
    objectives = subnets.objectives
    rounds = list(subnets.rounds)
    for measured in rounds:  # what is measured anew would make a resumed study another one
        objectives.refit(measured.deployments, measured.table)
    if not rounds:
        lowest = _measure_lowest(
            objectives,
            space=space,
            geometry=geometry,
            targets=targets,
            limits=limits,
            progress=progress,
        )
        rounds = [lowest]
        subnets.keep_rounds(rounds)
    before = len(subnets.judged)
    run_trials(subnets, trials, progress=progress)
    if len(rounds) > 1 and len(subnets.judged) > before:  # more trials were asked for
        subnets.forget_picks()
        rounds = rounds[:1]
    # A study that was verified before may have more trials; those of a resumed one count anew.
    first_trials = trials if len(rounds) > 1 else max(trials, len(subnets.judged))

    def judged() -> dict[Deployment, float]:
        return {row.deployment: row.miou for row in subnets.judged}

    def search_on(number: int) -> None:
        run_trials(subnets, first_trials + number * math.ceil(trials / 10), progress=progress)

    beside: dict[Deployment, float] = {}

    def stretch(tried: Mapping[Deployment, float], pick: Deployment) -> dict[Deployment, float]:
        earlier = {*beside, *(one for measured in rounds for one in measured.beside)}
        left = math.ceil(MOST_BESIDE * trials) - len(earlier)
        if left <= 0:
            return {}
        beyond = too_much(rounds)

        def may_cost(some: Sequence[Deployment]) -> NDArray[np.float64]:
            costs = limits.costs(at_best(objectives, some, rounds[0].table))
            return np.where([beyond(one) for one in some], np.inf, costs)

        found = challengers(
            space,
            tried,
            pick,
            upper=limits.cost_of(objectives.upper),
            at_best=may_cost,
            limit=limits.cost,
        )
        mious = {one: objectives.evaluate(one) for one in found[:left]}
        beside.update(mious)
        return mious

    def keep(measured: Round) -> None:
        rounds.append(measured)
        subnets.keep_rounds(rounds)

    measured_ms = verify_front(
        judged,
        objectives=objectives,
        limits=limits,
        rounds=tuple(rounds),
        keep=keep,
        companions=[space.largest],
        search_on=search_on,
        stretch=stretch,
        progress=progress,
    )
    found = judged()
    others = [*measured_ms, *(one for measured in rounds for one in measured.beside)]
    mious = found | beside | {c: objectives.evaluate(c) for c in others if c not in found}
    candidates = described(mious, measured_ms, objectives=objectives, geometry=geometry)
    front = measured_front(candidates, limits)
    if not front:  # what met the limits at first did not when it was timed again
        subnets.keep_rounds([])  # on a machine that rests, the same search may find what fits
        raise _nothing_fits(
            measured_ms,
            objectives=objectives,
            space=space,
            geometry=geometry,
            targets=targets,
            limits=limits,
        )
    largest = next(row for row in candidates if row.deployment == space.largest)
    return SearchOutcome(
        trials=len(found), candidates=candidates, front=front, largest=largest, pick=front[-1]
    )


def _measure_lowest(
    objectives: Objectives,
    *,
    space: DeploymentSpace,
    geometry: SamGeometry,
    targets: Sequence[TargetLimit],
    limits: Limits,
    progress: Progress,
) -> Round:
    """Latencies of the smallest deployment and of the one predicted to be fastest.

    Raises:
        InfeasibleError: neither meets the targets, so no trial would.
        ProfileError: neither can be run.
    """
    predicted_cost = limits.cost_of(objectives.predict)
    lowest = list(dict.fromkeys([space.smallest, fastest(space, cost=predicted_cost)]))
    progress.log("Measuring the smallest subnet: does anything meet the target?")
    measured_ms = objectives.measure(lowest)
    found = dict(zip(lowest, map(tuple, measured_ms.tolist()), strict=True))
    if not limits.met(what_counts(measured_ms, objectives.upper(lowest))).any():
        raise _nothing_fits(
            found,
            objectives=objectives,
            space=space,
            geometry=geometry,
            targets=targets,
            limits=limits,
        )
    objectives.refit(lowest, measured_ms)
    return Round(latencies_ms=tuple(found.items()))


def _nothing_fits(
    measured_ms: Mapping[Deployment, Sequence[float]],
    *,
    objectives: Objectives,
    space: DeploymentSpace,
    geometry: SamGeometry,
    targets: Sequence[TargetLimit],
    limits: Limits,
) -> InfeasibleError:
    """The error where nothing measured is within the limits: what comes nearest, and why.

    Raises:
        ProfileError: none of it ran on all occasions.
    """
    timed = {one: row for one, row in measured_ms.items() if math.inf not in row}
    if not timed:
        raise ProfileError(
            f"None of the {len(measured_ms)} subnets measured could be timed each time that it was "
            "tried: the warnings above say why."
        )
    deployments, table = list(timed), np.array(list(timed.values()))
    latencies_ms = what_counts(table, objectives.upper(deployments))
    nearest = int(np.argmin(limits.costs(latencies_ms)))
    why = explain(
        deployments[nearest],
        space=space,
        geometry=geometry,
        predict=objectives.predict,
        latencies_ms=latencies_ms[nearest].tolist(),
        limits=limits,
        names=[target.name for target in targets],
        measured=np.isfinite(table[nearest]).tolist(),
    )
    return InfeasibleError(sentence(why), details=why.model_dump(mode="json"))
