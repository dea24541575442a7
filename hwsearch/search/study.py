"""The Optuna study of a search: the only file that knows Optuna.

A trial is one deployment. It ends COMPLETE with its mIoU and the cost of its predicted latencies,
or PRUNED without an accuracy where the upper bound of a latency exceeds its limit, or where it was
tried before: so accuracy is only ever computed for what may be reported. Each target has a
constraint, by how much the upper bound exceeds the limit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.exceptions import OptunaError
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from hwsearch.errors import UsageError
from hwsearch.progress import Progress
from hwsearch.records import Deployment, Milliseconds, Record, Scope
from hwsearch.search.accuracy_cache import AccuracyContext
from hwsearch.search.deployments import DeploymentSpace
from hwsearch.search.encoding import decode, encode, parameter_sizes
from hwsearch.search.moves import shrink_to
from hwsearch.search.objectives import Limits, Objectives
from hwsearch.search.propose import propose
from hwsearch.search.start import informed_start

MUTATION_SHARE = 0.8  # the other trials are the sampler's own
FRUITLESS_LIMIT = 20  # so many pruned trials in a row mean that little is left to try
STORAGE_ERRORS = (SQLAlchemyError, OptunaError, ImportError, OSError, ValueError)


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
    origin: str


class SubnetStudy:
    """A named study of one space under one target, kept in an Optuna storage.

    Any number of processes may run trials of one study at a time.

    Args:
        name: the study's name; an existing one is continued.
        storage: an Optuna storage URL, such as `sqlite:///study.db`.
        identity: what the study is for.
        space: where the subnets come from.
        objectives: how to judge and predict subnets.
        seed: seeds every trial together with its number.

    Raises:
        UsageError: the storage can't be used, or a study of this name was made for another
            purpose.
    """

    def __init__(
        self,
        *,
        name: str,
        storage: str,
        identity: StudyIdentity,
        space: DeploymentSpace,
        objectives: Objectives,
        seed: int,
    ) -> None:
        self.space = space
        self.objectives = objectives
        self.limits = identity.limits
        self.seed = seed
        with _quiet_optuna():
            self._study = _open(name, storage)
        self._check_identity(identity)

    @property
    def judged(self) -> tuple[Judged, ...]:
        """Every subnet whose accuracy is known, in the order of the trials."""
        return tuple(_judged(trial) for trial in self._trials(TrialState.COMPLETE))

    def run_until(self, total: int, *, progress: Progress) -> None:
        """Run trials until `total` subnets are judged, or nothing new is found.

        Processes that share a study may overshoot by one trial each.
        """
        judged = self.judged
        if len(judged) >= total:
            return
        start = self._agreed_start()
        fruitless = 0
        with _quiet_optuna(), progress.task("searching", total) as advance:
            advance(len(judged), self._best_note(judged))
            while len(judged) < total and fruitless < FRUITLESS_LIMIT:
                state = self._run_one(start, {row.deployment: row.miou for row in judged})
                judged = self.judged  # other processes may have added theirs
                fruitless += 1
                if state == TrialState.COMPLETE:
                    fruitless = 0
                    advance(1, self._best_note(judged))
        if fruitless:
            progress.log(f"Nothing new that fits was found: stopped at {len(judged)} trials.")

    def _run_one(
        self, start: Sequence[Deployment], judged: Mapping[Deployment, float]
    ) -> TrialState:
        trials = self._study.get_trials(deepcopy=False)
        rng = np.random.default_rng([self.seed, len(trials)])
        chosen = self._choose(start, trials, judged, rng)
        if chosen is not None:
            origin, config = chosen
            self._study.enqueue_trial(encode(self.space, config), user_attrs={"origin": origin})
        # A fresh seed for each trial: a resumed study goes on as an uninterrupted one would.
        self._study.sampler = _sampler(int(rng.integers(2**31)))
        ended: list[FrozenTrial] = []
        self._study.optimize(
            lambda trial: self._try_subnet(trial, judged),
            n_trials=1,
            callbacks=[lambda _, trial: ended.append(trial)],
        )
        return ended[0].state

    def _choose(
        self,
        start: Sequence[Deployment],
        trials: Sequence[FrozenTrial],
        judged: Mapping[Deployment, float],
        rng: np.random.Generator,
    ) -> tuple[str, Deployment] | None:
        """The next subnet and where it comes from, or None to leave it to the sampler."""
        seen = {t.user_attrs.get("deployment") for t in trials if t.state != TrialState.FAIL}
        for config in start:
            if config.to_json() not in seen:
                return "start", config
        last = trials[-1] if trials else None
        if last is not None and last.state == TrialState.PRUNED and _is_sampled(last):
            fitting = shrink_to(
                self.space,
                _deployment(last),
                cost=self._upper_cost,
                limit=self.limits.cost,
                rng=rng,
            )
            if fitting is not None and fitting not in judged:
                return "repair", fitting
        if rng.random() < MUTATION_SHARE:
            mutant = propose(
                self.space,
                judged,
                upper=self._upper_cost,
                limit=self.limits.cost,
                rng=rng,
            )
            return None if mutant is None else ("mutation", mutant)
        return None

    def _try_subnet(self, trial: Trial, judged: Mapping[Deployment, float]) -> tuple[float, float]:
        sizes = parameter_sizes(self.space)
        config = decode(
            self.space, {name: trial.suggest_int(name, 0, size - 1) for name, size in sizes.items()}
        )
        predicted_ms = self.objectives.predict([config])
        upper_ms = self.objectives.upper([config])
        trial.set_user_attr("deployment", config.to_json())
        trial.set_user_attr("predicted_ms", predicted_ms[0].tolist())
        trial.set_user_attr("upper_ms", upper_ms[0].tolist())
        for number, excess_ms in enumerate(self.limits.excess_ms(upper_ms)[0], start=1):
            trial.set_constraint(f"latency_over_limit_{number}_ms", float(excess_ms))
        extremes = (self.space.largest, self.space.smallest)
        too_slow = not self.limits.met(upper_ms)[0] and config not in extremes
        if too_slow or config in judged:
            raise optuna.TrialPruned
        return self.objectives.evaluate(config), float(self.limits.costs(predicted_ms)[0])

    def _agreed_start(self) -> list[Deployment]:
        """The start that the first process chose: predictors may differ by the next one."""
        stored: list[str] | None = self._study.user_attrs.get("start")
        if stored is not None:
            return [Deployment.from_json(text) for text in stored]
        start = informed_start(self.space, self._upper_cost, self.limits.cost)
        self._study.set_user_attr("start", [config.to_json() for config in start])
        return start

    def _upper_cost(self, deployments: Sequence[Deployment]) -> NDArray[np.float64]:
        return self.limits.costs(self.objectives.upper(deployments))

    def _best_note(self, judged: Sequence[Judged]) -> str:
        fitting = [row.miou for row in judged if self.limits.met(row.upper_ms)[0]]
        return f"best mIoU {max(fitting):.4f}" if fitting else "nothing feasible yet"

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states)

    def _check_identity(self, identity: StudyIdentity) -> None:
        name = self._study.study_name
        stored = self._study.user_attrs.get("identity")
        if stored is None and not self._study.get_trials(deepcopy=False):
            self._study.set_user_attr("identity", identity.to_json())
            return
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


def _sampler(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(seed=seed, multivariate=True)


def _open(name: str, storage: str) -> optuna.Study:
    try:
        study = optuna.create_study(
            study_name=name,
            storage=storage,
            directions=["maximize", "minimize"],
            load_if_exists=True,
        )
    except STORAGE_ERRORS as bad:
        reason = str(bad).splitlines()[0].rstrip(".")
        raise UsageError(
            f"The study storage '{storage}' can't be used ({reason}): give an Optuna storage URL, "
            "such as sqlite:///study.db or postgresql://user@host/database."
        ) from None
    return study


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Optuna's own log lines would tear the progress bar."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _flat(identity: StudyIdentity) -> dict[str, str]:
    """Each field's name in words, and its value."""
    fields = identity.accuracy.model_dump() | identity.model_dump(exclude={"accuracy"})
    fields["target fingerprint"] = ", ".join(fields.pop("target_fingerprints"))
    limits_ms = fields.pop("target_latencies_ms")
    fields["target latency"] = ", ".join(f"{limit:g} ms" for limit in limits_ms)
    return {name.replace("_", " "): str(value) for name, value in fields.items()}


def _deployment(trial: FrozenTrial) -> Deployment:
    return Deployment.from_json(trial.user_attrs["deployment"])


def _is_sampled(trial: FrozenTrial) -> bool:
    return "origin" not in trial.user_attrs and "deployment" in trial.user_attrs


def _judged(trial: FrozenTrial) -> Judged:
    return Judged(
        deployment=_deployment(trial),
        miou=trial.values[0],
        predicted_ms=tuple(trial.user_attrs["predicted_ms"]),
        upper_ms=tuple(trial.user_attrs["upper_ms"]),
        origin=trial.user_attrs.get("origin", "sampler"),
    )
