"""The Optuna study of a search.

A trial is one deployment. It ends COMPLETE with its mIoU and the cost of its predicted latencies,
or PRUNED without an accuracy where the upper bound of a latency exceeds its limit, or where another
trial has the same deployment: so accuracy is only ever computed for what may be reported, and once.
Each target has a constraint, by how much the upper bound exceeds the limit. FAIL is a trial that
was interrupted; it is queued once more, or its deployment is proposed again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from hwsearch.errors import UsageError
from hwsearch.progress import Progress
from hwsearch.records import Deployment, Milliseconds, Record, Scope
from hwsearch.search.accuracy_cache import AccuracyContext
from hwsearch.search.deployments import DeploymentSpace
from hwsearch.search.encoding import decode, parameter_sizes
from hwsearch.search.interrupts import Interrupts
from hwsearch.search.objectives import Limits, Objectives
from hwsearch.search.rounds import Round
from hwsearch.search.sampler import SubnetSampler
from hwsearch.search.storage import (
    CHOSEN,
    FAULTS,
    WORKER,
    open_storage,
    quiet_optuna,
    storage_error,
    told_in_a_sentence,
)
from hwsearch.search.trials import (
    PENDING,
    LostTrials,
    Worker,
    count_claimed,
    deployment_of,
    has_heartbeats,
    this_worker,
)

FRUITLESS_LIMIT = 20  # so many pruned trials in a row mean that little is left to try
POLL_S = 0.5
OF_A_LOST_TRIAL = (UpdateFinishedTrialError, optuna.TrialPruned)  # no error of an evaluation
ROUNDS, IDENTITY, OWNER = "measured", "identity", "owner"  # attributes of a study


class StudyIdentity(Record):
    """What a study was made for; it is never continued for anything else.

    `space_digest` tells the choices of the search space, `target_fingerprints` the devices and
    runtimes that latencies belong to, `target_latencies_ms` the limit on each of them.
    """

    accuracy: AccuracyContext
    space_digest: str
    target_fingerprints: tuple[str, ...]
    scope: Scope
    target_latencies_ms: tuple[Milliseconds, ...]

    @property
    def limits(self) -> Limits:
        """What the search may not exceed."""
        return Limits(self.target_latencies_ms)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A deployment whose accuracy is known, with the latencies predicted when it was tried."""

    deployment: Deployment
    miou: float
    predicted_ms: tuple[float, ...]
    upper_ms: tuple[float, ...]


class SubnetStudy:
    """A named study of one space under one set of limits, kept in an Optuna storage.

    Any number of processes, on any number of machines, may run trials of one study at a time.

    Args:
        name: the study's name; an existing one is continued.
        storage: a storage, or the URL of one, as `open_storage` takes it.
        identity: what the study is for.
        space: where the deployments come from.
        objectives: how to judge and predict deployments.
        seed: seeds every trial together with its number.
        verifier: who measures here; nobody takes what another one measured for its own.

    Raises:
        UsageError: the storage can't be used, or a study of this name was made for another
            purpose.
    """

    def __init__(
        self,
        *,
        name: str,
        storage: str | BaseStorage,
        identity: StudyIdentity,
        space: DeploymentSpace,
        objectives: Objectives,
        seed: int,
        verifier: str = "",
    ) -> None:
        self._rounds_key = f"{ROUNDS} by {verifier}" if verifier else ROUNDS
        self.space = space
        self.objectives = objectives
        self.limits = identity.limits
        self._interrupts = Interrupts()
        self._storage = open_storage(storage) if isinstance(storage, str) else storage
        sampler = SubnetSampler(space, upper=self._upper, limit=self.limits.cost, seed=seed)
        self._study = _open(name, self._storage, sampler, url=str(storage))
        self._lost = LostTrials(self._study)
        self._check_identity(identity)

    @property
    @told_in_a_sentence()
    def judged(self) -> tuple[Judged, ...]:
        """Every deployment whose accuracy is known, in the order of the trials."""
        return tuple(self._judged(trial) for trial in self._trials(TrialState.COMPLETE))

    @property
    @told_in_a_sentence()
    def rounds(self) -> tuple[Round, ...]:
        """What `verifier` measured: before the first trial, and in each round of verification.

        Kept with the study, so that a process that resumes it predicts as the first did.
        """
        return tuple(map(Round.from_json, self._study.user_attrs.get(self._rounds_key, [])))

    @told_in_a_sentence()
    def keep_rounds(self, rounds: Sequence[Round]) -> None:
        """Store what was measured, in place of what was stored."""
        self._study.set_user_attr(self._rounds_key, [measured.to_json() for measured in rounds])

    def forget_picks(self) -> None:
        """Let whoever runs this search again measure its picks again."""
        self.keep_rounds(self.rounds[:1])

    @told_in_a_sentence()
    def run_until(self, total: int, *, progress: Progress) -> None:
        """Run trials until `total` deployments are judged, or nothing new is found.

        Trials that other processes are running count, so that a study that many share ends with
        `total`; what they leave undone is waited for, and done if they are gone.

        Raises:
            HwsearchError: the storage failed.
        """
        done, fruitless = len(self.judged), 0
        if done >= total:
            return
        with (
            quiet_optuna(),
            progress.task("searching", total) as advance,
            Interrupts() as self._interrupts,
        ):
            advance(done, self.best_note())
            while done < total and fruitless < FRUITLESS_LIMIT:
                if self._is_work_left(total):
                    state = self._run_one()
                    fruitless = 0 if state == TrialState.COMPLETE else fruitless + 1
                else:
                    with self._interrupts.opened():
                        time.sleep(POLL_S)
                before, done = done, len(self._trials(TrialState.COMPLETE))
                if done > before:
                    advance(done - before, self.best_note())
                self._interrupts.let_in()
        if fruitless:
            progress.log(f"Nothing new that fits was found: stopped at {done} trials.")

    def best_note(self) -> str:
        """A phrase about the best deployment so far."""
        fitting = [row.miou for row in self.judged if self.limits.met(row.upper_ms)[0]]
        return f"best mIoU {max(fitting):.4f}" if fitting else "nothing feasible yet"

    def _judged(self, trial: FrozenTrial) -> Judged:
        deployment = decode(self.space, trial.params)
        predicted_ms, upper_ms = map(trial.user_attrs.get, ("predicted_ms", "upper_ms"))
        if predicted_ms is None or upper_ms is None:  # someone's own objective was here
            (predicted_ms,) = self.objectives.predict([deployment]).tolist()
            (upper_ms,) = self.objectives.upper([deployment]).tolist()
        return Judged(
            deployment=deployment,
            miou=trial.values[0],
            predicted_ms=tuple(predicted_ms),
            upper_ms=tuple(upper_ms),
        )

    def _is_work_left(self, total: int) -> bool:
        """Whether a trial is queued, or fewer than `total` are claimed by somebody."""
        self._lost.retry()
        trials = self._trials()
        if any(trial.state == TrialState.WAITING for trial in trials):
            return True
        return count_claimed(trials, has_heartbeats=has_heartbeats(self._storage)) < total

    def _run_one(self) -> TrialState:
        ended: list[FrozenTrial] = []
        errors: list[Exception] = []

        def objective(trial: Trial) -> tuple[float, float]:
            try:
                return self.try_deployment(trial)
            except Exception as error:
                errors.append(error)
                raise

        try:
            self._study.optimize(
                objective, n_trials=1, callbacks=[lambda _, trial: ended.append(trial)]
            )
        except (*OF_A_LOST_TRIAL, ValueError, AssertionError):  # Optuna's for such a trial
            if any(not isinstance(error, OF_A_LOST_TRIAL) for error in errors):
                raise
            return TrialState.FAIL  # others took this process for gone, and do the trial again
        return ended[0].state

    def try_deployment(self, trial: Trial) -> tuple[float, float]:
        """The objective: mIoU and cost of the deployment that a trial proposes.

        Raises:
            TrialPruned: it can't meet the limits, or another trial has the same one.
        """
        trial.set_user_attr(WORKER, this_worker().to_json())
        sizes = parameter_sizes(self.space)
        values = {name: trial.suggest_int(name, 0, size - 1) for name, size in sizes.items()}
        deployment = decode(self.space, values)
        predicted_ms = self.objectives.predict([deployment])
        upper_ms = self.objectives.upper([deployment])
        trial.set_user_attr(CHOSEN, deployment.subnet.to_json())
        trial.set_user_attr("predicted_ms", predicted_ms[0].tolist())
        trial.set_user_attr("upper_ms", upper_ms[0].tolist())
        for number, excess_ms in enumerate(self.limits.excess_ms(upper_ms)[0].tolist(), start=1):
            name = f"latency_over_limit_{number}_ms"
            if name not in trial.constraints:  # a trial that is retried has them
                trial.set_constraint(name, excess_ms)
        extremes = (self.space.largest, self.space.smallest)
        too_slow = not self.limits.met(upper_ms)[0] and deployment not in extremes
        if too_slow or self._has_another(trial.number, deployment):
            raise optuna.TrialPruned
        with self._interrupts.opened():
            miou = self.objectives.evaluate(deployment)
        return miou, float(self.limits.costs(predicted_ms)[0])

    def _has_another(self, number: int, deployment: Deployment) -> bool:
        """Whether another trial judged a deployment, or an earlier one is about to."""
        return any(
            other.state == TrialState.COMPLETE or other.number < number
            for other in self._trials(TrialState.COMPLETE, *PENDING)
            if other.number != number and deployment_of(self.space, other) == deployment
        )

    def _upper(self, deployments: Sequence[Deployment]) -> NDArray[np.float64]:
        return self.limits.costs(self.objectives.upper(deployments))

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states or None)

    @told_in_a_sentence()
    def _check_identity(self, identity: StudyIdentity) -> None:
        name = self._study.study_name
        if self._is_nobodys():
            self._study.set_user_attr(OWNER, this_worker().to_json())
            self._study.set_user_attr(IDENTITY, identity.to_json())
        stored = self._study.user_attrs.get(IDENTITY)  # another process may have been faster
        if stored is None:
            raise UsageError(
                f"Study '{name}' was not made by hwsearch: choose another name for this one."
            )
        try:
            theirs, ours = _flat(StudyIdentity.from_json(stored)), _flat(identity)
        except UsageError:
            raise UsageError(
                f"Study '{name}' was made by another version of hwsearch: choose another name for "
                "this one."
            ) from None
        for field, value in ours.items():
            if theirs[field] != value:
                raise UsageError(
                    f"Study '{name}' was made for another {field} "
                    f"({theirs[field]}, now {value}): choose another name for this one."
                )

    def _is_nobodys(self) -> bool:
        """Whether nothing hangs on the purpose that the study has, nor works anybody here for it.

        A search measures the smallest subnet before there is anything else in its study.
        """
        attributes = self._study.user_attrs
        if self._trials() or any(attributes[key] for key in attributes if key.startswith(ROUNDS)):
            return False
        if OWNER not in attributes:
            return True
        owner, me = Worker.from_json(attributes[OWNER]), this_worker()
        return owner == me or owner.machine != me.machine or owner.is_gone


def _open(name: str, storage: BaseStorage, sampler: SubnetSampler, *, url: str) -> optuna.Study:
    try:
        with quiet_optuna():
            return optuna.create_study(
                study_name=name,
                storage=storage,
                sampler=sampler,
                directions=["maximize", "minimize"],
                load_if_exists=True,
            )
    except FAULTS as bad:
        raise storage_error(url, bad) from None


def _flat(identity: StudyIdentity) -> dict[str, str]:
    """Each field's name in words, and its value."""
    fields = identity.accuracy.model_dump() | identity.model_dump(exclude={"accuracy"})
    fields["target fingerprint"] = ", ".join(fields.pop("target_fingerprints"))
    limits_ms = fields.pop("target_latencies_ms")
    fields["target latency"] = ", ".join(f"{limit:g} ms" for limit in limits_ms)
    return {name.replace("_", " "): str(value) for name, value in fields.items()}
